"""Settings of a training: how many rows at least, and which share of the shapes is held out."""

from __future__ import annotations

from dataclasses import dataclass

from gemmcast.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Settings of one training. The plan says when a run trains (coordinator/plan/schema.py).

    Raises:
        InputError: a value is out of its range.
    """

    min_rows: int = 100
    """Rows with status ok that a model needs at least; from 20."""
    holdout: float = 0.15
    """Share of the shapes that no model version is ever trained on; above 0, below 0.9."""

    def __post_init__(self) -> None:
        if self.min_rows < 20:
            raise InputError("train.min_rows", self.min_rows, "must be at least 20", "use 100")
        if not 0 < self.holdout < 0.9:
            rule = "must be above 0 and below 0.9"
            raise InputError("train.holdout", self.holdout, rule, "use 0.15")
