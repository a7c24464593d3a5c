"""The demo reports figures of the model that its run pushed, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.demo import predict_pushed
from costmodel.train import TrainedModel
from gemmcast import modeldir
from gemmcast.cell import Cell
from gemmcast.errors import GemmcastError


def test_predictions_are_of_the_version_that_was_pushed(
    tmp_path: Path, candidate: TrainedModel, cpu_cells: list[Cell]
) -> None:
    modeldir.put_model(tmp_path, candidate.model, "2")
    predicted = predict_pushed(tmp_path, cpu_cells[:3], "2")
    assert set(predicted) == {cell.cell_id for cell in cpu_cells[:3]}
    assert all(values["runtime_us"] > 0 for values in predicted.values())


def test_a_node_that_serves_another_version_is_refused(
    tmp_path: Path, candidate: TrainedModel, cpu_cells: list[Cell]
) -> None:
    modeldir.put_model(tmp_path, candidate.model, "1")
    with pytest.raises(GemmcastError, match="holds model 1, but model 2 was pushed there"):
        predict_pushed(tmp_path, cpu_cells[:3], "2")
