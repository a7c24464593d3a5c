"""The exam: a locked table of layers and boards that no training has, looked at once per release.

Choices are made with cross-validation, so its scores are too good by what was chosen with them. No
choice was made with the exam. A layer is an (n, k) at any m; a board is one `device_uuid`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.crossval import Model, predictions, scores
from costmodel.evaluate.metrics import to_json
from gemmcast.arrow import read_samples
from gemmcast.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """Rows that are predicted and never trained on."""

    name: str
    """Of the file, for the card."""
    table: pa.Table
    """With the columns of the sample schema."""


def read_exam(path: Path) -> Exam:
    """A Parquet file of samples. Raises InputError where it is something else."""
    return Exam(name=path.name, table=read_samples(path))


def check_exam(exam: Exam, others: Mapping[str, pa.Table]) -> None:
    """Refuse an exam that shares a board or a layer with another table.

    Failed rows count too: what was tried once may be in the next training.

    Args:
        others: name -> table with the columns of the sample schema.

    Raises:
        InputError: names the first table that shares something, and how much it shares.
    """
    boards = _boards(exam.table)
    layers = _layers(exam.table)
    for name, table in others.items():
        known = [f"board {board}" for board in sorted(boards & _boards(table))]
        known += [f"(n, k) = {layer}" for layer in sorted(layers & _layers(table))]
        if known:
            more = f" and {len(known) - 1} more" if len(known) > 1 else ""
            rule = f"shares {known[0]}{more} with {name}, so it is no exam"
            way_out = "take out the rows with shared boards and (n, k), here or there"
            raise InputError("exam", exam.name, rule, way_out)


def exam_scores(model: Model, training: TrainingSet, exam: Exam) -> dict[str, object]:
    """The errors of the exam's usable rows, beside the baselines, in the layout of a card's split.

    Raises:
        InputError: no row is usable.
    """
    test = training_set(exam.table)
    if not len(test):
        rule = f"none of its {len(exam.table)} rows is usable"
        raise InputError("exam", exam.name, rule, "give rows with status ok of a described device")
    boards = len(_boards(test.table))
    layers = len(_layers(test.table))
    return {
        "split": f"{exam.name}: {boards} boards and {layers} (n, k) that no sample has",
        "train_rows": len(training),
        "test_rows": len(test),
        "scores": to_json(scores(test, predictions(model, training, test))),
    }


def _boards(table: pa.Table) -> set[str]:
    return set(filter(None, table["device_uuid"].to_pylist()))


def _layers(table: pa.Table) -> set[tuple[int, int]]:
    return set(zip(table["n"].to_pylist(), table["k"].to_pylist(), strict=True))
