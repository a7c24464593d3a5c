"""The cells of a recorded dataset: what `demo --dataset` measures (replays) and, after it, the shapes that it keeps back.

Shapes are kept back by a hash of their own, independent of the one that a training holds out by.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from coordinator.plan.schema import Plan, parse_plan
from gemmcast.arrow import conform
from gemmcast.cell import Cell
from gemmcast.rows import config_of, gemm_of

KEPT_BACK = 0.2
# of the shapes
AGENTS = 2


def replay_plan(dataset: Path) -> Plan:
    """Two agents that answer from the file; its cells are given to the loop, so the sweep only names one of them."""
    first = pq.read_table(dataset, columns=["m", "n", "k", "family"]).slice(0, 1).to_pylist()[0]
    shapes = {"list": [[first[name] for name in "mnk"]]}
    return parse_plan({
        "name": f"replay-{dataset.stem}",
        "devices": {"kind": "replay", "dataset": str(dataset), "agents": AGENTS},
        "train": {"every": 1000, "min_rows": 200},
        "sweep": [{"family": first["family"], "shapes": shapes}],
    })  # fmt: skip


def recorded_cells(dataset: Path) -> tuple[list[Cell], list[Cell]]:
    """(to measure first, kept back): a cell for each good row."""
    table = conform(pq.read_table(dataset), str(dataset))
    seen: Counter[Cell] = Counter()
    first: list[Cell] = []
    kept_back: list[Cell] = []
    for row in table.to_pylist():
        if row["status"] != "ok":
            continue
        metered = row["power_w"] is not None
        cell = Cell(gemm=gemm_of(row), config=config_of(row), device_key=row["device"], cache=row["cache"], power=metered)
        cell, seen[cell] = replace(cell, repeat=seen[cell]), seen[cell] + 1
        (kept_back if _is_kept_back(cell) else first).append(cell)
    return first, kept_back


def _is_kept_back(cell: Cell) -> bool:
    number = int.from_bytes(hashlib.sha256(f"kept back {cell.gemm.shape_key}".encode()).digest()[:4], "big")
    return number < KEPT_BACK * 2**32
