"""The demo reports figures of the model that its run pushed, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.demo import cells_of_new_shapes, predict_pushed, shipped_answer
from coordinator.plan.schema import Plan
from costmodel.train import TrainedModel
from gemmcast import cli, modeldir
from gemmcast.cell import Cell
from gemmcast.device import Device
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


def test_boards_of_one_name_get_each_new_cell_once(
    make_plan: Callable[..., Plan], cpu: Device
) -> None:
    plan = make_plan()
    alone = cells_of_new_shapes(plan, [cpu], known_shapes=())
    together = cells_of_new_shapes(plan, [cpu, replace(cpu, uuid="CPU-other")], known_shapes=())
    assert [cell.cell_id for cell in together] == [cell.cell_id for cell in alone] != []
    known = alone[0].gemm.shape_key
    rest = cells_of_new_shapes(plan, [cpu], known_shapes=(known,))
    assert known not in {cell.gemm.shape_key for cell in rest}


def test_an_h100_is_answered_for_on_every_machine(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "4096", "4096", "4096", "--dtype", "bf16", "--layout", "nt"]
    assert cli.main([*words, "--device", "h100"]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{shipped_answer()}\n"
    assert printed.startswith("4096x4096x4096 bf16 nt  cublas  on NVIDIA H100 80GB HBM3\n")
