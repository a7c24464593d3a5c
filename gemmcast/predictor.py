"""Predict what a GEMM costs, in microseconds, in this process.

    predictor = Predictor()                        # or an .onnx file, or a node's model directory
    predictor.predict(Gemm(m=4096, n=4096, k=512, dtype="bf16", layout="nt"), device="h100")

Needs NumPy and ONNX Runtime, nothing else. All mathematics is in the graph; this file encodes
queries, runs the graph and names the answers. Does not know how a file is read or followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from gemmcast import device_names, feasible, modeldir, models, query, ties
from gemmcast.candidates import predictable
from gemmcast.config import KernelConfig, library_config
from gemmcast.contracts import device_for
from gemmcast.device import Device
from gemmcast.errors import InputError, ModelFileError
from gemmcast.following import ModelFollower
from gemmcast.gemm import Gemm
from gemmcast.memo import Asked, Memo
from gemmcast.modelfile import Answers, LoadedModel
from gemmcast.objective import Objective
from gemmcast.prediction import Prediction, known
from gemmcast.ranking import (
    PICKED_FROM,
    PREFILTERED,
    Choice,
    RankedConfig,
    RankingTask,
    predictions_of,
)

__all__ = ["PREFILTERED", "Choice", "Predictor", "RankedConfig"]


class Predictor:
    """Predicts the cost of GEMMs with one model.

    Any number of threads may share it. It may be used after a fork. Pickled, it is its source: the
    other process opens that path again. Each process follows a directory by itself.

    Args:
        source: an .onnx file, or a node's model directory, which it then follows; None: the model
            that comes with gemmcast (gemmcast/models).
        refresh_s: time between two looks at a directory for a new version.

    Raises:
        ModelFileError: the file is damaged, foreign, or of a contract that is not served.
    """

    def __init__(self, source: str | Path | None = None, *, refresh_s: float = 0.2) -> None:
        self.source = models.path() if source is None else Path(source)
        self._refresh_s = refresh_s
        self._memo: Memo | None = None
        self._follower: ModelFollower | None = None
        if self.source.is_dir():
            self._follower = ModelFollower(self.source, refresh_s)
        else:
            self._file_model = _load_file(self.source)

    @property
    def version(self) -> str:
        """The version of the model in use; of a file, the start of its SHA-256."""
        return self._model.version

    @property
    def outputs(self) -> tuple[str, ...]:
        """The values that the model predicts, some of gemmcast.query.OUTPUTS."""
        return tuple(self._model.outputs)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's description of itself: contract, fields, when it was trained, ..."""
        return self._model.metadata

    @property
    def devices(self) -> list[Device]:
        """The devices that can be named: this node's, then those of the training rows.

        A UUID names one board. A name that several boards of this node have stands for the median
        of their descriptors (gemmcast/descriptions.py).
        """
        return self._model.devices

    def device(self, device: Device | str | None = None) -> Device:
        """The description that a name stands for.

        Args:
            device: a name or UUID of `devices`, or words of a name in any case, such as "h100" or
                "h100-sxm" (gemmcast/device_names.py); None if there is only one. A Device is
                itself.

        Raises:
            InputError: no device fits, or several do.
        """
        return _chosen(self._model, device)

    def predict(
        self,
        gemm: Gemm,
        config: KernelConfig | None = None,
        device: Device | str | None = None,
        *,
        cache: str = "cold",
    ) -> Prediction:
        """The cost of one GEMM with one configuration.

        A configuration that no such device can run (gemmcast/feasible.py) is `extrapolating`. A
        query that came before is answered with the same object (gemmcast/memo.py).

        Args:
            gemm: the problem.
            config: the kernel and its knobs; None: what the vendor's library launches by itself
                (`gemmcast.config.library_config`).
            device: a Device, or a name as for `device`; None if there is only one.
            cache: state of the L2 cache, "cold" or "warm".

        Raises:
            InputError: the device is unknown or was not measured at this dtype, or the family runs
                on another kind; or the model cannot know what the configuration's name means
                (gemmcast/ties.py).
        """
        memo = self._current_memo()
        asked = Asked(gemm, config, device, cache)
        prediction = memo.get(asked)
        if prediction is None:
            prediction = _predicted(memo.model, asked)
            memo.keep(asked, prediction)
        return prediction

    def predict_encoded(self, row: Sequence[query.Number] | query.Rows) -> dict[str, float]:
        """The values of one encoded row[len(FIELDS)] by output name, without intervals.

        Power and energy are absent where the row's power limit is unknown or was never seen. A row
        for a file of an earlier contract is encoded with `gemmcast.contracts.device_for`.
        """
        model = self._model
        return known(model.outputs, model.run_one(row).values)

    def predict_batch(
        self,
        queries: Sequence[tuple[Gemm, KernelConfig]],
        device: Device | str | None = None,
        *,
        cache: str = "cold",
    ) -> list[Prediction]:
        """The costs of many GEMMs on one device, in their order. Raises as `predict` does."""
        if not queries:
            return []
        model = self._model
        ties.check_names(config for _, config in queries)
        on = _device(model, device)
        for _, config in queries:
            feasible.check_family(config, on)
        rows = [query.encode(gemm, config, on, cache=cache) for gemm, config in queries]
        predictions = predictions_of(model, model.run(np.array(rows, dtype=np.float32)))
        doubted: list[Prediction] = []
        for (gemm, config), prediction in zip(queries, predictions, strict=True):
            doubted.append(_doubted(prediction, feasible.impossible(gemm, config, on.arch)))
        return doubted

    def predict_rows(self, rows: query.Rows) -> Answers:
        """Encoded rows[n_rows, len(FIELDS)] -> answers[n_rows] by output name.

        `low` and `high` are [n_rows, n_outputs], `extrapolating` is [n_rows]. Power and energy are
        NaN where a row's power limit is unknown or was never seen.
        """
        return self._model.run(rows)

    def pick(
        self,
        gemm: Gemm,
        configs: Sequence[KernelConfig] | None = None,
        objective: str = "time",
        device: Device | str | None = None,
        *,
        cache: str = "cold",
        families: Sequence[str] | None = None,
        default: KernelConfig | None = None,
        bold: bool = False,
    ) -> Choice:
        """The configuration to take: another one than the default only if it is surely better.

        Surely better is one whose gain is above 1 at the lower end of its interval
        (gemmcast/gain.py). A list without a default gives its cheapest.

        Args:
            gemm: the problem.
            configs: what to choose from; None: what the families make (gemmcast/candidates.py).
            objective: as `gemmcast.objective` writes it.
            device: as for `predict`.
            cache: state of the L2 cache, "cold" or "warm".
            families: without `configs`: FAMILY or FAMILY:KERNEL; None for all.
            default: what one gets without tuning; None: that of the library, or of the engine, if
                it is in the list.
            bold: take the cheapest, however sure that is.

        Raises:
            InputError: as `rank` does.
        """
        asked = self._asked(gemm, configs, objective, device, families, default)
        ranking = asked.ranking(cache, wanted=PICKED_FROM)
        return ranking.choice(asked.default, bold=bold)

    def rank(
        self,
        gemm: Gemm,
        configs: Sequence[KernelConfig] | None = None,
        objective: str = "time",
        device: Device | str | None = None,
        *,
        cache: str = "cold",
        top: int | None = None,
        families: Sequence[str] | None = None,
    ) -> list[RankedConfig]:
        """The `top` cheapest configurations, cheapest first; all when None.

        With the objective "time" the file's prefilter keeps PREFILTERED x `top` of more
        configurations (at least 64), and the whole model ranks those. What that can
        cost is on the model's card (`ranking`, method `prefilter`, `regret_8`). With
        "time-under-watts=W" those that draw more are left out.

        Args:
            gemm: the problem.
            configs: what to rank; None: what the families make (gemmcast/candidates.py).
            objective: as `gemmcast.objective` writes it.
            device: as for `predict`.
            cache: state of the L2 cache, "cold" or "warm".
            top: how many; None for all.
            families: without `configs`: FAMILY or FAMILY:KERNEL; None for all.

        Raises:
            InputError: no configuration or one that is impossible, an unknown objective, one that
                the model does not predict (for this device), names that the model cannot tell
                apart, or what `predict` raises.
        """
        if top is not None and top < 1:
            raise InputError("top", top, "must be 1 or more", "leave it out to rank all")
        asked = self._asked(gemm, configs, objective, device, families)
        ranking = asked.ranking(cache, wanted=top)
        return ranking.ranked(ranking.order[:top])

    def _asked(
        self,
        gemm: Gemm,
        configs: Sequence[KernelConfig] | None,
        objective: str,
        device: Device | str | None,
        families: Sequence[str] | None,
        default: KernelConfig | None = None,
    ) -> RankingTask:
        model = self._model
        on = _device(model, device)
        goal = _objective(model, objective)
        if configs is None:
            configs, usual = predictable(gemm, on, families)
            default = default or usual
        elif families is not None:
            rule = "are of no use beside configurations"
            raise InputError("families", families, rule, "give one of the two")
        if not configs:
            rule = "there is no configuration to rank"
            raise InputError("configs", configs, rule, "name at least one configuration")
        return RankingTask.of(model, gemm, configs, goal, on, default)

    def close(self) -> None:
        """Stop following the directory; predictions still work."""
        if self._follower:
            self._follower.close()

    def __reduce__(self) -> tuple[Callable[..., Predictor], tuple[Path]]:
        # Absolute, because the other process may have another working directory.
        opened = partial(type(self), refresh_s=self._refresh_s)
        return opened, (self.source.absolute(),)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _current_memo(self) -> Memo:
        """That of the model in use."""
        model = self._model
        memo = self._memo
        if memo is None or memo.model is not model:
            # Two threads may both make one: each uses its own, and the last one stays.
            memo = self._memo = Memo(model)
        return memo

    @property
    def _model(self) -> LoadedModel:
        """The model in use. Read it once per call: a follower may replace it at any time."""
        return self._follower.model if self._follower else self._file_model


