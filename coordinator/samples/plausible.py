"""What a row may claim of its board: nothing that the board cannot do.

    computing   2 m n k / runtime                <  1.3 x the datasheet's throughput at the dtype
    memory      (operands - L2) / runtime        <  1.3 x its bandwidth
    power       power                            <  1.3 x the power limit
    energy      power x sustained runtime, within 5 %

A value beyond that is mostly one in another unit: milliseconds where microseconds belong. Bounds
come from the datasheet, of an unknown board from the description that the user gave. Measured rows
of H100 and H200 reach 0.84, 0.87 and 1.02 of these limits. Does not know files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from coordinator.samples.datasheets import find_datasheet
from gemmcast.config import FAMILIES
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.feasible import check_knobs
from gemmcast.gemm import Gemm
from gemmcast.rows import ReadRow, config_of, gemm_of

BEYOND: Final = 1.3
"""A value is refused from this multiple of a board's limit on."""
SHORTEST_US: Final = 0.5
"""No kernel of a GPU is that short; an empty one takes a microsecond or two."""
ENERGY_TOLERANCE: Final = 0.05
"""Between energy and power x time of one window."""
BURST_TOLERANCE: Final = 2.0
"""The same as a factor, where only the runtime of the burst is known: a cap may double it."""
UNIT: Final = "is the unit right?"
TIMES: Final = ("runtime_us", "sustained_runtime_us")
MIB: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a board can do at most."""

    source: str
    """Where the numbers come from, for messages."""
    kind: str
    """`cuda` or `cpu`."""
    peak_tflops: Mapping[str, float]
    dram_gbps: float
    l2_bytes: int
    power_w: float | None

    def peak(self, dtype: str) -> float:
        """Of a dtype that the board does not multiply itself: that of its fastest."""
        fastest = max(self.peak_tflops.values(), default=0.0)
        return self.peak_tflops.get(dtype, fastest)


class ImplausibleError(InputError):
    """A value that the board cannot reach: it is in another unit, or of another board."""


def limits_of(name: str, given: Device | None) -> Limits | None:
    """The limits of a device by its datasheet, or by its description; None: neither is known.

    A CPU's are its kind alone: it has no datasheet here, and its measured peak is too low where
    other processes ran beside.
    """
    sheet = find_datasheet(name)
    if sheet:
        return Limits(
            source="its datasheet",
            kind="cuda",
            peak_tflops=sheet.peak_tflops,
            dram_gbps=sheet.dram_gbps,
            l2_bytes=sheet.l2_mib * MIB,
            power_w=sheet.power_w,
        )
    if given is None:
        return None
    is_gpu = given.kind == "cuda"
    return Limits(
        source="its description",
        kind=given.kind,
        peak_tflops=given.peak_tflops if is_gpu else {},
        dram_gbps=given.dram_gbps if is_gpu else 0.0,
        l2_bytes=given.l2_bytes,
        power_w=given.power_limit_w,
    )


def check_plausible(row: ReadRow, limits: Limits | None) -> None:
    """Refuse a checked row that contradicts itself or its board.

    Args:
        row: complete, with the columns of the device.
        limits: of the row's device; None where nothing is known of it.

    Raises:
        ImplausibleError: a value in another unit, most likely.
        InputError: a family that does not run on such a device, or knobs that nothing can have.
    """
    _check_kind(row, limits)
    if row["status"] == "ok":
        # Others may say that their knobs were refused
        check_knobs(gemm_of(row), config_of(row), row["arch"])
    _check_energy(row)
    if limits:
        for error in _beyond(row, limits):
            raise error
    if row["device_kind"] == "cuda":
        _check_shortest(row)


def _check_kind(row: ReadRow, limits: Limits | None) -> None:
    kind = row["device_kind"]
    if not kind:
        # too little is known of the device: the row is refused for that
        return
    if limits and kind != limits.kind:
        rule = f"{row['device']} is of kind {limits.kind}"
        raise InputError("device_kind", kind, rule, "correct the table")
    runs_on = FAMILIES[row["family"]].device_kind
    if kind != runs_on:
        rule = f"this family runs on {runs_on}, {row['device']} is of kind {kind}"
        raise InputError("family", row["family"], rule, "correct the family or the device")


def _check_energy(row: ReadRow) -> None:
    energy_mj, power_w = row["energy_mj"], row["power_w"]
    if not energy_mj or not power_w:
        return
    sustained_us = row["sustained_runtime_us"]
    time_us = sustained_us or row["runtime_us"]
    if not time_us:
        return
    factor = 1 + ENERGY_TOLERANCE if sustained_us else BURST_TOLERANCE
    ratio = energy_mj / (power_w * time_us * 1e-3)
    if not 1 / factor <= ratio <= factor:
        expected = f"power x time is {power_w * time_us * 1e-3:.4g} mJ"
        raise ImplausibleError("energy_mj", energy_mj, expected, UNIT)


def _check_shortest(row: ReadRow) -> None:
    for name in TIMES:
        time_us = row[name]
        if time_us and time_us < SHORTEST_US:
            rule = f"no kernel of a GPU takes less than {SHORTEST_US} us"
            raise ImplausibleError(name, time_us, rule, UNIT)


def _beyond(row: ReadRow, limits: Limits) -> Iterator[InputError]:
    """The limits that the row is beyond."""
    gemm = gemm_of(row)
    peak = limits.peak(gemm.dtype)
    for name in TIMES:
        if row[name]:
            yield from _too_fast(name, row[name], gemm, limits)
    readings = (
        ("peak_tflops", peak, "TFLOP/s"),
        ("dram_gbps", limits.dram_gbps, "GB/s"),
        ("power_limit_w", limits.power_w, "W"),
        ("power_w", row["power_limit_w"] or limits.power_w, "W"),
    )
    for name, highest, unit in readings:
        value = row[name]
        if value and highest and value >= BEYOND * highest:
            source = "its power limit" if name == "power_w" else limits.source
            yield ImplausibleError(name, value, f"{source} says {highest:.4g} {unit}", UNIT)


def _too_fast(name: str, time_us: float, gemm: Gemm, limits: Limits) -> Iterator[InputError]:
    peak = limits.peak(gemm.dtype)
    tflops = gemm.flops / (time_us * 1e6)
    if peak and tflops >= BEYOND * peak:
        rule = f"{gemm} at {tflops:,.0f} TFLOP/s, {limits.source} says {peak:,.0f}"
        yield ImplausibleError(name, time_us, rule, UNIT)
    gbps = (gemm.operand_bytes - limits.l2_bytes) / (time_us * 1e3)
    if limits.dram_gbps and gbps >= BEYOND * limits.dram_gbps:
        rule = f"{gemm} at {gbps:,.0f} GB/s, {limits.source} says {limits.dram_gbps:,.0f}"
        yield ImplausibleError(name, time_us, rule, UNIT)
