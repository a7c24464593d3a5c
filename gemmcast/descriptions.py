"""One description of each device, from all rows that name it, in whatever order they come.

    of a descriptor:  own boards (median of the boards)  >  estimates of imported tables  >  unknown

A null never displaces a reading. Rows of one name that differ in slice (MIG), compute units or
power limit are different devices. The plain name stands for the whole device with the highest
limit; the others carry what tells them apart: `NVIDIA H100 80GB HBM3 (500 W)`. Rows that don't say
their limit belong to the plain name. Versions (driver, CUDA, library) don't part devices: the
description has those of most rows. docs/importing.md has these rules for users.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from statistics import median, median_low
from typing import Any, Final, NamedTuple

from gemmcast.device import Device

ESTIMATED: Final = "imported-"
"""A `device_uuid` starts with it where the descriptors of a row were estimated by an import."""


class Described(NamedTuple):
    """What one row says about its device; the names are those of the columns."""

    device: str
    device_kind: str
    device_uuid: str
    mig: bool
    compute_units: int
    power_limit_w: float | None
    idle_power_w: float | None
    arch: str | None
    clock_max_mhz: float | None
    memory_bytes: int | None
    l2_bytes: int | None
    dram_gbps: float | None
    l2_gbps: float | None
    empty_kernel_us: float | None
    empty_launch_us: float | None
    driver: str | None
    cuda: str | None
    library: str | None
    dtype: str
    peak_tflops: float | None

    @property
    def is_estimate(self) -> bool:
        """Whether an import estimated it."""
        return self.device_uuid.startswith(ESTIMATED)


COLUMNS: Final = Described._fields
_of_row = itemgetter(*COLUMNS)
_SAME_NAMES: Final = COLUMNS[COLUMNS.index("mig") : COLUMNS.index("dtype")]
"""Columns with the name of a Device's field."""
_SMALLEST: Final = ("empty_kernel_us", "empty_launch_us")
"""Of several estimates the smallest counts; of other descriptors the largest."""


class _Kind(NamedTuple):
    """What parts devices of one name."""

    mig: bool
    compute_units: int
    power_limit_w: float | None

    @property
    def rank(self) -> tuple[bool, int, float]:
        """The smallest has the plain name."""
        return self.mig, -self.compute_units, -(self.power_limit_w or 0.0)

    def label(self, plain: _Kind) -> str:
        """What tells it from the device of the plain name."""
        parts = []
        if self.mig and not plain.mig:
            parts.append("MIG")
        if self.compute_units != plain.compute_units:
            parts.append(f"{self.compute_units} units")
        if self.power_limit_w != plain.power_limit_w:
            limit_w = self.power_limit_w
            parts.append("limit unknown" if limit_w is None else f"{limit_w:g} W")
        return ", ".join(parts)


class Descriptions:
    """The devices of some rows.

    Args:
        counted: what rows say -> how many rows say it.
    """

    def __init__(self, counted: Mapping[Described, int]) -> None:
        by_name: dict[str, Counter[Described]] = defaultdict(Counter)
        for described, rows in counted.items():
            by_name[described.device][described] += rows
        self._names: dict[str, _Named] = {}
        for name in sorted(by_name):
            self._names[name] = _Named(name, by_name[name])

    @staticmethod
    def of_rows(rows: Iterable[Mapping[str, Any]]) -> Descriptions:
        """From rows with the columns of COLUMNS, or more."""
        return Descriptions(Counter(Described._make(_of_row(row)) for row in rows))

    @staticmethod
    def of_boards(boards: Iterable[Device]) -> Descriptions:
        """From descriptions of single boards, as a node has them."""
        return Descriptions(Counter(one for board in boards for one in _said_of(board)))

    @property
    def devices(self) -> list[Device]:
        """Every device once, by name; of one name the plain one first."""
        devices: list[Device] = []
        for named in self._names.values():
            devices += named.devices.values()
        return devices

    def of(self, name: str, power_limit_w: float | None) -> Device:
        """The device of an imported row: the whole one of that name and limit."""
        return self._names[name].whole(power_limit_w)


def device_of(rows: Sequence[Mapping[str, Any]]) -> Device:
    """The device that rows of one name describe; of several (see above) the plain one."""
    return Descriptions.of_rows(rows).devices[0]


def _said_of(board: Device) -> list[Described]:
    """What rows of a board would say of it, one for each dtype that it was measured at."""
    known = {name: getattr(board, name) for name in _SAME_NAMES}
    known |= {"device": board.name, "device_kind": board.kind, "device_uuid": board.uuid}
    without_peak = Described(**known, dtype="", peak_tflops=None)
    peaks = board.peak_tflops.items()
    of_dtypes = [without_peak._replace(dtype=dtype, peak_tflops=peak) for dtype, peak in peaks]
    return of_dtypes or [without_peak]


