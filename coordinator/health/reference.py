"""Readings of healthy boards at the cells of a check: the sisters of a board that is alone.

    python -m coordinator.health.reference DATASET.parquet ...

writes reference.parquet beside this file, from rows that the datasets hold of these cells. The
repository has it from all of datasets/. A reading of another version of a library is no sister,
because the library may take another kernel; then the model alone speaks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coordinator.health.cells import check_plan
from coordinator.plan.cells import plan_cells
from gemmcast.arrow import SCHEMA, read_samples
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.descriptions import device_of
from gemmcast.gemm import Gemm
from gemmcast.rows import ReadRow, config_of, gemm_of

FILE: Final = Path(__file__).with_name("reference.parquet")
Cells = dict[Gemm, list[KernelConfig]]


def read_reference() -> pa.Table:
    """The reference, in the sample schema."""
    return read_samples(FILE)


def write_reference(datasets: Iterable[Path]) -> pa.Table:
    """Choose the rows of a check from datasets, and write them.

    Args:
        datasets: Parquet files of samples.
    """
    tables = [_of_check(read_samples(path)) for path in datasets]
    table = pa.concat_tables(tables).sort_by(
        [("device", "ascending"), ("device_uuid", "ascending")]
    )
    pq.write_table(table, FILE, compression="zstd")
    return table


def _of_check(table: pa.Table) -> pa.Table:
    """The rows with status ok of one dataset that are cells of a check."""
    table = table.filter(pc.equal(table["status"], "ok"))
    chosen: list[ReadRow] = []
    for name in sorted(set(table["device"].to_pylist())):
        rows = table.filter(pc.equal(table["device"], name)).to_pylist()
        cells = _cells(rows)
        chosen += [row for row in rows if _is_among(row, cells)]
    return pa.Table.from_pylist(chosen, schema=SCHEMA)


def _cells(rows: list[ReadRow]) -> Cells:
    """Problem -> the configurations that a check has for it on the device of these rows."""
    cells: Cells = {}
    for cell in plan_cells(check_plan(), device_of(rows)).cells:
        cells.setdefault(cell.gemm, []).append(cell.config)
    return cells


def _is_among(row: ReadRow, cells: Cells) -> bool:
    if row["cache"] != "cold":
        return False
    configs = cells.get(gemm_of(row), [])
    return any(_answers(config_of(row), config) for config in configs)


def _answers(measured: KernelConfig, config: KernelConfig) -> bool:
    """Whether a row of one configuration is an answer to another, which leaves knobs open."""
    if measured.family != config.family or config.kernel not in ("", measured.kernel):
        return False
    return all(getattr(config, knob) in (0, getattr(measured, knob)) for knob in KNOBS)


if __name__ == "__main__":
    written = write_reference(map(Path, sys.argv[1:]))
    print(f"{FILE}: {len(written)} rows")
