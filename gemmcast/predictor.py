"""Ask a model what a GEMM costs, in microseconds, in this process.

    predictor = Predictor("model.onnx")            # one file, or a node's model directory, which it then follows
    predictor.predict(Gemm(m=4096, n=4096, k=512, dtype="bf16"), KernelConfig(family="cublas"))

Needs NumPy and ONNX Runtime, nothing else. All mathematics is in the graph; this file fills one row, runs it and names the answers.
A predictor of a directory looks for a new version from a thread of its own, so that no prediction ever pays for a swap.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from gemmcast import modeldir, query
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError, ModelFileError
from gemmcast.gemm import Gemm
from gemmcast.prediction import Objective, Prediction

log = logging.getLogger(__name__)

METADATA_PREFIX: Final = "gemmcast."
METADATA: Final = frozenset({"contract", "fields", "outputs", "devices", "dtypes", "families", "created_at", "program_version"})
# every file has all of them; they come last in it, so that one cut short inside them still loads as a graph
SHORTLIST: Final = "gemmcast-shortlist"
# before them, where a file has it: a smaller graph in base64, question to about runtime_us, that says which of many configurations to ask about
SHORTLISTED: Final = 8
# configurations for each that is wanted
_knobs = attrgetter("tile_m", "tile_n", "tile_k", *query.KNOB_FIELDS)
_OBJECTIVE_OUTPUTS: Final = {"time": ["runtime_us"], "energy": ["energy_mj"], "edp": ["energy_mj", "sustained_runtime_us"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One candidate and what it is predicted to cost."""

    config: KernelConfig
    prediction: Prediction


