"""Scores as rows of text: kinds of kernel, and what a GEMM has new."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gemmcast.card import ModelCard, Scores
from gemmcast.score_table import kind_rows, split_rows

CARD: dict[str, Any] = {
    "created_at": "2026-11-29T00:00:00+00:00",
    "program_version": "1",
    "contract": 4,
    "targets": ["runtime_us"],
    "rows": 10,
    "rows_by_device": {},
    "store_version": None,
    "split": "",
    "holdout": 0.2,
    "train_rows": 8,
    "test_rows": 2,
    "train_shapes": 8,
    "test_shapes": 2,
}


def _scores(median: float, within: float | None = None) -> Scores:
    errors = {"median_ape": median, "mape": 2 * median, "rows": 7.0}
    if within is not None:
        errors |= {"within": within, "width": 3 * median}
    return {"runtime_us": {"model": errors, "lookup": {**errors, "median_ape": 99.0}}}


@pytest.fixture
def card() -> ModelCard:
    """Two kinds; the second was not tested on new layers, and nothing on new algorithms."""
    layer = {"scores": _scores(3, 88), "kinds": {"cutlass": _scores(4, 87)}}
    scored = {
        "scores": _scores(1, 90),
        "scores_by_kind": {"cutlass": _scores(2, 89), "tiled": _scores(5)},
        "generalisation": {"layer": layer},
    }
    return ModelCard.from_json(json.dumps(CARD | scored))


def test_splits_stand_side_by_side(card: ModelCard) -> None:
    assert split_rows(card, "runtime_us") == [
        ["all", "1.0 / 2.0 (90.0)", "3.0 / 6.0 (88.0)", "-"],
        ["cutlass", "2.0 / 4.0 (89.0)", "4.0 / 8.0 (87.0)", "-"],
        ["tiled", "5.0 / 10.0 (-)", "-", "-"],
    ]
    assert split_rows(card, "power_w") == []


def test_a_card_without_kinds_has_no_splits() -> None:
    """Cards of older versions have no kinds."""
    older = CARD | {"scores": _scores(1), "generalisation": {"layer": {"scores": _scores(3)}}}
    assert split_rows(ModelCard.from_json(json.dumps(older)), "runtime_us") == []


def test_a_kind_has_errors_and_intervals(card: ModelCard) -> None:
    assert kind_rows(card.scores_by_kind, "runtime_us") == [
        ["cutlass", "2.0", "4.0", "89.0", "6.0", "7"],
        ["tiled", "5.0", "10.0", "-", "-", "7"],
    ]
    assert kind_rows(card.scores_by_kind, "power_w") == []
