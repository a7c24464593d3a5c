"""Samples on their way into the store, which may be down, full or silent for a while.

A commit that fails is tried again after a pause that grows from 1 s to a minute. Meanwhile the
agents get no new leases, so what waits here is at most what was leased before. A store that has not
worked for an hour ends the run. Nothing is lost but by ending the run; then the next one
measures those cells again.
Knows nothing of Ray, nor of leases.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa

from coordinator.samples.answers import Answer, Answers
from coordinator.samples.log import DamagedLogError
from coordinator.samples.store import MissingStoreError, SampleStore
from gemmcast.errors import GemmcastError, UnavailableError

log = logging.getLogger(__name__)

COMMIT_S = 1.0
"""Time between two commits while samples arrive. A commit is a file; what a killed coordinator has
not committed is measured again."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STORE_LIMIT_S = 3600.0
"""A store that has failed for this time is not waited for any longer."""
MISSING_LIMIT_S = 120.0
"""The same for a store that is not there any more: a disk is mounted again, or never."""
HICCUPS = (UnavailableError, DamagedLogError, OSError)
"""What may pass by itself. A folder that is not there, or a log that can't be read, may be a file
system that is not mounted just now."""


class StoreLostError(GemmcastError):
    """The store has not worked for too long."""


@dataclass(frozen=True, slots=True)
class Committed:
    """One commit."""

    rows: pa.Table
    """What was new."""
    cells: int
    """How many cells have their first answer in it."""
    waited_s: float
    """From the arrival of its first batch to its end."""


class CommitQueue:
    """Batches that wait for the next commit.

    Args:
        now_s: a clock that only grows.
    """

    def __init__(self, store: SampleStore, now_s: Callable[[], float]) -> None:
        self._store = store
        self._now_s = now_s
        self._batches: list[pa.Table] = []
        self._waiting = Answers()
        self._tried_s = now_s()
        self._pause_s = 0.0
        self._failing_since_s = 0.0
        self._oldest_s: float | None = None
        self.failures = 0
        """How often the store has failed."""

    @property
    def is_empty(self) -> bool:
        """Whether everything is committed."""
        return not self._batches

    @property
    def is_held_back(self) -> bool:
        """Whether the store has failed and was not seen to work since."""
        return self._pause_s > 0

    def add(self, rows: pa.Table) -> None:
        """Samples for the next commit."""
        if self._oldest_s is None:
            self._oldest_s = self._now_s()
        self._batches.append(rows)
        self._waiting.add(rows)

    def take_each_board(self, cell_ids: Iterable[str]) -> None:
        """From here on the answer of each board is taken for these cells, not only the first."""
        self._store.each_board.update(cell_ids)

    def takes_each_board(self, cell_id: str) -> bool:
        """Whether the answer of each board is taken for that cell."""
        return cell_id in self._store.each_board

    def is_answered(self, cell_id: str) -> bool:
        """Whether an answer of the cell is in the store or waits for it."""
        return self._store.answers.has(cell_id) or self._waiting.has(cell_id)

    def known(self, cell_id: str) -> tuple[Answer, ...]:
        """What the rows of a cell say that are in the store or wait for it."""
        return (*self._store.answers.of(cell_id), *self._waiting.of(cell_id))

    def is_due(self) -> bool:
        """Whether it is time for a commit, or for the next try of one that failed."""
        return self._now_s() - self._tried_s >= max(COMMIT_S, self._pause_s)

    def commit(self) -> Committed | None:
        """Commit everything that waits; None if there is nothing, or the store fails.

        Raises:
            StoreLostError: it has failed for too long.
            WorkspaceError: the store is not ours to write any more.
        """
        self._tried_s = self._now_s()
        if self.is_empty:
            self._pause_s = 0.0
            return None
        cells = self._waiting.committed - self._store.committed
        try:
            rows = self._store.append(self._batches)
        except HICCUPS as error:
            self.hold_back(error)
            return None
        waited_s = self.waiting_s()
        self._batches, self._oldest_s = [], None
        self._waiting = Answers()
        self._pause_s = 0.0
        return Committed(rows, len(cells), waited_s)

    def hold_back(self, error: Exception) -> None:
        """The store does not work: wait before the next try, and longer each time.

        Raises:
            StoreLostError: it has failed for too long.
        """
        now_s = self._tried_s = self._now_s()
        self.failures += 1
        if not self.is_held_back:
            self._failing_since_s = now_s
        failed_s = now_s - self._failing_since_s
        reason = _reason(error)
        is_missing = isinstance(error, MissingStoreError)
        if failed_s >= (MISSING_LIMIT_S if is_missing else STORE_LIMIT_S):
            rule = f"{reason}, for {failed_s / 60:.0f} minutes"
            way_out = "mend it, and start the same command again to go on"
            raise StoreLostError(f"{rule}; {self.rows} rows are lost, the rest is safe: {way_out}")
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        text = "%s; for %.0f s now %d rows wait, agents get no cells; next try in %g s"
        fields = {"reason": reason, "failed_s": failed_s, "waiting_rows": self.rows}
        extra = {"event": "store_failed", "fields": fields}
        log.warning(text, reason, failed_s, self.rows, self._pause_s, extra=extra)

    def waiting_s(self) -> float:
        """How long the oldest batch has waited by now; 0 where none waits."""
        return 0.0 if self._oldest_s is None else self._now_s() - self._oldest_s

    @property
    def rows(self) -> int:
        """How many wait."""
        return sum(map(len, self._batches))


def _reason(error: Exception) -> str:
    """In one line."""
    if isinstance(error, OSError):
        return f"sample store: {error.filename}: {error.strerror}" if error.filename else str(error)
    return str(error)
