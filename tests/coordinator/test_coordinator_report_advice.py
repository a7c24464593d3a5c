"""What the report says to do next follows from the figures, the most pressing first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from coordinator.report.advice import MOST, Around, advice
from coordinator.report.analysis import HeldOutRows
from costmodel.dataset import Mask, TrainingSet, training_set

NOWHERE = Around()


@pytest.fixture(scope="module")
def data(power_samples: pa.Table) -> TrainingSet:
    """Of two families, with power."""
    return training_set(power_samples)


def _held(data: TrainingSet, wrong: Mask | None = None, flagged: int = 0) -> HeldOutRows:
    """Predicted 2 % too high, and 50 % where it is wrong; the first rows are flagged."""
    factor = np.full(len(data), 1.02)
    if wrong is not None:
        factor[wrong] = 1.5
    runtime = factor * data.measured["runtime_us"]
    places = np.arange(len(data))
    return HeldOutRows(
        data=data,
        predictions={
            "runtime_us": runtime,
            "low": 0.5 * runtime[:, None],
            "high": 2 * runtime[:, None],
            "extrapolating": (places < flagged).astype(np.float64),
        },
        measured_later=np.zeros(len(data), dtype=bool),
        targets=("runtime_us",),
    )


def test_boards_that_are_not_well_come_first_and_cells_that_are_due_next(
    data: TrainingSet,
) -> None:
    around = Around(workspace="my runs", due=12, second_due=3, sick={"GPU-5": "slow"})
    board, due, *_ = advice(data, 0, _held(data), around)
    assert "GPU-5 is not well: slow" in board.text
    assert board.command == "python -m coordinator health --workspace 'my runs'"
    assert "12 cells" in due.text
    assert "3 wait for a second board" in due.text
    assert due.command == "python -m coordinator run PLAN.toml --workspace 'my runs'"


def test_many_boards_leave_room_for_the_model(data: TrainingSet) -> None:
    around = Around(workspace="ws", sick={f"GPU-{place}": "slow" for place in range(9)})
    found = advice(data, 0, _held(data), around)
    assert len(found) == MOST
    assert found[-1].command.endswith("--model ws/node")


def test_the_weakest_kind_of_kernel_is_named(data: TrainingSet) -> None:
    tiled = data.column("family") == "tiled"
    most_of_them = tiled & (np.cumsum(tiled) < 0.6 * tiled.sum())
    weak, _ = advice(data, 0, _held(data, wrong=most_of_them), NOWHERE)
    assert "tiled in fp32" in weak.text
    assert "50.0 %" in weak.text
    assert f"{tiled.sum()} of {len(data)} rows" in weak.text
    assert 'family = "tiled"' in weak.command


def test_where_all_kinds_are_alike_none_is_named(data: TrainingSet) -> None:
    (only,) = advice(data, 0, _held(data), NOWHERE)
    assert "Nothing is due" in only.text


def test_extrapolation_and_new_rows_are_named(data: TrainingSet) -> None:
    held = replace(_held(data, flagged=40), measured_later=np.arange(len(data)) < 7)
    newer, outside, _ = advice(data, 0, held, NOWHERE)
    assert "7 rows" in newer.text
    assert newer.command == "python -m coordinator train"
    assert f"40 of {len(data)} held-out rows" in outside.text


def test_without_a_model_one_is_trained(data: TrainingSet) -> None:
    failed, train, use = advice(data, len(data), None, NOWHERE)
    assert "50 % of the rows failed" in failed.text
    assert train.command == "python -m coordinator train"
    assert "--model" not in use.command
