"""`gemmcast models`: the models in the wheel, what they may be asked, and how wrong they are.

All of it stands on a model's card (docs/card.md); no model is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gemmcast import models
from gemmcast.card import ModelCard, Scores
from gemmcast.score_table import SUMMARY_TARGETS, summary_rows

SIZES: Final = ("m", "n", "k", "batch", "beta")
"""Ranges of a scope, in the order in which they are shown."""
NEW_SHAPES: Final = "shape"
"""What the card's own scores are errors on: shapes that no training row has."""
VERSION_DIGITS: Final = 12
"""Of the SHA-256, as `Predictor.version` has them."""


def list_models() -> tuple[dict[str, Any], str]:
    """Every model: with --json, and as text."""
    values: list[dict[str, Any]] = []
    lines: list[str] = []
    for name in models.names():
        card = models.card(name)
        values.append(_values(name, card))
        lines += _lines(name, card)
    return {"models": values}, "\n".join(lines)


def errors_by_split(card: ModelCard) -> dict[str, Scores]:
    """What no training row has -> the errors on it: shapes first, then layers, boards, ..."""
    errors: dict[str, Scores] = {NEW_SHAPES: card.scores}
    for name, split in card.generalisation.items():
        errors[name] = split["scores"]
    return errors


def _values(name: str, card: ModelCard) -> dict[str, Any]:
    return {
        "name": name,
        "file": str(models.path(name)),
        "version": card.sha256[:VERSION_DIGITS],
        "created_at": card.created_at,
        "outputs": card.targets,
        "train_rows": card.train_rows,
        "train_shapes": card.train_shapes,
        "scope": card.scope,
        "errors": errors_by_split(card),
        "coverage": card.coverage,
        "datasets": card.datasets,
    }


def _lines(name: str, card: ModelCard) -> Iterator[str]:
    path = models.path(name)
    mib = path.stat().st_size / 2**20
    yield f"{name}: version {card.sha256[:VERSION_DIGITS]}, {mib:.2f} MiB, {path}"
    yield f"  {card.train_rows} training rows of {card.train_shapes} shapes"
    yield f"  outputs: {', '.join(card.targets)}"
    for device, families in card.scope.items():
        yield ""
        yield device
        for family, asked in families.items():
            yield from _family_lines(family, asked)
    yield ""
    yield from _error_lines(errors_by_split(card))


def _family_lines(family: str, asked: Mapping[str, Any]) -> Iterator[str]:
    """One family of kernels on one device."""
    counts = f"{asked['rows']} rows"
    if asked["kernels"]:
        counts += f", {len(asked['kernels'])} kernels (--json names them)"
    yield f"  {family:9} {counts}"
    dtypes = [f"{dtype} ({' '.join(layouts)})" for dtype, layouts in asked["layouts"].items()]
    yield f"    dtypes  {', '.join(dtypes)}"
    ranges = [f"{name} {_range(asked[name])}" for name in SIZES]
    yield f"    sizes   {', '.join(ranges)}; cache {' or '.join(asked['cache'])}"


def _range(ends: Sequence[float]) -> str:
    low, high = ends
    return f"{low:g}" if low == high else f"{low:.10g} to {high:.10g}"


def _error_lines(errors: Mapping[str, Scores]) -> Iterator[str]:
    """A table: one line for each kind of thing that was new to the model."""
    heads = ["median / mean error [%] on a new", *SUMMARY_TARGETS.values(), "rows"]
    rows = [heads, *summary_rows(errors)]
    first = max(len(row[0]) for row in rows)
    for name, *numbers in rows:
        yield name.ljust(first) + "".join(number.rjust(14) for number in numbers)
