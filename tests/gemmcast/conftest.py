"""What the tests of gemmcast share: three devices, random queries, and small real models.

The trainer's own CostModel is fitted on sizes below 2**13 and on every family except HELD_OUT:
random queries, and each of the usual configurations with the smallest and the largest sizes. The
model with power takes trees, the other does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest

from gemmcast import Predictor, query
from gemmcast.config import FAMILIES, KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.feasible import impossible
from gemmcast.gemm import LAYOUTS, Gemm
from gemmcast.prediction import Prediction

Draw = Callable[..., list[tuple[Gemm, KernelConfig]]]
Edit = Callable[..., bytes]
MadeOnce = Callable[[str, Callable[[], Any]], Any]
"""conftest.py's, one folder up."""
Alike = Callable[[Prediction, Prediction], bool]

GPU = Device(
    name="GPU A",
    kind="cuda",
    uuid="GPU-a",
    compute_units=132,
    clock_max_mhz=1980.0,
    power_limit_w=700.0,
    idle_power_w=71.3,
    memory_bytes=80 << 30,
    l2_bytes=50 << 20,
    dram_gbps=2987.6,
    l2_gbps=5512.3,
    empty_kernel_us=1.1,
    empty_launch_us=2.1,
    peak_tflops={"fp32": 51.2, "fp16": 743.1},
    driver="580.1",
    cuda="13.0",
)
OTHER_GPU = replace(
    GPU,
    name="GPU B",
    uuid="GPU-b",
    compute_units=84,
    clock_max_mhz=None,
    power_limit_w=300.0,
    dram_gbps=611.7,
    l2_gbps=None,
)
CPU = Device(
    name="CPU C",
    kind="cpu",
    uuid="CPU-c",
    compute_units=7,
    memory_bytes=16 << 30,
    l2_bytes=30 << 20,
    dram_gbps=17.3,
    empty_kernel_us=0.7,
    empty_launch_us=0.7,
    peak_tflops={"fp32": 0.1234567, "fp64": 0.0611111},
)
HELD_OUT = "custom"
KERNELS = (
    "",
    "simt_fp32_nt_256x128x8_64x64x8_s2_z1_a1",
    "wgmma_fp16_nt_64x128x128_2x1_pingpong_z1_a8",
    "wgmma_bf16_nt_128x128x64_2x1_ws_z1_a8",
)


def _draw(device: Device, count: int, seed: int = 0) -> list[tuple[Gemm, KernelConfig]]:
    """Random problems at the device's dtypes, random configurations with unknown knobs."""
    rng, config = Random(seed), cast(Callable[..., KernelConfig], KernelConfig)

    def knob() -> int:
        return rng.choice((0, rng.randint(1, 256), rng.randint(1, 16)))

    def dim() -> int:
        return int(2 ** rng.uniform(0, 13))

    families = [name for name, facts in FAMILIES.items() if facts.device_kind == device.kind]
    return [
        (
            Gemm(
                m=dim(),
                n=dim(),
                k=dim(),
                batch=rng.choice((1, 1, 5)),
                dtype=rng.choice(sorted(device.peak_tflops)),
                layout=rng.choice(LAYOUTS),
                beta=rng.choice((0.0, 0.5)),
            ),
            config(
                family=rng.choice(families),
                kernel=rng.choice(KERNELS),
                **{name: knob() for name in KNOBS},
            ),
        )
        for _ in range(count)
    ]


def _usual(device: Device) -> list[tuple[Gemm, KernelConfig]]:
    """Queries about what most callers ask for: so that it is within the training range."""
    configs = [KernelConfig(family="blas")]
    if device.kind == "cuda":
        configs = [KernelConfig(family=family) for family in ("cublas", "cublaslt")]
        tiles = [(m, n, 16) for m in (4, 8, 16, 32, 64, 128) for n in (4, 16, 64)]
        for m, n, k in (*tiles, (4, 4, 4), (8, 8, 8), (32, 32, 32)):
            configs.append(KernelConfig(family="tiled", tile_m=m, tile_n=n, tile_k=k))
    usual = []
    for dtype in sorted(device.peak_tflops):
        for size, batch in ((1, 1), (1, 5), (2**13 - 1, 1)):
            gemm = Gemm(m=size, n=size, k=size, batch=batch, dtype=dtype)
            usual += [(gemm, config) for config in configs]
    return usual