class _Model:
    """One loaded version: its session, and buffers bound once for single questions."""

    def __init__(self, data: bytes, source: str, current: modeldir.Current, here: Sequence[Device] = ()) -> None:
        self.session = _session(data, source)
        self.metadata, self.outputs, trained_on = _description(self.session, source)
        self.rough = _shortlist(self.session, source)
        self.current, self.version = current, current.version
        self.devices = [*here, *(device for device in trained_on if device.uuid not in {known.uuid for known in here})]
        self.default = (
            self.devices[0] if len({device.name for device in self.devices}) == 1 else here[0] if len({d.name for d in here}) == 1 else None
        )
        self.row = np.zeros((1, len(query.FIELDS)), dtype=np.float32)
        self.answers = np.zeros((len(self.outputs), 1), dtype=np.float32)
        self.low, self.high = (np.zeros((1, len(self.outputs)), dtype=np.float32) for _ in query.INTERVALS)
        self.extrapolating = np.zeros(1, dtype=np.bool_)
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input(query.INPUT, ort.OrtValue.ortvalue_from_numpy(self.row))
        bound = dict(zip(self.outputs, self.answers, strict=True)) | dict(zip(query.INTERVALS, (self.low, self.high), strict=True))
        for name, buffer in (bound | {query.EXTRAPOLATING: self.extrapolating}).items():
            self.binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(buffer))

    def run(self, rows: query.Rows, names: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        return self.session.run(list(names), {query.INPUT: rows})  # type: ignore[no-any-return]


def _session(data: bytes, source: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it would print comes as an exception too
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # noqa: BLE001, ONNX Runtime raises bare RuntimeErrors and types of its own: all mean "not a model"
        first_line = str(error).strip().splitlines()[0]
        raise ModelFileError("model", source, f"ONNX Runtime can't load it ({first_line})", "it is damaged or cut short: fetch it again") from None


def _shortlist(session: ort.InferenceSession, source: str) -> ort.InferenceSession | None:
    text = session.get_modelmeta().custom_metadata_map.get(SHORTLIST)
    try:
        data = base64.b64decode(text, validate=True) if text else b""
    except ValueError:
        raise ModelFileError("model", source, f"its {SHORTLIST} is no base64", "it is damaged or cut short: fetch it again") from None
    return _session(data, source) if data else None


def _description(session: ort.InferenceSession, source: str) -> tuple[dict[str, str], list[str], list[Device]]:
    """The file's metadata, the names of its values, and the devices that it was trained on."""
    try:
        metadata = _metadata(session, source)
        outputs, answers = json.loads(metadata["outputs"]), [output.name for output in session.get_outputs()]
        if [*outputs, *query.INTERVALS, query.EXTRAPOLATING] != answers:
            raise ModelFileError("model", source, "its metadata name other outputs than its graph has", "it is damaged or cut short: fetch it again")
        return metadata, outputs, [Device.from_json(json.dumps(value)) for value in json.loads(metadata["devices"])]
    except ModelFileError:
        raise
    except (ValueError, TypeError) as error:
        raise ModelFileError("model", source, f"its metadata can't be read ({error})", "it is damaged or cut short: fetch it again") from None


def _metadata(session: ort.InferenceSession, source: str) -> dict[str, str]:
    found = session.get_modelmeta().custom_metadata_map
    metadata = {key.removeprefix(METADATA_PREFIX): value for key, value in found.items() if key.startswith(METADATA_PREFIX)}
    if "contract" not in metadata:
        raise ModelFileError("model", source, "an ONNX file of another program (no gemmcast metadata)", "export one: python -m registry export")
    known = metadata["contract"] == str(query.CONTRACT)
    if known and (missing := METADATA - set(metadata)):
        raise ModelFileError("model", source, f"has no metadata {', '.join(sorted(missing))}", "it is damaged or cut short: fetch it again")
    if not known or json.loads(metadata["fields"]) != list(query.FIELDS):
        raise ModelFileError(
            "model", source, f"speaks contract {metadata['contract']}, this gemmcast {query.CONTRACT}", "install the gemmcast that exported it"
        )
    return metadata


class Predictor:
    """Predicts the cost of GEMMs with one model.

    Args:
        source: an .onnx file, or a node's model directory.
        refresh_s: how often a directory is looked at for a new version.

    Raises:
        ModelFileError: the file is damaged, foreign, or of another contract.
    """

    def __init__(self, source: str | Path, *, refresh_s: float = 0.2) -> None:
        self.source = Path(source)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        if self.source.is_dir():
            seen = self._stamp()  # before it is read: a push in between is then found by the first look
            self._model = self._load_current(modeldir.read_current(self.source))
            self._watcher = threading.Thread(target=self._watch, args=(refresh_s, seen), name="gemmcast-predictor", daemon=True)
            self._watcher.start()
        else:
            self._model = self._load_file()

    # what it is

    @property
    def version(self) -> str:
        return self._model.version

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self._model.outputs)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's own description: contract, fields, when and from what it was trained."""
        return self._model.metadata

    @property
    def devices(self) -> list[Device]:
        """The devices it knows by name: this node's, then those that it was trained on."""
        return self._model.devices

    # what it answers

    def predict(self, gemm: Gemm, config: KernelConfig, device: Device | str | None = None, *, cache: str = "cold") -> Prediction:
        """The cost of one GEMM with one configuration.

        Args:
            device: a Device, the name of one that the model knows, or None where it knows only one.
            cache: "cold" or "warm".
        """
        model, values, low, high, outside = self._one(query.encode(gemm, config, self._device(device), cache=cache))
        return _prediction(model, values, low, high, outside)

    def predict_encoded(self, row: Sequence[float] | query.Rows) -> dict[str, float]:
        """One raw question[len(FIELDS)] to its answers by output name, without intervals: the shortest way through the graph."""
        model, values, *_ = self._one(row)
        return dict(zip(model.outputs, values, strict=True))

    def predict_batch(
        self, queries: Sequence[tuple[Gemm, KernelConfig]], device: Device | str | None = None, *, cache: str = "cold"
    ) -> list[Prediction]:
        """The costs of many, in their order."""
        if not queries:
            return []
        on = self._device(device)
        model, rows = self._model, np.array([query.encode(g, c, on, cache=cache) for g, c in queries], dtype=np.float32)
        return _predictions(model, _everything(model, rows))

    def predict_rows(self, rows: query.Rows) -> dict[str, npt.NDArray[Any]]:
        """Raw questions[n_rows, len(FIELDS)] to answers[n_rows] by output name, low and high [n_rows, n_outputs], and extrapolating[n_rows]."""
        return _everything(self._model, rows)

    def pick(
        self, gemm: Gemm, configs: Sequence[KernelConfig], objective: Objective = "time", device: Device | str | None = None, *, cache: str = "cold"
    ) -> Choice:
        """The configuration that is predicted to cost least, as `rank` with `top=1` finds it."""
        return self.rank(gemm, configs, objective, device, cache=cache, top=1)[0]

    def rank(
        self,
        gemm: Gemm,
        configs: Sequence[KernelConfig],
        objective: Objective = "time",
        device: Device | str | None = None,
        *,
        cache: str = "cold",
        top: int | None = None,
    ) -> list[Choice]:
        """The `top` cheapest configurations (all when None), cheapest first.

        Of many that are to be ranked by time, the model is asked about SHORTLISTED x `top` alone, those that come first in its file's smaller graph;
        what that costs is in the model's card (`ranking`: shortlist, regret_8).
        """
        if objective not in get_args(Objective):
            raise InputError("objective", objective, "unknown objective", f"use one of {', '.join(get_args(Objective))}")
        if not configs:
            raise InputError("configs", configs, "nothing to pick from", "name at least one configuration")
        if top is not None and top < 1:
            raise InputError("top", top, "must be 1 or more", "leave it out to rank all")
        model = self._model
        needed = _OBJECTIVE_OUTPUTS[objective]
        if missing := [name for name in needed if name not in model.outputs]:
            raise InputError("objective", objective, f"this model was never shown power (no {missing[0]})", 'use "time"')
        rows = _candidates(gemm, configs, self._device(device), cache)
        kept = np.arange(len(rows))
        if objective == "time" and top is not None and model.rough is not None and len(rows) > SHORTLISTED * top:
            (rough_us,) = model.rough.run(None, {query.INPUT: rows})
            kept = np.sort(np.argsort(rough_us, kind="stable")[: SHORTLISTED * top])
        found = _everything(model, rows[kept])
        best = np.argsort(np.prod([found[name] for name in needed], axis=0), kind="stable")[:top]
        predictions = _predictions(model, {name: values[best] for name, values in found.items()})
        return [Choice(config=configs[i], prediction=p) for i, p in zip(kept[best], predictions, strict=True)]

    # life

    def close(self) -> None:
        """Stop following the directory; predictions still work."""
        self._stop.set()
        if self._watcher:
            self._watcher.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _one(self, row: Any) -> tuple[_Model, list[float], list[float], list[float], bool]:
        """Through the buffers that were bound once; one caller at a time."""
        model = self._model
        with self._lock:
            model.row[0] = row
            model.session.run_with_iobinding(model.binding)
            return model, model.answers[:, 0].tolist(), model.low[0].tolist(), model.high[0].tolist(), model.extrapolating.item()

    def _device(self, device: Device | str | None) -> Device:
        if isinstance(device, Device):
            return device
        model = self._model
        found = model.default if device is None else next((known for known in model.devices if device in (known.name, known.uuid)), None)
        if found is None:
            names = ", ".join(sorted({known.name for known in model.devices})) or "none"
            raise InputError("device", device, "the model must know which device you mean", f"name one of: {names}; or give a Device")
        return found

    def _load_file(self) -> _Model:
        try:
            data = self.source.read_bytes()
        except OSError as error:
            raise ModelFileError("model", str(self.source), f"can't be read ({error.strerror})", "name an .onnx file or a model directory") from None
        digest = modeldir.sha256(data)
        return _Model(data, str(self.source), modeldir.Current(file=self.source.name, sha256=digest, version=digest[:12]))

    def _load_current(self, current: modeldir.Current) -> _Model:
        for attempt in range(3):
            try:
                return _Model(modeldir.read_model(self.source, current), str(self.source / current.file), current, modeldir.devices(self.source))
            except FileNotFoundError:  # displaced by two newer ones since we read `current`
                if attempt == 2:
                    raise ModelFileError("model", str(self.source / current.file), "is missing", "push a model again") from None
                current = modeldir.read_current(self.source)
        raise AssertionError("unreachable")

    def _watch(self, refresh_s: float, seen: tuple[int, int] | None) -> None:
        while not self._stop.wait(refresh_s):
            stamp = self._stamp()
            if stamp == seen:
                continue
            try:
                current = modeldir.read_current(self.source)
                if current != self._model.current:
                    self._model = self._load_current(current)
                    log.info("model %s from %s", current.version, self.source)
                seen = stamp
            except InputError as error:  # keep answering with the model in hand until the next push
                log.warning("keeping model %s: %s", self._model.version, error)
                seen = stamp
            except OSError as error:  # too many open files, a stale handle: it may pass, so look again
                log.warning("keeping model %s: %s", self._model.version, error)

    def _stamp(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            stat = (self.source / modeldir.CURRENT).stat()
            return stat.st_mtime_ns, stat.st_ino
        return None


def _candidates(gemm: Gemm, configs: Sequence[KernelConfig], device: Device, cache: str) -> query.Rows:
    """What `question.ask` says of each, computed side by side."""
    at = query.AT
    rows = np.empty((len(configs), len(query.FIELDS)), dtype=np.float32)
    rows[:] = query.encode(gemm, configs[0], device, cache=cache)
    knobs = np.fromiter(chain.from_iterable(map(_knobs, configs)), dtype=np.float32).reshape(len(configs), -1)
    rows[:, at["tile_m"] : at["tile_k"] + 1] = np.where(knobs[:, :3] > 0, knobs[:, :3], (gemm.m, gemm.n, gemm.k))
    rows[:, at["family"]] = [query.FAMILY_CODES[config.family] for config in configs]
    rows[:, at["warp_m"] : at["warm"]] = knobs[:, 3:]
    rows[:, at["split_k"]] = np.maximum(rows[:, at["split_k"]], 1)
    rows[:, at["algorithm"]] = [query.algorithm(config.family, config.kernel, config.algo_id) for config in configs]
    if device.kind == "cpu":
        threads = rows[:, at["threads"]]
        active_units = np.where(threads > 0, np.minimum(threads, device.compute_units), device.compute_units)
        rows[:, at["active_units"]], rows[:, at["peak_tflops"]] = active_units, device.peak_tflops[gemm.dtype] * (active_units / device.compute_units)
    return rows


def _everything(model: _Model, rows: query.Rows) -> dict[str, npt.NDArray[Any]]:
    names = [*model.outputs, *query.INTERVALS, query.EXTRAPOLATING]
    return dict(zip(names, model.run(rows, names), strict=True))


def _predictions(model: _Model, found: Mapping[str, npt.NDArray[Any]]) -> list[Prediction]:
    values = np.column_stack([found[name] for name in model.outputs])
    columns = (part.tolist() for part in (values, *(found[name] for name in query.INTERVALS), found[query.EXTRAPOLATING]))
    return [_prediction(model, *answer) for answer in zip(*columns, strict=True)]


def _prediction(model: _Model, values: Sequence[float], low: Sequence[float], high: Sequence[float], outside: bool) -> Prediction:
    names = model.outputs
    between = {"low": dict(zip(names, low, strict=True)), "high": dict(zip(names, high, strict=True))}
    return Prediction(**dict(zip(names, values, strict=True)), **between, extrapolating=outside, model_version=model.version)  # type: ignore[arg-type]
