"""One model file, loaded: its ONNX Runtime session, its metadata, and its prefilter.

A file describes itself in its metadata (docs/onnx.md): the contract, the fields of a query, the
outputs, and the devices of the training rows. A file of contract 2 or 3 is served; its older names
are read through gemmcast/renames.py. A forked process opens the bytes again at its first query.
A name stands for all boards of this node that have it: for the median of their descriptors.
Does not know where a file comes from, nor what a Gemm is.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from gemmcast import forks, query
from gemmcast.descriptions import Descriptions
from gemmcast.device import Device
from gemmcast.errors import ModelFileError
from gemmcast.model_graph import check_graph
from gemmcast.renames import METADATA_KEYS, QUERY_FIELDS, renamed

METADATA_PREFIX: Final = "gemmcast."
METADATA: Final = frozenset(
    {
        "contract",
        "fields",
        "outputs",
        "devices",
        "dtypes",
        "families",
        "created_at",
        "program_version",
    }
)
"""Keys of every file. They are its last bytes, because a file cut short there still loads."""
PREFILTER_KEY: Final = "gemmcast-prefilter"
"""Metadata key of a smaller graph in base64, question to about runtime_us; optional."""
_FETCH_AGAIN: Final = "it is damaged or cut short: fetch it again"

Answers = dict[str, npt.NDArray[Any]]
"""Output name -> [n_rows]; low and high -> [n_rows, n_outputs]."""


class Answer(NamedTuple):
    """The answers to one query; the lists are in the order of the model's outputs."""

    values: list[float]
    low: list[float]
    high: list[float]
    extrapolating: bool


class LoadedModel:
    """One model version, ready to answer. Any number of threads may share it.

    Args:
        data: the bytes of the file.
        source: the name of the file; for messages.
        version: the name that its predictions carry.
        local_devices: the devices of this node. They come before those of the training rows.

    Raises:
        ModelFileError: the file is damaged, foreign, or of a contract that is not served.
    """

    def __init__(
        self, data: bytes, source: str, version: str, local_devices: Sequence[Device] = ()
    ) -> None:
        self.version = version
        self._data = data
        self._source = source
        session = _session(data, source)
        everything = _metadata(session, source)
        self.metadata = _own_metadata(everything, source)
        self.outputs = _outputs(session, self.metadata, source)
        self.contract = int(self.metadata["contract"])
        trained_on = _devices(self.metadata, source)
        self.devices = _without_twins([*local_devices, *trained_on])
        here = Descriptions.of_boards(local_devices).devices
        self.named_devices = [*here, *trained_on]
        """What a name stands for: the first of that name."""
        self.default_device = _only(here) or _only(self.named_devices)
        self._opening = threading.Lock()
        self._sessions: _Sessions | None = _open(session, everything, self.outputs, source)
        forks.track(self)

    def run(self, rows: query.Rows) -> Answers:
        """Every output for rows[n_rows, len(FIELDS)]."""
        sessions = self._sessions or self._reopened()
        names = [*self.outputs, *query.INTERVALS, query.EXTRAPOLATING]
        arrays = sessions.whole.run(names, {query.INPUT: rows})
        return dict(zip(names, arrays, strict=True))

    def run_one(self, row: Sequence[query.Number] | query.Rows) -> Answer:
        """The answers to one row[len(FIELDS)]; faster than `run` with one row."""
        sessions = self._sessions or self._reopened()
        return sessions.single.run(row)

    def estimate_us(self, rows: query.Rows) -> npt.NDArray[np.float32] | None:
        """The prefilter's runtimes[n_rows], or None where the file has no prefilter."""
        sessions = self._sessions or self._reopened()
        if sessions.prefilter is None:
            return None
        (runtimes_us,) = sessions.prefilter.run(None, {query.INPUT: rows})
        return runtimes_us  # type: ignore[no-any-return]

    def after_fork(self) -> None:
        """The parent's sessions may be locked for ever: one of its threads may have been in them.

        They are kept, because to end a locked session may wait for ever, too.
        """
        if self._sessions is not None:
            _of_the_parent.append(self._sessions)
        self._sessions = None
        self._opening = threading.Lock()

    def _reopened(self) -> _Sessions:
        with self._opening:
            if self._sessions is None:
                session = _session(self._data, self._source)
                everything = _metadata(session, self._source)
                self._sessions = _open(session, everything, self.outputs, self._source)
            return self._sessions


class _SingleQuery:
    """Buffers that are bound once, so that one query costs no allocation. One caller at a time."""

    def __init__(self, session: ort.InferenceSession, outputs: Sequence[str]) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._row = np.zeros((1, len(query.FIELDS)), dtype=np.float32)
        self._values = np.zeros((len(outputs), 1), dtype=np.float32)
        self._low = np.zeros((1, len(outputs)), dtype=np.float32)
        self._high = np.zeros((1, len(outputs)), dtype=np.float32)
        self._extrapolating = np.zeros(1, dtype=np.bool_)
        buffers = {
            **dict(zip(outputs, self._values, strict=True)),
            **dict(zip(query.INTERVALS, (self._low, self._high), strict=True)),
            query.EXTRAPOLATING: self._extrapolating,
        }
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(query.INPUT, ort.OrtValue.ortvalue_from_numpy(self._row))
        for name, buffer in buffers.items():
            self._binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(buffer))

    def run(self, row: Sequence[query.Number] | query.Rows) -> Answer:
        """One row through the bound buffers."""
        with self._lock:
            self._row[0] = row
            self._session.run_with_iobinding(self._binding)
            return Answer(
                self._values[:, 0].tolist(),
                self._low[0].tolist(),
                self._high[0].tolist(),
                self._extrapolating.item(),
            )