def _export(devices: list[Device], power: bool) -> bytes:
    from costmodel.model import CostModel
    from costmodel.onnx_export import export

    drawn = [
        (gemm, config, device)
        for device in devices
        for gemm, config in (*_draw(device, 200), *_usual(device))
        if config.family != HELD_OUT
    ]
    rows = np.array([query.encode(*one) for one in drawn], dtype=np.float32)
    work, noise = (
        rows[:, :3].prod(axis=1, dtype=np.float64),
        np.random.default_rng(0).normal(size=len(rows)),
    )
    # A tenth of the peak: predictions stay above the shortest possible time
    runtime_us = (3 + work * 2e-5 / rows[:, query.AT["peak_tflops"]]) * np.exp(0.3 * noise)
    measured = {"runtime_us": runtime_us}
    if power:
        sustained_us, power_w = runtime_us * (1.1 + 0.05 * noise), 150 + 20 * np.log(work)
        measured |= {
            "sustained_runtime_us": sustained_us,
            "power_w": power_w,
            "energy_mj": power_w * sustained_us / 1e3,
        }
    tree_weight = {"runtime": 0.5, "sustained": 0.0, "power": 1.0} if power else {"runtime": 0.0}
    model = CostModel(members=2, steps=1_500, iterations=8, leaves=7, tree_weight=tree_weight)
    return export(model.fit(rows, measured), devices)


def _edit(model: bytes, *, faster: float = 0.0, **metadata: str | None) -> bytes:
    """The model with runtime_us divided by exp(faster); metadata are set, or removed where None."""
    import onnx

    proto = onnx.load_model_from_string(model)
    (node,) = (node for node in proto.graph.node if "runtime_us" in node.output)
    node.output[list(node.output).index("runtime_us")] = "slower_us"
    factor = onnx.helper.make_tensor("factor", onnx.TensorProto.FLOAT, [], [math.exp(-faster)])
    proto.graph.node.append(onnx.helper.make_node("Constant", [], ["factor"], value=factor))
    proto.graph.node.append(onnx.helper.make_node("Mul", ["slower_us", "factor"], ["runtime_us"]))
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    properties |= {f"gemmcast.{key}": value for key, value in metadata.items()}
    kept = {key: value for key, value in properties.items() if value is not None}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, kept)
    return bytes(proto.SerializeToString())


def _answer_now(
    predictor: Predictor, gemm: Gemm, config: KernelConfig, then: dict[str, Any]
) -> dict[str, Any]:
    """What a query of `then` (device, prediction) is answered now, or as it was if it is refused.

    Impossible configurations are flagged since issue 19, and a family on another kind of device is
    refused; whatever else differs is a fault.
    """
    device = next(one for one in predictor.devices if one.name == then["device"])
    if FAMILIES[config.family].device_kind != device.kind:
        with pytest.raises(InputError, match="this family runs on"):
            predictor.predict(gemm, config, device)
        return dict(then["prediction"])
    answer = asdict(predictor.predict(gemm, config, then["device"]))
    if impossible(gemm, config, device.arch):
        assert answer["extrapolating"]
        answer["extrapolating"] = then["prediction"]["extrapolating"]
    return answer


def _alike(one: Prediction, other: Prediction) -> bool:
    """Equal but for rounding: a batch is summed in another order than a single query.

    Intervals are wide, and so is their rounding.
    """
    if tuple(one.low) != tuple(other.low):
        return False
    if (one.extrapolating, one.model_version) != (other.extrapolating, other.model_version):
        return False
    values = [getattr(one, name) for name in one.low]
    other_values = [getattr(other, name) for name in one.low]
    bounds = [*one.low.values(), *one.high.values()]
    other_bounds = [*other.low.values(), *other.high.values()]
    values_agree = values == pytest.approx(other_values, rel=1e-5, abs=0)
    return values_agree and bounds == pytest.approx(other_bounds, rel=1e-4, abs=0)


@pytest.fixture(scope="session")
def gpu() -> Device:
    return GPU


@pytest.fixture(scope="session")
def cpu() -> Device:
    """Seven cores, so that shares of the peak are no round numbers."""
    return CPU


@pytest.fixture(scope="session")
def draw() -> Draw:
    return _draw


@pytest.fixture(scope="session")
def edit() -> Edit:
    return _edit


@pytest.fixture(scope="session")
def alike() -> Alike:
    return _alike


@pytest.fixture(scope="session")
def answer_now() -> Callable[..., dict[str, Any]]:
    return _answer_now


@pytest.fixture(scope="session")
def held_out_family() -> str:
    """A family that no training row has."""
    return HELD_OUT


@pytest.fixture(scope="session")
def power_model(made_once: MadeOnce) -> bytes:
    """Trained on two GPUs, with every output."""
    return bytes(made_once("power model", lambda: _export([GPU, OTHER_GPU], power=True)))


@pytest.fixture(scope="session")
def time_model(made_once: MadeOnce) -> bytes:
    """Trained on one CPU, without power."""
    return bytes(made_once("time model", lambda: _export([CPU], power=False)))


@pytest.fixture(scope="session")
def power_file(power_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "power.onnx"
    path.write_bytes(power_model)
    return path


@pytest.fixture(scope="session")
def time_file(time_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "time.onnx"
    path.write_bytes(time_model)
    return path


@pytest.fixture
def powered(power_file: Path) -> Iterator[Predictor]:
    with Predictor(power_file) as predictor:
        yield predictor


@pytest.fixture
def timed(time_file: Path) -> Iterator[Predictor]:
    with Predictor(time_file) as predictor:
        yield predictor
