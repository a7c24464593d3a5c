"""The exam: what it shares with a training is refused, its scores stand in the card."""

from __future__ import annotations

import pyarrow as pa
import pytest

from coordinator import terminal
from costmodel.dataset import training_set
from costmodel.exam import Exam, check_exam, exam_scores
from costmodel.model import CostModel
from costmodel.settings import TrainSettings
from costmodel.train import TrainedModel, train
from gemmcast.errors import InputError
from gemmcast.rows import Row
from tests.conftest import exam_of


def _changed(table: pa.Table, **columns: object) -> pa.Table:
    rows: list[Row] = [{**row, **columns} for row in table.to_pylist()]
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_an_exam_of_other_boards_and_layers_is_accepted(power_samples: pa.Table) -> None:
    check_exam(exam_of(power_samples), {"the table": power_samples})


def test_a_shared_board_is_refused(power_samples: pa.Table) -> None:
    exam = exam_of(power_samples)
    board = exam.table["device_uuid"][0].as_py()
    others = {"one": power_samples, "two": _changed(power_samples, device_uuid=board)}
    with pytest.raises(InputError, match=f"shares board {board} with two"):
        check_exam(exam, others)


def test_a_shared_layer_is_refused_also_of_a_failed_row(power_samples: pa.Table) -> None:
    exam = exam_of(power_samples)
    first = {name: exam.table[name][0].as_py() for name in ("n", "k")}
    other = _changed(power_samples.slice(0, 1), **first, m=1, status="timeout")
    with pytest.raises(InputError, match=rf"shares \(n, k\) = .{first['n']}, {first['k']}. with x"):
        check_exam(exam, {"x": other})
    failed = Exam(name="x", table=_changed(exam.table, status="timeout"))
    with pytest.raises(InputError, match="shares"):
        check_exam(failed, {"x": other})


def test_rows_without_a_board_share_none(power_samples: pa.Table) -> None:
    exam = exam_of(power_samples)
    nameless = Exam(name="x", table=_changed(exam.table, device_uuid=""))
    check_exam(nameless, {"x": _changed(power_samples, device_uuid="")})


def test_an_exam_is_refused_before_anything_is_fitted(
    power_samples: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(CostModel, "fit_dataset")
    exam = Exam(name="mine.parquet", table=power_samples)
    with pytest.raises(InputError, match="exam = 'mine.parquet': shares board .* with the samples"):
        train(power_samples, TrainSettings(), exam=exam)


def test_an_exam_without_a_usable_row_is_refused(power_samples: pa.Table) -> None:
    exam = Exam(name="x", table=_changed(exam_of(power_samples).table, status="timeout"))
    with pytest.raises(InputError, match="none of its"):
        exam_scores(CostModel(), training_set(power_samples), exam)


def test_the_card_has_the_scores_of_the_exam(
    power_samples: pa.Table, power_candidate: TrainedModel, candidate: TrainedModel
) -> None:
    exam = power_candidate.card.exam
    table = exam_of(power_samples).table
    assert exam["test_rows"] == exam["scores"]["runtime_us"]["model"]["rows"] == len(table)
    assert exam["train_rows"] == power_candidate.card.train_rows
    assert set(exam["scores"]["power_w"]) == {"model", "lookup", "roofline", "paper_forest"}
    layers = set(zip(table["n"].to_pylist(), table["k"].to_pylist(), strict=True))
    expected = f"exam.parquet: 1 boards and {len(layers)} (n, k) that no sample has"
    assert exam["split"] == expected
    assert candidate.card.exam == {}


def test_the_terminal_shows_the_exam_first(
    power_candidate: TrainedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.show_card(power_candidate.card, "model 1")
    shown = capsys.readouterr().out
    assert 0 <= shown.index("exam: errors on exam.parquet") < shown.index("model 1")
