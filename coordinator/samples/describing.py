"""One description of each device in a table of samples, whatever order its rows came in.

The import of one table estimates descriptors from what it knows then; a later table, or a board of
our own, knows better. So the descriptors of imported rows are settled when the store is read, from
all its rows (gemmcast/descriptions.py). Rows that a board of ours was measured for stay as they
are: each has the descriptors of its own board.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from coordinator.samples.datasheets import find_datasheet
from coordinator.samples.estimate import within_reach
from gemmcast.arrow import SCHEMA
from gemmcast.descriptions import COLUMNS, ESTIMATED, Described, Descriptions
from gemmcast.device import Device
from gemmcast.sample import REQUIRED

SETTLED: Final = (
    "compute_units",
    "arch",
    "clock_max_mhz",
    "power_limit_w",
    "idle_power_w",
    "memory_bytes",
    "l2_bytes",
    "dram_gbps",
    "l2_gbps",
    "empty_kernel_us",
    "empty_launch_us",
)
"""Columns that are the field of a Device of that name; `peak_tflops` is one by dtype."""


def with_one_description(table: pa.Table) -> pa.Table:
    """The samples, with the descriptors of imported rows as all rows together know them."""
    is_imported = pc.starts_with(table["device_uuid"], ESTIMATED)
    if not pc.any(is_imported).as_py():
        return table
    names = pc.unique(table["device"].filter(is_imported))
    about_them = table.filter(pc.is_in(table["device"], names))
    descriptions = Descriptions(_counted(about_them))
    imported = table.filter(is_imported)
    columns = imported.select(["device", "power_limit_w", "dtype"]).to_pydict()
    by_row = list(map(descriptions.of, columns["device"], columns["power_limit_w"]))
    for name in SETTLED:
        unknown = 0 if name in REQUIRED else None
        values = [getattr(device, name) or unknown for device in by_row]
        imported = _replaced(imported, name, values)
    peaks = list(map(_peak, by_row, columns["dtype"]))
    imported = _replaced(imported, "peak_tflops", peaks)
    others = table.filter(pc.invert(is_imported))
    return pa.concat_tables([others, imported])


def measured_devices(table: pa.Table) -> list[Device]:
    """The devices of the samples, by name, without those that an import estimated."""
    devices = Descriptions(_counted(table)).devices
    return [device for device in devices if not device.uuid.startswith(ESTIMATED)]


def _counted(table: pa.Table) -> dict[Described, int]:
    """What rows say about devices -> how many say it."""
    grouped = table.select(COLUMNS).group_by(list(COLUMNS)).aggregate([([], "count_all")])
    counts = grouped["count_all"].to_pylist()
    said = map(Described, *(grouped[name].to_pylist() for name in COLUMNS))
    return dict(zip(said, counts, strict=True))


def _peak(device: Device, dtype: str) -> float | None:
    """The peak; of a board that nobody here has measured, no more than its datasheet's."""
    peak = device.peak_tflops.get(dtype)
    datasheet = find_datasheet(device.name)
    if peak and datasheet and device.uuid.startswith(ESTIMATED):
        # an import before there were bounds believed any row
        return within_reach(dtype, peak, datasheet)
    return peak


def _replaced(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = SCHEMA.field(name)
    place = table.column_names.index(name)
    return table.set_column(place, field, pa.array(values, field.type))