class _Named:
    """The devices of one name."""

    def __init__(self, name: str, counted: Counter[Described]) -> None:
        self._name = name
        self._counted = counted
        own = [described for described in counted if not described.is_estimate]
        estimates = [described for described in counted if described.is_estimate]
        kinds = {_own_kind(described, own) for described in own}
        if estimates and all(kind.mig for kind in kinds):
            # tables of others are of whole devices
            kinds.add(_estimated_kind(estimates))
        self._plain = min(kinds, key=lambda kind: kind.rank)
        self._own: dict[_Kind, list[Described]] = {kind: [] for kind in kinds}
        for described in own:
            self._own[_own_kind(described, own)].append(described)
        self._estimates: dict[_Kind, list[Described]] = defaultdict(list)
        for described in estimates:
            self._estimates[self._whole_kind(described.power_limit_w)].append(described)
        every_kind = {*self._own, *self._estimates}
        self.devices: dict[_Kind, Device] = {}
        for kind in sorted(every_kind, key=lambda kind: kind.rank):
            self.devices[kind] = self._device(kind)

    def whole(self, power_limit_w: float | None) -> Device:
        """The device with that limit, no slice; None: the plain one."""
        return self.devices[self._whole_kind(power_limit_w)]

    def _whole_kind(self, power_limit_w: float | None) -> _Kind:
        if not power_limit_w:
            return self._plain
        if self._plain.power_limit_w is None and not self._plain.mig:
            # nobody knows the limit better
            return self._plain
        return self._plain._replace(power_limit_w=power_limit_w)

    def _device(self, kind: _Kind) -> Device:
        sources = self._sources(kind)
        every = [described for source in sources for described in source]
        label = kind.label(self._plain)
        suffix = f" ({label})" if label else ""
        peaks: dict[str, float] = {}
        for dtype in sorted({described.dtype for described in every}):
            of_dtype = [[one for one in source if one.dtype == dtype] for source in sources]
            peak = _number(of_dtype, "peak_tflops")
            if peak:
                peaks[dtype] = float(peak)
        return Device(
            name=self._name + suffix,
            kind=every[0].device_kind,
            uuid=self._uuid(kind) + suffix,
            compute_units=kind.compute_units,
            arch=self._text(sources, "arch"),
            clock_max_mhz=_number(sources, "clock_max_mhz"),
            power_limit_w=kind.power_limit_w or _number(sources, "power_limit_w"),
            idle_power_w=_number(sources, "idle_power_w"),
            memory_bytes=int(_number(sources, "memory_bytes") or 0),
            l2_bytes=int(_number(sources, "l2_bytes") or 0),
            dram_gbps=_number(sources, "dram_gbps") or 0.0,
            l2_gbps=_number(sources, "l2_gbps"),
            empty_kernel_us=_number(sources, "empty_kernel_us"),
            empty_launch_us=_number(sources, "empty_launch_us"),
            peak_tflops=peaks,
            driver=self._text(sources, "driver"),
            cuda=self._text(sources, "cuda"),
            library=self._text(sources, "library"),
            mig=kind.mig,
        )

    def _sources(self, kind: _Kind) -> list[list[Described]]:
        """What may describe the device, the best first."""
        siblings: list[Described] = []
        for other, described in self._own.items():
            if other != kind and other[:2] == kind[:2]:
                siblings += described
        every_estimate = [one for several in self._estimates.values() for one in several]
        return [
            self._own.get(kind, []),
            siblings,
            self._estimates.get(kind, []),
            every_estimate,
        ]

    def _uuid(self, kind: _Kind) -> str:
        """Of the board with most rows; of an imported device made from its name."""
        rows: Counter[str] = Counter()
        for described in self._own.get(kind, []):
            rows[described.device_uuid] += self._counted[described]
        if not rows:
            return ESTIMATED + self._name
        return min(rows, key=lambda uuid: (-rows[uuid], uuid))

    def _text(self, sources: Sequence[Sequence[Described]], column: str) -> str | None:
        """That of most rows; of equally many the last in the alphabet."""
        for source in sources:
            rows: Counter[str] = Counter()
            for described in source:
                text = getattr(described, column)
                if text:
                    rows[text] += self._counted[described]
            if rows:
                return max(rows, key=lambda text: (rows[text], text))
        return None


def _own_kind(described: Described, own: Sequence[Described]) -> _Kind:
    """The kind of a board of ours; where its limit is unknown, the highest of boards alike."""
    limit_w = described.power_limit_w or None
    if limit_w is None:
        alike = [one.power_limit_w or 0.0 for one in own if _is_alike(one, described)]
        limit_w = max(alike) or None
    return _Kind(described.mig, described.compute_units, limit_w)


def _is_alike(one: Described, other: Described) -> bool:
    return (one.mig, one.compute_units) == (other.mig, other.compute_units)


def _estimated_kind(estimates: Sequence[Described]) -> _Kind:
    """The kind of a device that only tables of others describe."""
    return _Kind(
        all(one.mig for one in estimates),
        max(one.compute_units for one in estimates),
        max(one.power_limit_w or 0.0 for one in estimates) or None,
    )


def _number(sources: Sequence[Sequence[Described]], column: str) -> Any:
    """The descriptor by the first source that has it."""
    for source in sources:
        by_board: dict[str, set[float]] = defaultdict(set)
        for described in source:
            value = getattr(described, column)
            if value:
                by_board[described.device_uuid].add(value)
        if by_board:
            return _of_boards(by_board, column)
    return None


def _of_boards(by_board: Mapping[str, set[float]], column: str) -> float:
    """The median of the boards; of estimates, which are all of one board, the best."""
    readings = [value for values in by_board.values() for value in values]
    if any(uuid.startswith(ESTIMATED) for uuid in by_board):
        return min(readings) if column in _SMALLEST else max(readings)
    are_whole = all(isinstance(value, int) for value in readings)
    middle = median_low if are_whole else median
    return middle([middle(values) for values in by_board.values()])
