"""A workspace's samples as a dataset to keep and to share: one Parquet file, and beside it a card that says where it comes from.

A cell is a GEMM with the configuration that ran (all knobs, as the row tells them) and the cache state; a group to tune in is a shape, dtype
and family with 20 or more configurations.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically
from gemmcast.rows import config_of, gemm_of

GROUP = 20
COMPRESSION_LEVEL = 9
READINGS = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")
Rows = Sequence[dict[str, Any]]


def write_recording(table: pa.Table, path: Path, measure: dict[str, Any] | None = None) -> dict[str, Any]:
    """Writes `path` (.parquet) and its card (.md); what the card counts.

    Args:
        table: samples, of the sample schema.
        measure: the plan's [measure] table, for the card.

    Raises:
        InputError: the name does not end with .parquet, or there are no samples.
    """
    if path.suffix != ".parquet":
        raise InputError("FILE", str(path), "a dataset is a Parquet file", "name it SOMETHING.parquet")
    rows = in_order(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", compression_level=COMPRESSION_LEVEL)
    write_atomically(path, sink.getvalue().to_pybytes())
    listed = table.to_pylist()
    counted = counts(listed)
    write_atomically(path.with_suffix(".md"), card(path.stem, listed, counted, measure).encode())
    return counted


def in_order(table: pa.Table) -> pa.Table:
    """Samples as they are written to files, the oldest first. Raises InputError where there are none."""
    if not len(table):
        raise InputError("samples", 0, "there are no samples to write", "run a plan first: python -m coordinator run PLAN.toml")
    return table.sort_by([("measured_at", "ascending"), ("cell_id", "ascending")])


def counts(rows: Rows) -> dict[str, Any]:
    good = [row for row in rows if row["status"] == "ok"]
    cells = {_cell(row) for row in good}
    groups: dict[tuple[str, str, str], set[KernelConfig]] = defaultdict(set)
    for gemm, config, _, _ in cells:
        groups[gemm.shape_key, gemm.dtype, config.family].add(config)
    return {
        "device": dict(Counter(row["device"] for row in rows)),
        "rows": len(rows),
        "cells": len(cells),
        "shapes": len({gemm.shape_key for gemm, _, _, _ in cells}),
        "groups_of_20": sum(len(configs) >= GROUP for configs in groups.values()),
        "rows_with_power": sum(row["power_w"] is not None for row in good),
        "by_family": dict(Counter(row["family"] for row in good)),
        "by_dtype": dict(Counter(row["dtype"] for row in good)),
        "not_ok": dict(Counter(row["status"] for row in rows if row["status"] != "ok")),
    }


def noise_floor(rows: Rows, again: Rows) -> dict[str, dict[str, float]]:
    """How far two readings of the same cell differ, in per cent: no model can be asked to predict better than that.

    Returns:
        reading -> median, p90, max, and the number of cells that both recordings have.
    """
    one, two = ({row["cell_id"]: row for row in of if row["status"] == "ok"} for of in (rows, again))
    return _apart([(one[cell], two[cell]) for cell in one if cell in two])


def repeatability(rows: Rows) -> dict[str, dict[str, float]]:
    """As `noise_floor`, of cells that one table has more than once, each reading against the one before it, on the same device or another of its
    type; `cells` counts such pairs. Beside the readings `runtime_rse`, the relative standard error within a reading in per cent, of all rows."""
    before: dict[Any, dict[str, Any]] = {}
    pairs = []
    for row in sorted((row for row in rows if row["status"] == "ok"), key=lambda row: str(row["measured_at"])):
        cell = _cell(row)
        if cell in before:
            pairs.append((before[cell], row))
        before[cell] = row
    within = [row["runtime_rse"] for row in rows if row["status"] == "ok" and row["runtime_rse"] is not None]
    return {**_apart(pairs), **({"runtime_rse": _spread(100 * np.array(within), "rows")} if within else {})}


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    return gemm_of(row), config_of(row), row["cache"], row["device"]


def _apart(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, dict[str, float]]:
    found = {}
    for name in READINGS:
        read = np.array([(one[name], two[name]) for one, two in pairs if one[name] and two[name]])
        if len(read):
            found[name] = _spread(100 * np.abs(read[:, 1] / read[:, 0] - 1), "cells")
    return found


def _spread(values: Any, counted: str) -> dict[str, float]:
    median, p90 = np.percentile(values, [50, 90])
    return {"median": float(median), "p90": float(p90), "max": float(values.max()), counted: len(values)}


def card(name: str, rows: Rows, counted: dict[str, Any], measure: dict[str, Any] | None) -> str:
    """Markdown: what was measured, on what, when and how."""
    table = {
        "GPUs" if rows[0]["device_kind"] == "cuda" else "devices": _listed(_devices(rows)),
        "driver, CUDA": _listed(f"{driver}, {cuda}" for driver, cuda in _different(rows, "driver", "cuda") if driver),
        "libraries": _listed(library for (library,) in _different(rows, "library") if library),
        "measured on them": _measured(rows),
        "when": f"{min(row['measured_at'] for row in rows)} to {max(row['measured_at'] for row in rows)}",
        "program": "gemmcast " + _listed(version for (version,) in _different(rows, "program_version")),
        "agents": str(len(_different(rows, "agent"))),
        "protocol": json.dumps(measure) if measure else "the defaults of docs/plan.md",
        "cache and fill": _listed(f"{cache}, {fill}" for cache, fill in _different(rows, "cache", "operand_distribution")),
        "rows": f"{counted['rows']:,}; not ok: {_counted(counted['not_ok']) or 'none'}",
        "different cells, shapes": f"{counted['cells']:,}, {counted['shapes']:,}",
        "groups of 20 configurations": f"{counted['groups_of_20']:,}",
        "rows with power": f"{counted['rows_with_power']:,}",
        "families": _counted(counted["by_family"]),
        "dtypes": _counted(counted["by_dtype"]),
        "spread within a reading, median": _percent(row["runtime_rse"] for row in rows) + " of runtime (relative standard error)",
        "counter against instantaneous power, median": _percent(
            abs(row["power_w"] / row["power_instant_w"] - 1) for row in rows if row["power_w"] and row["power_instant_w"]
        ),
    }
    lines = [f"# {name}", "", "Written by `python -m coordinator export`; the columns are those of docs/schema.md.", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {value} |" for key, value in table.items())]) + "\n"


def _devices(rows: Rows) -> list[str]:
    return [
        f"{name} ({uuid}; {sms} SMs, {(l2 or 0) / 2**20:.0f} MiB L2" + (f", {limit:.0f} W)" if limit else ")")
        for name, uuid, sms, l2, limit in _different(rows, "device", "device_uuid", "compute_units", "l2_bytes", "power_limit_w")
    ]


def _measured(rows: Rows) -> str:
    """From the least to the most that any of the devices has."""
    found = [f"{dtype} {_range(rows, 'peak_tflops', dtype=dtype)} TFLOP/s" for (dtype,) in _different(rows, "dtype")]
    found += [
        f"{word} {_range(rows, column)} {unit}"
        for word, column, unit in (("copy", "dram_gbps", "GB/s"), ("L2", "l2_gbps", "GB/s"), ("idle", "idle_power_w", "W"))
    ]
    return _listed(text for text in found if " - " not in text)


def _range(rows: Rows, column: str, **only: str) -> str:
    values = [row[column] for row in rows if row[column] and all(row[name] == value for name, value in only.items())]
    ends = dict.fromkeys(f"{end(values):,.0f}" if end(values) >= 1000 else f"{end(values):.4g}" for end in (min, max)) if values else {}
    return " to ".join(ends) or "-"


def _different(rows: Rows, *names: str) -> list[tuple[Any, ...]]:
    """The different values of some columns, in the order in which they come."""
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))


def _listed(values: Any) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values)) or "none"


def _counted(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(values.items()))


def _percent(values: Any) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * float(np.median(known)):.2f} %" if known else "not read"
