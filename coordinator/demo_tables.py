"""The demo's tables: what was predicted beside what was then measured, and how wrong it was.

The demo prints them and puts them into its report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coordinator.report.page import PageTable, Section
from coordinator.report.scores import score_table
from costmodel.dataset import TrainingSet
from gemmcast.card import Scores
from gemmcast.rows import ReadRow, Row, config_of, gemm_of

Predictions = dict[str, dict[str, float]]
"""cell id -> output -> value"""
EXAMPLES = 12
"""Rows of the table of predictions."""


def title(new: TrainingSet) -> str:
    """Of the table of examples."""
    devices = ", ".join(sorted(set(new.column("device").tolist())))
    return f"GEMMs of new shapes on {devices}, predicted and measured in µs"


def title_of_scores(new: TrainingSet) -> str:
    """Of the table of all errors."""
    shapes = len(set(new.shapes))
    return f"All {len(new)} of them, {shapes} shapes: absolute error in per cent"


def columns_of_examples(before: Predictions) -> list[str]:
    """With one more where a model answered before anything was measured."""
    return ["GEMM", "kernel", *(["before"] if before else []), "after", "measured", "error %"]


def examples(
    new: TrainingSet, predicted: Predictions, before: Predictions
) -> list[tuple[str, ...]]:
    """What was predicted beside what was measured, of a few rows."""
    rows: list[tuple[str, ...]] = []
    for row in _from_small_to_large(new.table.to_pylist()):
        asked = [one[row["cell_id"]]["runtime_us"] for one in (before, predicted) if one]
        rows.append(_example(row, asked))
    return rows


def demo_section(
    errors: Scores, new: TrainingSet, predicted: Predictions, before: Predictions
) -> Section:
    """The tables that the demo prints, for the report."""
    texts = [
        f"{title(new)}: each was predicted by the model that the run had pushed, then measured. "
        "These rows are evenly spread over the runtimes, not the best ones.",
        f"{title_of_scores(new)}.",
    ]
    predicted_and_measured = PageTable(
        header=columns_of_examples(before),
        rows=examples(new, predicted, before),
        text_columns=2,
    )
    tables = [predicted_and_measured, score_table(errors)]
    return Section(title="Predicted, then measured", texts=texts, tables=tables)


def _example(row: ReadRow, asked_us: Sequence[float]) -> tuple[str, ...]:
    """The error is that of the last answer."""
    measured_us = row["runtime_us"]
    error = 100 * (asked_us[-1] / measured_us - 1)
    times = (*(f"{time_us:.1f}" for time_us in asked_us), f"{measured_us:.1f}", f"{error:+.1f}")
    return (str(gemm_of(row)), str(config_of(row)), *times)


def _from_small_to_large(rows: Sequence[Row]) -> list[Row]:
    """A few rows, evenly spread over the runtimes: not the best ones."""
    ordered = sorted(rows, key=_runtime_us)
    places = np.linspace(0, len(ordered) - 1, min(EXAMPLES, len(ordered)))
    return [ordered[int(place)] for place in places]


def _runtime_us(row: Mapping[str, float]) -> float:
    return row["runtime_us"]
