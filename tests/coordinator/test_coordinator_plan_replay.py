"""Cells of a recorded dataset: each good row once, shapes kept back whole, and the replay device answers every one."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from agent.devices.replay import ReplayInstrument
from coordinator.plan.replay import KEPT_BACK, recorded_cells, replay_plan
from gemmcast.arrow import to_table

DATASET = Path(__file__).parents[2] / "datasets" / "h100_demo.parquet"


def test_every_good_row_is_one_cell_and_shapes_are_kept_back_whole() -> None:
    first, kept_back = recorded_cells(DATASET)
    rows = [row for row in pq.read_table(DATASET).to_pylist() if row["status"] == "ok"]
    assert len(first) + len(kept_back) == len(rows)
    assert len({cell.cell_id for cell in first + kept_back}) == len(rows)
    assert sum(cell.power for cell in first + kept_back) == sum(row["power_w"] is not None for row in rows)
    shapes = [{cell.gemm.shape_key for cell in cells} for cells in (first, kept_back)]
    assert not shapes[0] & shapes[1]
    assert abs(len(shapes[1]) / len(shapes[0] | shapes[1]) - KEPT_BACK) < 0.1


def test_the_replay_device_answers_each_with_the_row_that_was_recorded() -> None:
    instrument = ReplayInstrument(DATASET, "me")
    first, kept_back = recorded_cells(DATASET)
    recorded = {}
    for row in pq.read_table(DATASET).to_pylist():
        recorded[row["m"], row["n"], row["k"], row["dtype"], row["family"], row["tile_m"]] = row["runtime_us"]
    for cell in (first + kept_back)[::7]:
        row = instrument.measure(cell).row
        gemm = cell.gemm
        assert row["runtime_us"] == recorded[gemm.m, gemm.n, gemm.k, gemm.dtype, cell.config.family, cell.config.tile_m]
        assert (row["power_w"] is not None) >= cell.power


def test_the_plan_names_the_dataset() -> None:
    plan = replay_plan(DATASET)
    assert (plan.devices.kind, plan.devices.dataset) == ("replay", str(DATASET))


def test_other_scalars_are_other_cells_and_repeats_are_numbered_with_and_without_power(tmp_path: Path) -> None:
    row = next(row for row in pq.read_table(DATASET).to_pylist() if row["family"] == "cublas" and row["power_w"])
    plain = {**row, "power_w": None}
    pq.write_table(
        to_table([row, plain, {**plain, "beta": 1.0}, {**row, "runtime_us": 7.0}, {**plain, "runtime_us": 8.0}]), path := tmp_path / "mine.parquet"
    )
    cells = [cell for part in recorded_cells(path) for cell in part]
    assert [(cell.gemm.beta, cell.power, cell.repeat) for cell in cells] == [
        (0.0, True, 0), (0.0, False, 0), (1.0, False, 0), (0.0, True, 1), (0.0, False, 1),
    ]  # fmt: skip
    instrument = ReplayInstrument(path, "me")
    got = [(answer["runtime_us"], answer["power_w"] is not None) for answer in (instrument.measure(cell).row for cell in cells)]
    assert got == [(row["runtime_us"], True), (row["runtime_us"], False), (row["runtime_us"], False), (7.0, True), (8.0, False)]
