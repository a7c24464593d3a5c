"""Rows of a measured table, completed with the descriptors of their device.

Every device of a table is described by itself: by the description that the user gave, by what the
rows say, or by an estimate. Rows that claim what their device cannot do, and rows of a device of
which too little is known, are refused. Does not know files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from coordinator.samples.datasheets import WAY_OUT, find_datasheet
from coordinator.samples.estimate import (
    estimate,
    ok_timings,
    peak_tflops,
    peaks_text,
    within_reach,
)
from coordinator.samples.formats.checked_rows import ParsedRows
from coordinator.samples.plausible import check_plausible, limits_of
from gemmcast.descriptions import ESTIMATED
from gemmcast.device import Device
from gemmcast.device_names import fitting
from gemmcast.errors import InputError
from gemmcast.rows import Row, config_of, gemm_of, known_columns
from gemmcast.sample import Sample

NEEDED_OF_DEVICE: Final = ("device_kind", "compute_units", "peak_tflops", "dram_gbps")
"""Without these columns a model learns nothing from a row."""


def with_devices(
    parsed: ParsedRows, given: Device | None, known: Sequence[Device]
) -> tuple[list[Row], list[str]]:
    """The rows with all descriptors, in their order; and notes. Adds refusals to `parsed`.

    What a row says about its device itself is kept.

    Args:
        given: what all rows were measured on, if the user says so.
        known: devices that samples describe already, for the rows that name them.
    """
    groups: dict[str | None, dict[int, Row]] = defaultdict(dict)
    for number, row in parsed.rows.items():
        groups[row.get("device", given.name if given else None)][number] = row
    if given and len(groups) > 1:
        rule = f"the table has rows of {', '.join(map(str, groups))}"
        raise InputError("--device", given.name, rule, "split it, one file for each device")
    completed: dict[int, Row] = {}
    notes: list[str] = []
    for name, rows in groups.items():
        described = _of_samples(name, known)
        plausible = _plausible(name, rows, given or described, parsed)
        try:
            device, note = _device(name, list(plausible.values()), given, described)
        except _UnknownDevice as error:
            parsed.refused.update(dict.fromkeys(plausible, error))
            continue
        if note:
            notes.append(note)
        for number, row in plausible.items():
            completed[number] = _completed(row, device)
    return [completed[number] for number in parsed.rows if number in completed], notes


def _of_samples(name: str | None, known: Sequence[Device]) -> Device | None:
    """The known device that a table means by a name, or by a short name of a well-known product.

    It keeps the table's name, because ids of cells are made of it.
    """
    by_name = {device.name: device for device in known}
    fit = fitting(name or "", by_name)
    if name is None or len(fit) != 1:
        return None
    datasheet = find_datasheet(name)
    is_same = datasheet is not None and datasheet == find_datasheet(fit[0])
    return replace(by_name[fit[0]], name=name) if is_same or fit[0] == name else None


def _plausible(
    name: str | None, rows: Mapping[int, Row], given: Device | None, parsed: ParsedRows
) -> dict[int, Row]:
    """The rows that claim nothing which their device cannot do; the others are refused."""
    limits = limits_of(name or "", given)
    kind = {"device_kind": limits.kind} if limits else {}
    kept: dict[int, Row] = {}
    for number, row in rows.items():
        try:
            check_plausible(Sample(**{**kind, **row}).row(), limits)
            kept[number] = row
        except InputError as error:
            parsed.refused[number] = error
    return kept


class _UnknownDevice(InputError):
    """A device of which too little is known: its rows are of no use."""


def _device(
    name: str | None, rows: Sequence[Row], given: Device | None, known: Device | None
) -> tuple[Device | None, str | None]:
    """What fills the gaps of these rows, and a note about it; None where there are no gaps."""
    if given:
        return _with_missing_peaks(given, name or given.name, rows)
    if name is None:
        rule = "the table does not say what it was measured on"
        column = "add a column device (--set device=NAME where the format has none)"
        raise _UnknownDevice("device", None, rule, f"{column}, or {WAY_OUT}")
    if all(map(_describes_itself, rows)):
        return None, None
    if known:
        as_estimate = replace(known, uuid=ESTIMATED + name)
        device, note = _with_missing_peaks(as_estimate, name, rows)
        return device, note or f"{name}: described as by the samples that are there"
    return _estimated(name, rows)


def _describes_itself(row: Row) -> bool:
    """Whether the row says all that is needed of its device."""
    return all(row.get(column) for column in NEEDED_OF_DEVICE)


def _estimated(name: str, rows: Sequence[Row]) -> tuple[Device, str]:
    try:
        return estimate(name, rows)
    except InputError as error:
        raise _UnknownDevice(error.field, error.value, error.rule, error.way_out) from None


def _with_missing_peaks(given: Device, name: str, rows: Sequence[Row]) -> tuple[Device, str | None]:
    """The given device; a peak that was never measured on it is taken from the rows."""
    named, described = find_datasheet(name), find_datasheet(given.name)
    if named and described and named != described:
        rule = f"the table was measured on {name}"
        raise InputError("--device", given.name, rule, "give that device's description")
    missing: dict[str, float] = {}
    for dtype, peak in peak_tflops(ok_timings(rows)).items():
        if not given.peak_tflops.get(dtype):
            missing[dtype] = within_reach(dtype, peak, described) if described else peak
    if not missing:
        return given, None
    note = f"{given.name}: peak taken from the rows: {peaks_text(missing)}"
    return replace(given, peak_tflops={**given.peak_tflops, **missing}), note


def _completed(row: Row, device: Device | None) -> Row:
    if device is None:
        # without a UUID it is no board of ours, whatever it says of itself
        uuid = row.get("device_uuid") or ESTIMATED + row["device"]
        return Sample(**{**row, "device_uuid": uuid}).row()
    descriptors = known_columns(gemm_of(row), config_of(row), device)
    completed = {**descriptors, **row, "device": device.name}
    if device.uuid.startswith(ESTIMATED) and not _describes_itself(row):
        # marks the descriptors as an estimate, which a measured board replaces
        completed["device_uuid"] = device.uuid
    return Sample(**completed).row()
