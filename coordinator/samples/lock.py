"""The lock of a sample store: one writer, whatever workspace it writes from.

The operating system locks a store in a folder (coordinator/holder.py). In an object store the lock
is a small Delta table beside the samples, without rows: each commit is a conditional write that
names the holder. It is renewed while the writer lives, and ends by itself after `kill -9`, at the
latest LOCK_S later. The lock is a courtesy that names the holder early: that no two writers commit
the same cell is guaranteed by each commit (samples/log.py), also where locks or clocks are broken.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from coordinator.holder import Holder, held, in_use
from coordinator.samples.log import DeltaLog, OvertakenError
from coordinator.samples.place import FolderPlace, ObjectPlace, StorePlace
from gemmcast.errors import UnavailableError, WorkspaceError

log = logging.getLogger(__name__)

LOCK_FOLDER: Final = "_lock"
LOCK_S: Final = 90.0
"""How long a lock lasts after its last renewal."""
RENEW_S: Final = 20.0
JOIN_S: Final = 5.0
"""How long the end of a writer waits for a renewal that is under way."""
KEEP_S: Final = 3600
"""How long the log of that lock is kept."""
CLEAN_EVERY: Final = 50
"""Renewals between two cleanings of that log."""
WAY_OUT: Final = "wait for it, stop it, or take another --store"


@contextmanager
def store_lock(place: StorePlace, holder: Holder) -> Iterator[None]:
    """Be the one writer of a store.

    Raises:
        WorkspaceError: another process is; the message names it.
        UnavailableError: the store does not answer.
    """
    named = f"sample store {place.shown}"
    if isinstance(place, FolderPlace):
        place.make()
        file, note = place.path / "_writer.lock", place.path / "_writer.json"
        with held(file, note, holder, place=named, way_out=WAY_OUT):
            yield
        return
    lock = ExpiringLock(place, holder)
    lock.take()
    renewing = threading.Thread(target=lock.keep, name="store lock", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        # First the renewal that may be under way: after the end it would take the lock again.
        lock.stop()
        renewing.join(JOIN_S)
        lock.end()


class _Record(NamedTuple):
    """The content of the newest commit of a lock table."""

    holder: Holder | None
    until_s: float
    """Unix time."""


class ExpiringLock:
    """The lock of a store in an object store.

    Args:
        now_s: Unix time.
    """

    def __init__(
        self, place: StorePlace, holder: Holder, now_s: Callable[[], float] = time.time
    ) -> None:
        self._named = f"sample store {place.shown}"
        self._place = ObjectPlace(f"{place.uri}/{LOCK_FOLDER}")
        self._place.shown = place.shown
        self._holder = holder
        self._now_s = now_s
        self._has_ended = threading.Event()
        self._renewals = 0

    def take(self) -> None:
        """Take the lock. Raises WorkspaceError if another process has it."""
        table = DeltaLog.load(self._place)
        if table is None:
            table = self._make()
        self._refuse_a_second(table)
        try:
            table.commit(None, [], self._text(self._now_s() + LOCK_S))
        except OvertakenError:
            self._refuse_a_second(self._newest())
            raise
        self._table = table

    def keep(self) -> None:
        """Renew the lock until it is ended. Runs in a thread."""
        while not self._has_ended.wait(RENEW_S):
            try:
                self.renew()
            except UnavailableError as error:
                log.warning("the lock of %s was not renewed: %s", self._named, error)
            except WorkspaceError as error:
                log.warning("the lock of %s is lost: %s", self._named, error)
                return

    def renew(self) -> None:
        """Let the lock last LOCK_S from now."""
        self._commit(self._now_s() + LOCK_S)
        self._renewals += 1
        if self._renewals % CLEAN_EVERY == 0:
            self._table.checkpoint()

    def stop(self) -> None:
        """Renew it no more."""
        self._has_ended.set()

    def end(self) -> None:
        """Give the lock back, if the store answers."""
        try:
            self._commit(0.0)
        except WorkspaceError as error:
            log.info("the lock of %s ends by itself: %s", self._named, error)

    def _commit(self, until_s: float) -> None:
        try:
            self._table.commit(None, [], self._text(until_s))
        except OvertakenError:
            # By our own commit, perhaps: its answer may have been lost on the way.
            self._table = self._newest()
            if _record_of(self._table).holder != self._holder:
                raise

    def _make(self) -> DeltaLog:
        try:
            return DeltaLog.create(self._place, KEEP_S, self._text(0.0))
        except WorkspaceError:
            # Another process may have made it at the same time.
            table = DeltaLog.load(self._place)
            if table is None:
                raise
            return table

    def _newest(self) -> DeltaLog:
        table = DeltaLog.load(self._place)
        if table is None:
            raise WorkspaceError(f"the lock of {self._named} was deleted: start again")
        return table

    def _refuse_a_second(self, table: DeltaLog) -> None:
        record = _record_of(table)
        has_ended = record.until_s <= self._now_s()
        if has_ended or record.holder is None or record.holder.has_died():
            return
        raise in_use(self._named, record.holder, WAY_OUT)

    def _text(self, until_s: float) -> str:
        return json.dumps({"holder": self._holder.to_json(), "until_s": until_s})


def _record_of(table: DeltaLog) -> _Record:
    """What the newest commit says; a lock that has ended where it says nothing."""
    values = json.loads(table.writer() or "{}")
    return _Record(Holder.from_json(values.get("holder", "")), values.get("until_s", 0.0))
