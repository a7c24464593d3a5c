"""Scores as a table of the report: runtime first, in the words of its figures.

The numbers are those of gemmcast/score_table.py, which names targets and methods as cards do.
"""

from __future__ import annotations

from typing import Final

from coordinator.report.drawing import TARGET_NAMES
from coordinator.report.page import PageTable
from gemmcast.card import Scores
from gemmcast.score_table import SCORE_COLUMNS, score_rows

METHODS: Final = {
    "base": "the base as it is",
    "lookup": "the nearest measured shape",
    "roofline": "the device's limits alone",
    "paper_forest": "the random forest of the paper",
    "unresolved": "the model where a library's choice of algorithm is not known",
    "by_name": "the model where of an algorithm only a name is known",
}
"""Method, besides the model -> what it is."""


def score_table(scores: Scores) -> PageTable:
    """One row per target and method."""
    places = {target: place for place, target in enumerate(TARGET_NAMES)}
    rows = sorted(score_rows(scores), key=lambda row: places[row[0]])
    worded = [[TARGET_NAMES[target], *others] for target, *others in rows]
    return PageTable(header=SCORE_COLUMNS, rows=worded, text_columns=2)


def methods_text(scores: Scores) -> str:
    """What the methods of a table are."""
    shown = {method for by_method in scores.values() for method in by_method}
    known = "; ".join(f"{name} is {text}" for name, text in METHODS.items() if name in shown)
    return f"Errors are absolute, in per cent. Of the methods, {known}."
