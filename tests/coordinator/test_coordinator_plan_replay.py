"""Cells of a recorded dataset: each row with status ok once, shapes kept back as a whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from agent.devices.replay import ReplayInstrument
from coordinator.plan.replay import KEPT_BACK, recorded_cells, replay_plan
from gemmcast.arrow import read_samples, to_table
from gemmcast.rows import gemm_of

DATASET = Path(__file__).parents[2] / "datasets" / "h100_demo.parquet"


def test_every_good_row_is_one_cell_and_shapes_are_kept_back_whole() -> None:
    first, kept_back = recorded_cells(DATASET)
    rows = [row for row in read_samples(DATASET).to_pylist() if row["status"] == "ok"]
    assert len(first) + len(kept_back) == len(rows)
    assert len({cell.cell_id for cell in first + kept_back}) == len(rows)
    with_power = [row for row in rows if row["power_w"] is not None]
    assert sum(cell.power for cell in first + kept_back) == len(with_power)
    first_shapes = {cell.gemm.shape_key for cell in first}
    kept_shapes = {cell.gemm.shape_key for cell in kept_back}
    assert not first_shapes & kept_shapes
    share = len(kept_shapes) / len(first_shapes | kept_shapes)
    assert abs(share - KEPT_BACK) < 0.1


def test_the_replay_device_answers_each_with_the_row_that_was_recorded() -> None:
    instrument = ReplayInstrument(DATASET, "me")
    first, kept_back = recorded_cells(DATASET)
    recorded = {}
    for row in read_samples(DATASET).to_pylist():
        key = (str(gemm_of(row)), row["family"], row["tile_m"])
        recorded[key] = row["runtime_us"]
    for cell in (first + kept_back)[::7]:
        row = instrument.measure(cell).row
        key = (str(cell.gemm), cell.config.family, cell.config.tile_m)
        assert row["runtime_us"] == recorded[key]
        assert (row["power_w"] is not None) >= cell.power


def test_the_plan_names_the_dataset() -> None:
    plan = replay_plan(DATASET)
    assert (plan.devices.kind, plan.devices.dataset) == ("replay", str(DATASET))


def test_other_scalars_are_other_cells_and_repeats_are_numbered_with_and_without_power(
    tmp_path: Path,
) -> None:
    rows = read_samples(DATASET).to_pylist()
    row = next(row for row in rows if row["family"] == "cublas" and row["power_w"])
    plain = {**row, "power_w": None}
    with_beta = {**plain, "beta": 1.0}
    second = {**row, "runtime_us": 7.0}
    second_plain = {**plain, "runtime_us": 8.0}
    path = tmp_path / "mine.parquet"
    pq.write_table(to_table([row, plain, with_beta, second, second_plain]), path)
    cells = [cell for part in recorded_cells(path) for cell in part]
    assert [(cell.gemm.beta, cell.power, cell.repeat) for cell in cells] == [
        (0.0, True, 0),
        (0.0, False, 0),
        (1.0, False, 0),
        (0.0, True, 1),
        (0.0, False, 1),
    ]
    instrument = ReplayInstrument(path, "me")
    answers = []
    for cell in cells:
        answer = instrument.measure(cell).row
        answers.append((answer["runtime_us"], answer["power_w"] is not None))
    assert answers == [
        (row["runtime_us"], True),
        (row["runtime_us"], False),
        (row["runtime_us"], False),
        (7.0, True),
        (8.0, False),
    ]
