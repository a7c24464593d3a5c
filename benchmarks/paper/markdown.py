"""Markdown tables, and how their cells show ratios: a geometric mean, its number in brackets.

Knows nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.report.tile_study import Ratios, geomean

Line = Sequence[object]
NONE = "–"
"""Stands for a mean of nothing."""


def markdown_table(header: Sequence[str], lines: Iterable[Line]) -> str:
    """The table without a line break at its end."""
    rows = [_row(header), _row(["---"] * len(header))]
    rows += [_row(line) for line in lines]
    return "\n".join(rows)


def _row(cells: Line) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def mean_and_count(ratios: Ratios) -> str:
    """ "1.06 (180)" """
    if not len(ratios):
        return NONE
    return f"{geomean(ratios):.2f} ({len(ratios)})"


def span(ratios: Ratios) -> str:
    """ "0.91 to 1.64": the smallest and the largest."""
    if not len(ratios):
        return NONE
    return f"{ratios.min():.2f} to {ratios.max():.2f}"
