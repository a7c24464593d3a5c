"""The cells of a recorded dataset, for `demo --dataset`: those to measure (replay), and those
kept back.

Shapes are kept back by a hash of their own, independent of the one that a training holds out by.
Does not know how the dataset was recorded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from coordinator.plan.schema import Plan, parse_plan
from gemmcast.arrow import read_samples
from gemmcast.cell import Cell
from gemmcast.draw import is_drawn
from gemmcast.rows import ReadRow, config_of, gemm_of

KEPT_BACK = 0.2
"""Share of the shapes that are kept back."""
AGENTS = 2


def replay_plan(dataset: Path) -> Plan:
    """A plan of two agents that answer from the file.

    A run of it is given the cells of the file; the one sweep only makes the plan complete.
    """
    first = read_samples(dataset).slice(0, 1).to_pylist()[0]
    shape = [first["m"], first["n"], first["k"]]
    return parse_plan(
        {
            "name": f"replay-{dataset.stem}",
            "devices": {"kind": "replay", "dataset": str(dataset), "agents": AGENTS},
            "train": {"every": 1000, "min_rows": 200},
            "sweep": [{"family": first["family"], "shapes": {"list": [shape]}}],
        }
    )


def recorded_cells(dataset: Path) -> tuple[list[Cell], list[Cell]]:
    """A cell for each row with status ok: (those to measure first, those kept back)."""
    repeats: Counter[Cell] = Counter()
    first: list[Cell] = []
    kept_back: list[Cell] = []
    for row in read_samples(dataset).to_pylist():
        if row["status"] != "ok":
            continue
        cell = _recorded_cell(row)
        numbered = replace(cell, repeat=repeats[cell])
        repeats[cell] += 1
        is_kept_back = is_drawn(f"kept back {cell.gemm.shape_key}", KEPT_BACK)
        (kept_back if is_kept_back else first).append(numbered)
    return first, kept_back


def _recorded_cell(row: ReadRow) -> Cell:
    return Cell(
        gemm=gemm_of(row),
        config=config_of(row),
        device_key=row["device"],
        cache=row["cache"],
        power=row["power_w"] is not None,
    )