class _Sessions(NamedTuple):
    """What ONNX Runtime has opened of one file."""

    whole: ort.InferenceSession
    single: _SingleQuery
    prefilter: ort.InferenceSession | None


_of_the_parent: list[_Sessions] = []
"""Sessions that were open when this process was forked."""


def _open(
    session: ort.InferenceSession, everything: dict[str, str], outputs: Sequence[str], source: str
) -> _Sessions:
    single = _SingleQuery(session, outputs)
    return _Sessions(session, single, _prefilter(everything, source))


def _session(data: bytes, source: str) -> ort.InferenceSession:
    check_graph(data, source)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Arrays of one query are small. To find out whose memory is free again takes longer.
    options.enable_mem_reuse = False
    # 4 is "fatal only": whatever it would log is raised as an exception too.
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    # ONNX Runtime raises bare RuntimeErrors and types of its own. All of them mean "no model".
    try:
        return ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
    except Exception as error:  # noqa: BLE001
        first_line = str(error).strip().splitlines()[0]
        rule = f"ONNX Runtime can't load it ({first_line})"
        raise ModelFileError("model", source, rule, _FETCH_AGAIN) from None


def _metadata(session: ort.InferenceSession, source: str) -> dict[str, str]:
    """Every metadata key of the file, also those of other programs."""
    try:
        everything: dict[str, str] = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise _unreadable(source, error) from None
    return everything


def _prefilter(everything: dict[str, str], source: str) -> ort.InferenceSession | None:
    text = renamed(everything, METADATA_KEYS).get(PREFILTER_KEY)
    if not text:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        rule = f"its {PREFILTER_KEY} is not base64"
        raise ModelFileError("model", source, rule, _FETCH_AGAIN) from None
    return _session(data, source)


def _own_metadata(everything: dict[str, str], source: str) -> dict[str, str]:
    """The keys that start with METADATA_PREFIX, without the prefix."""
    metadata = {}
    for key, text in everything.items():
        if key.startswith(METADATA_PREFIX):
            metadata[key.removeprefix(METADATA_PREFIX)] = text
    if "contract" not in metadata:
        rule = "an ONNX file of another program (no gemmcast metadata)"
        raise ModelFileError("model", source, rule, "export one: python -m registry export")
    _check_contract(metadata, source)
    return metadata


def _check_contract(metadata: dict[str, str], source: str) -> None:
    contract = metadata["contract"]
    served = ", ".join(query.READ_CONTRACTS)
    refusal = ModelFileError(
        "model",
        source,
        f"is of contract {contract}, this gemmcast serves {served}",
        "install the gemmcast that exported it",
    )
    if contract not in query.READ_CONTRACTS:
        raise refusal
    missing = METADATA - set(metadata)
    if missing:
        rule = f"has no metadata {', '.join(sorted(missing))}"
        raise ModelFileError("model", source, rule, _FETCH_AGAIN)
    older = QUERY_FIELDS.get(contract, {})
    fields = map(str, _json_list(metadata, "fields", source))
    if [older.get(name, name) for name in fields] != list(query.FIELDS):
        raise refusal


def _outputs(session: ort.InferenceSession, metadata: dict[str, str], source: str) -> list[str]:
    outputs = _json_list(metadata, "outputs", source)
    in_graph = [output.name for output in session.get_outputs()]
    if [*outputs, *query.INTERVALS, query.EXTRAPOLATING] != in_graph:
        rule = "its metadata name other outputs than its graph has"
        raise ModelFileError("model", source, rule, _FETCH_AGAIN)
    return outputs


def _devices(metadata: dict[str, str], source: str) -> list[Device]:
    """The devices of the training rows."""
    descriptions = _json_list(metadata, "devices", source)
    try:
        return [Device.from_json(json.dumps(description)) for description in descriptions]
    except ValueError as error:
        raise _unreadable(source, error) from None


def _json_list(metadata: dict[str, str], key: str, source: str) -> list[Any]:
    try:
        values = json.loads(metadata[key])
    except (ValueError, RecursionError) as error:
        raise _unreadable(source, error) from None
    if not isinstance(values, list):
        raise _unreadable(source, TypeError(f"{key} is not a list"))
    return values


def _unreadable(source: str, error: Exception) -> ModelFileError:
    return ModelFileError("model", source, f"its metadata can't be read ({error})", _FETCH_AGAIN)


def _without_twins(devices: Sequence[Device]) -> list[Device]:
    """The first device of each UUID."""
    first_by_uuid: dict[str, Device] = {}
    for device in devices:
        first_by_uuid.setdefault(device.uuid, device)
    return list(first_by_uuid.values())


def _only(devices: Sequence[Device]) -> Device | None:
    """The first device, if all have one name."""
    names = {device.name for device in devices}
    return devices[0] if len(names) == 1 else None