def _load_file(path: Path) -> LoadedModel:
    try:
        data = path.read_bytes()
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        way_out = "name an .onnx file or a model directory"
        raise ModelFileError("model", str(path), rule, way_out) from None
    return LoadedModel(data, str(path), version=modeldir.sha256(data)[:12])


def _predicted(model: LoadedModel, asked: Asked) -> Prediction:
    gemm = asked.gemm
    on = _device(model, asked.device)
    config = asked.config or library_config(gemm.dtype, on.kind)
    ties.check_names((config,))
    feasible.check_family(config, on)
    row = query.encode(gemm, config, on, cache=asked.cache)
    prediction = Prediction.of(model.outputs, model.run_one(row), model.version)
    return _doubted(prediction, feasible.impossible(gemm, config, on.arch))


def _device(model: LoadedModel, device: Device | str | None) -> Device:
    """The device that a caller means, as the model's contract describes it."""
    return device_for(_chosen(model, device), model.contract)


def _chosen(model: LoadedModel, device: Device | str | None) -> Device:
    if isinstance(device, Device):
        return device
    if device is None and model.default_device:
        return model.default_device
    for candidate in model.named_devices:
        if device == candidate.name:
            return candidate
    for candidate in model.devices:
        if device == candidate.uuid:
            return candidate
    names = [candidate.name for candidate in model.named_devices]
    if device is None:
        rule = "must be given: the model has several"
        listed = ", ".join(sorted(set(names))) or "none"
        raise InputError("device", device, rule, f"name one of: {listed}; or give a Device")
    name = device_names.chosen("device", device, names, "or give a Device")
    return model.named_devices[names.index(name)]


def _objective(model: LoadedModel, text: str) -> Objective:
    objective = Objective.parse(text)
    for name in objective.needed:
        if name not in model.outputs:
            rule = f"this model was trained without power (it has no {name})"
            raise InputError("objective", text, rule, 'use "time"')
    return objective


def _doubted(prediction: Prediction, reason: str | None) -> Prediction:
    """The prediction of a configuration that is impossible for this reason, or None."""
    return prediction if reason is None else replace(prediction, extrapolating=True)
