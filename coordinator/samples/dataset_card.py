"""The card of a dataset: what was measured, on which devices, when and how.

What a dataset counts is in dataset_counts.py. Works on rows alone: does not know files, plans or
the store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from coordinator.samples.dataset_counts import GROUP, DatasetCounts
from gemmcast.rows import ReadRow

Rows = Sequence[ReadRow]
WRITTEN_BY: Final = "Written by `python -m coordinator export`"
"""On every card: only such a page is replaced."""
BANDWIDTHS: Final = (
    ("copy", "dram_gbps", "GB/s"),
    ("L2", "l2_gbps", "GB/s"),
    ("idle", "idle_power_w", "W"),
)
"""What was measured on a device besides its peaks: word on the card, column, unit."""


def dataset_card(
    name: str, rows: Rows, counted: DatasetCounts, measure: Mapping[str, object] | None
) -> str:
    """The card as Markdown.

    Args:
        name: of the dataset.
        rows: all its rows, at least one.
        counted: what `counts` says of these rows.
        measure: the plan's [measure] table; None: the defaults.
    """
    lines = [
        *front_matter(name),
        f"# {name}",
        "",
        f"{WRITTEN_BY}; the columns are those of docs/schema.md.",
        "",
        "| | |",
        "|---|---|",
    ]
    entries = {**_origin(rows, measure), **_contents(counted), **_quality(rows)}
    for key, value in entries.items():
        lines.append(f"| {key} | {value} |")
    return "\n".join(lines) + "\n"


def front_matter(name: str) -> list[str]:
    """The lines that Hugging Face reads from a dataset's card, and the licence of the data."""
    return [
        "---",
        "license: cc-by-4.0",
        f"pretty_name: {name}",
        "task_categories: [tabular-regression]",
        "tags: [gemm, gpu, performance, energy]",
        f"configs: [{{config_name: default, data_files: {name}.parquet}}]",
        "---",
        "",
    ]


def _origin(rows: Rows, measure: Mapping[str, object] | None) -> dict[str, str]:
    """Devices, software, time and protocol."""
    drivers = []
    for driver, cuda in _distinct(rows, "driver", "cuda"):
        if driver:
            drivers.append(f"{driver}, {cuda}")
    conditions = []
    for cache, distribution in _distinct(rows, "cache", "operand_distribution"):
        conditions.append(f"{cache}, {distribution}")
    times = [row["measured_at"] for row in rows]
    devices = "GPUs" if rows[0]["device_kind"] == "cuda" else "devices"
    return {
        devices: _joined(_device_texts(rows)),
        "driver, CUDA": _joined(drivers),
        "libraries": _joined(_values(rows, "library")),
        "measured on them": _joined(_descriptor_texts(rows)),
        "when": f"{min(times)} to {max(times)}",
        "program": "gemmcast " + _joined(_values(rows, "program_version")),
        "agents": str(len(_values(rows, "agent"))),
        "protocol": json.dumps(measure) if measure else "the defaults of docs/plan.md",
        "cache and operands": _joined(conditions),
    }


def _contents(counted: DatasetCounts) -> dict[str, str]:
    failures = _count_text(counted["not_ok"]) or "none"
    return {
        "rows": f"{counted['rows']:,}; not ok: {failures}",
        "different cells, shapes": f"{counted['cells']:,}, {counted['shapes']:,}",
        f"groups of {GROUP} configurations": f"{counted['groups_of_20']:,}",
        "rows with power": f"{counted['rows_with_power']:,}",
        "families": _count_text(counted["by_family"]),
        "dtypes": _count_text(counted["by_dtype"]),
    }


def _quality(rows: Rows) -> dict[str, str]:
    """How far the readings can be trusted, and whether the two power readings agree."""
    uncertainties: list[float] = []
    disagreements: list[float] = []
    for row in rows:
        if row["runtime_uncertainty"] is not None:
            uncertainties.append(row["runtime_uncertainty"])
        if row["power_w"] and row["power_instant_w"]:
            disagreements.append(abs(row["power_w"] / row["power_instant_w"] - 1))
    return {
        "standard uncertainty of runtime, median": _median_percent(uncertainties),
        "counter against instantaneous power, median": _median_percent(disagreements),
    }


def _device_texts(rows: Rows) -> list[str]:
    columns = ("device", "device_uuid", "compute_units", "l2_bytes", "power_limit_w")
    texts = []
    for name, uuid, units, l2_bytes, limit_w in _distinct(rows, *columns):
        l2_mib = 0.0
        limit = ""
        if isinstance(l2_bytes, int):
            l2_mib = l2_bytes / 2**20
        if isinstance(limit_w, float):
            limit = f", {limit_w:.0f} W"
        texts.append(f"{name} ({uuid}; {units} SMs, {l2_mib:.0f} MiB L2{limit})")
    return texts


def _descriptor_texts(rows: Rows) -> list[str]:
    """Peaks and bandwidths, each from the lowest to the highest that any of the devices has."""
    texts = []
    for dtype in _values(rows, "dtype"):
        peaks = [row["peak_tflops"] for row in rows if row["dtype"] == dtype]
        texts.append(_range_text(dtype, peaks, "TFLOP/s"))
    for word, column, unit in BANDWIDTHS:
        readings = [row[column] for row in rows]
        texts.append(_range_text(word, readings, unit))
    return texts


def _range_text(word: str, values: Sequence[float | None], unit: str) -> str:
    """`copy 2,982 to 3,001 GB/s`; empty if nothing was measured."""
    known = [value for value in values if value]
    if not known:
        return ""
    lowest = _rounded(min(known))
    highest = _rounded(max(known))
    if lowest == highest:
        return f"{word} {lowest} {unit}"
    return f"{word} {lowest} to {highest} {unit}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _distinct(rows: Rows, *names: str) -> list[tuple[object, ...]]:
    """The different values of some columns together, in the order of their first rows."""
    values: dict[tuple[object, ...], None] = {}
    for row in rows:
        values[tuple(row[name] for name in names)] = None
    return list(values)


def _values(rows: Rows, name: str) -> list[str]:
    """The different values of one column, without those that are absent or empty."""
    return [str(value) for (value,) in _distinct(rows, name) if value]


def _count_text(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counted.items()))


def _joined(texts: Iterable[str]) -> str:
    different = dict.fromkeys(filter(None, texts))
    return "; ".join(different) or "none"


def _median_percent(shares: Sequence[float]) -> str:
    if not shares:
        return "not read"
    return f"{100 * float(np.median(shares)):.2f} %"
