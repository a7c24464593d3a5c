"""What the GEMMs of a language model's forward pass cost on a device: time and energy.

A sum over launches, one after the other: attention, norms, communication and the gaps between
kernels are not in it. All GPUs of a tensor-parallel group work at the same time, so time is one
GPU's and energy is all of theirs.

Intervals are sums of the GEMMs' ends. Errors of GEMMs on one device are not independent: a launch
that is repeated errs by the same each time, and a board that is slower is slower for all. If they
erred all together, the sum of the ends would be the 90 % interval of the sum; if they did not, it
is too wide (benchmarks/pass_intervals.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from gemmcast.candidates import default_config, refusal
from gemmcast.config import TRITON_KERNELS, KernelConfig, library_config
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm
from gemmcast.language_models import LanguageModel, Step
from gemmcast.prediction import Prediction
from gemmcast.predictor import Predictor

SUMMED: Final = ("runtime_us", "sustained_runtime_us", "energy_mj")
"""Values that are added up."""
_ENERGY: Final = "energy_mj"
_Key = tuple[Gemm, str]
"""A GEMM, and the kernel that is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmCost:
    """One GEMM of a pass on one GPU."""

    listed: ListedGemm
    """The GEMM and its number of launches."""
    config: KernelConfig
    """What computes it."""
    prediction: Prediction
    """Of one launch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The sum over launches. None stands for a value that the model does not predict."""

    runtime_us: float
    """Time of one GPU, each GEMM as in a short burst. [us]"""
    sustained_runtime_us: float | None
    """The same in an endless row of launches, where a power cap acts. [us]"""
    energy_mj: float | None
    """Energy of all GPUs of the group. [mJ]"""
    low: Mapping[str, float]
    """Field name -> lower end of the interval: the sum of the lower ends."""
    high: Mapping[str, float]
    """Field name -> upper end: the sum of the upper ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One layer of a kind."""

    name: str
    """`layer`, `dense layer` or `expert layer`."""
    count: int
    """Layers of this kind in the model."""
    cost: Cost
    """Of one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """One forward pass of a model on a device."""

    device: str
    """Its name."""
    tp: int
    """GPUs that share each layer."""
    tokens: int
    """Rows of the pass."""
    sequences: int
    """Sequences that they belong to; rows of lm_head."""
    total: Cost
    """Of the whole pass."""
    layers: Sequence[LayerCost]
    """Each kind of layer."""
    gemms: Sequence[GemmCost]
    """The GEMMs that `total` is the sum of."""
    weight_bytes: float
    """Weights of one GPU. [bytes]"""
    fits: bool
    """Whether these weights alone fit in the device's memory."""

    @property
    def extrapolating(self) -> list[str]:
        """Names of the GEMMs that are outside the training range."""
        return [one.listed.name for one in self.gemms if one.prediction.extrapolating]


def pass_cost(
    predictor: Predictor,
    device: Device,
    model: LanguageModel,
    step: Step,
    *,
    family: str | None = None,
) -> PassCost:
    """The cost of one forward pass.

    Args:
        predictor: what predicts each GEMM.
        device: where it runs, on `model.tp` of them.
        model: one GPU's part of the model.
        step: tokens and sequences.
        family: whose default computes the GEMMs that it can run; the others, and None: what the
            vendor's library launches by itself.

    Raises:
        InputError: the device was not measured at a dtype of the model, or an unknown family.
    """
    gemms = model.gemms(step)
    queries = [(one.gemm, _config(one, device, family)) for one in gemms]
    predictions = predictor.predict_batch(queries, device)
    costs: list[GemmCost] = []
    for listed, (_, config), prediction in zip(gemms, queries, predictions, strict=True):
        costs.append(GemmCost(listed=listed, config=config, prediction=prediction))
    by_gemm = {(one.listed.gemm, one.listed.kernel): one.prediction for one in costs}
    return PassCost(
        device=device.name,
        tp=model.tp,
        tokens=step.tokens,
        sequences=step.logits,
        total=_sum(gemms, by_gemm, model.tp),
        layers=_layer_costs(model, step, by_gemm),
        gemms=costs,
        weight_bytes=model.weight_bytes,
        fits=model.weight_bytes <= device.memory_bytes,
    )


