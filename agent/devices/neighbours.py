"""Other processes that hold one GPU, by lists in which this process may be missing.

    neighbours = listed processes - 1 if one of them may be this process

A container may list no process at all, or give processes other ids than they have inside. So this
process is the one that its context added to the list. Where nothing is new there (two processes
may share an id), one of those that were listed is taken for it: a GPU must not look shared for
ever because of this process itself.
Knows nothing of NVML: tests pass lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

Listed = Callable[[], Sequence[int] | None]
"""The ids of the processes that hold a context on the GPU; None where the driver does not say."""


class Neighbours:
    """Made before this process holds a context of its own."""

    def __init__(self, listed: Listed) -> None:
        self._listed = listed
        self._before = listed() or ()
        self._may_be_ours: frozenset[int] | None = None

    def note_own_context(self) -> None:
        """From here on this process holds a context too."""
        self._find_ours(self._listed())

    def count(self) -> int:
        """How many other processes hold the GPU now; 0 where the driver does not say."""
        listed = self._listed()
        if self._may_be_ours is None:
            self._find_ours(listed)
        if listed is None or self._may_be_ours is None:
            return 0
        is_ours_listed = not self._may_be_ours.isdisjoint(listed)
        return len(listed) - is_ours_listed

    def _find_ours(self, after: Sequence[int] | None) -> None:
        if after is None:
            return
        new = Counter(after) - Counter(self._before)
        self._may_be_ours = frozenset(new or after)
