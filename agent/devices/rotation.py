"""Which launches are cold: one rule for bursts and power windows.

Launches rotate over operand sets, in rounds that are replayed. A launch is cold where COLD x L2 has
been touched since its set was last used. So a round either consists of whole turns over sets that
together exceed COLD x L2, or L2 is evicted before it and no set is used twice in it.
Knows no GPU, and nothing of what is launched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

COLD = 3
"""Operand sets exceed L2 so many times."""
MAX_LAUNCHES = 512
"""In one graph; also operand sets of a cell without power."""
MAX_SETS = 8192
"""Operand sets of a cell with power: an eviction takes time and energy of its own, so there are
many launches between two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Launches in a row, over the sets 0, 1, 2, ... again and again."""

    launches: int
    evicts: bool
    """L2 is evicted before."""


def sets_needed(set_bytes: int, l2_bytes: int, most: int) -> int:
    """As many operand sets as exceed COLD x L2, at most `most`."""
    return min(ceil(COLD * l2_bytes / set_bytes), most)


def cold_round(sets: int, set_bytes: int, l2_bytes: int, *, wanted: int, most: int) -> Round:
    """About `wanted` launches, each of them cold.

    Args:
        sets: operand sets that the launches rotate over.
        most: launches, at least `wanted`; a round of whole turns may need more than wanted.
    """
    exceed_l2 = sets * set_bytes >= COLD * l2_bytes
    if exceed_l2 and sets <= most:
        turns = max(1, wanted // sets)
        return Round(launches=turns * sets, evicts=False)
    return Round(launches=min(sets, most), evicts=True)


def pieces(launches: int, sets: int) -> Iterator[tuple[int, int]]:
    """A round cut into graphs of at most MAX_LAUNCHES: (set of the first launch, launches).

    It is cut between turns where it can be, so that most graphs are the same.
    """
    turns_in_graph = max(1, MAX_LAUNCHES // sets)
    group = turns_in_graph * sets
    for start in range(0, launches, group):
        in_group = min(group, launches - start)
        for first in range(0, in_group, MAX_LAUNCHES):
            yield first, min(MAX_LAUNCHES, in_group - first)