def costs_on_devices(
    predictor: Predictor,
    devices: Sequence[Device],
    models: Sequence[LanguageModel],
    steps: Sequence[Step],
    family: str | None = None,
) -> tuple[list[PassCost], dict[str, str]]:
    """The passes by step, device and model, and the devices that are left out with the reason.

    Left out is a device that was not measured at a dtype of the model.

    Raises:
        InputError: no device is left; the reason of the first.
    """
    passes: list[PassCost] = []
    errors: dict[str, InputError] = {}
    for step, device, model in product(steps, devices, models):
        try:
            passes.append(pass_cost(predictor, device, model, step, family=family))
        except InputError as error:
            errors[device.name] = error
    if not passes:
        raise next(iter(errors.values()))
    return passes, {name: str(error) for name, error in errors.items()}


def by_tokens(passes: Sequence[PassCost]) -> Mapping[int, list[PassCost]]:
    """Number of tokens -> its passes, in their order."""
    groups: dict[int, list[PassCost]] = {}
    for one in passes:
        groups.setdefault(one.tokens, []).append(one)
    return groups


def pareto(passes: Sequence[PassCost]) -> list[PassCost]:
    """Those that no other beats in time and energy, fastest first.

    Time is the sustained one, which energy belongs to. Left out is what does not fit, and what has
    no energy.
    """
    front: list[PassCost] = []
    for one in sorted(_comparable(passes), key=_time_then_energy):
        if not front or _time_then_energy(one)[1] < _time_then_energy(front[-1])[1]:
            front.append(one)
    return front


def _comparable(passes: Iterable[PassCost]) -> Iterable[PassCost]:
    for one in passes:
        if one.fits and one.total.energy_mj and one.total.sustained_runtime_us:
            yield one


def _time_then_energy(one: PassCost) -> tuple[float, float]:
    return one.total.sustained_runtime_us or 0.0, one.total.energy_mj or 0.0


def _config(listed: ListedGemm, device: Device, family: str | None) -> KernelConfig:
    gemm = listed.gemm
    if family is not None:
        kernel = listed.kernel if family == "triton" else ""
        written = f"{family}:{kernel}" if kernel in TRITON_KERNELS else family
        if refusal(written, gemm, device) is None:
            return default_config(written, gemm, device)
    return library_config(gemm.dtype, device.kind)


def _layer_costs(
    model: LanguageModel, step: Step, by_gemm: Mapping[_Key, Prediction]
) -> list[LayerCost]:
    costs: list[LayerCost] = []
    for layer, count in model.layers.items():
        cost = _sum(model.layer_gemms(layer, step), by_gemm, model.tp)
        costs.append(LayerCost(name=layer.name, count=count, cost=cost))
    return costs


def _sum(gemms: Sequence[ListedGemm], by_gemm: Mapping[_Key, Prediction], tp: int) -> Cost:
    predictions = [by_gemm[one.gemm, one.kernel] for one in gemms]
    weights = [one.weight for one in gemms]
    values: dict[str, float] = {}
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for name in SUMMED:
        if any(getattr(one, name) is None for one in predictions):
            continue
        factor = tp if name == _ENERGY else 1
        each = [getattr(one, name) for one in predictions]
        values[name] = factor * _weighted(weights, each)
        low[name] = factor * _weighted(weights, [one.low[name] for one in predictions])
        high[name] = factor * _weighted(weights, [one.high[name] for one in predictions])
    return Cost(
        runtime_us=values["runtime_us"],
        sustained_runtime_us=values.get("sustained_runtime_us"),
        energy_mj=values.get(_ENERGY),
        low=low,
        high=high,
    )


def _weighted(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))
