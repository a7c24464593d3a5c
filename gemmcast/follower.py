"""A thread that notices each new content of a directory, so that no caller waits for a file.

The thread compares the stamp (time and inode) of one file every `refresh_s`. What cannot be loaded
is logged, and what is in use stays. A forked process has no such thread, so it starts its own when
it first needs one. Does not know what the directory holds.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from gemmcast import forks

log = logging.getLogger(__name__)

FileStamp = tuple[int, int]
"""When a file was replaced [ns], and its inode."""


class Follower(ABC):
    """Follows a file that is replaced by a rename, after all that it names is there.

    A subclass loads the first content between `__init__` and `start`, so that a push in between is
    seen by the first look.

    Args:
        path: the file.
        refresh_s: time between two looks at it.
    """

    def __init__(self, path: Path, refresh_s: float) -> None:
        self._path = path
        self._refresh_s = refresh_s
        self._is_closed = False
        self._stamp = _stamp(path)
        self.after_fork()

    @abstractmethod
    def _take_newest(self) -> None:
        """Load what the file names now. What it raises is logged, and the content in use stays."""

    @abstractmethod
    def _in_use(self) -> str:
        """What is in use, for the log."""

    def close(self) -> None:
        """Stop looking; what was loaded stays."""
        self._is_closed = True
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def after_fork(self) -> None:
        """The thread is gone; the event and the lock may be locked by a thread that is gone."""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._starting = threading.Lock()

    def start(self) -> None:
        """Begin to look; again in a forked process."""
        self._start()
        forks.track(self)

    def _keep_looking(self) -> None:
        """A caller that needs the content: it starts the thread that a fork has lost."""
        if self._thread is None and not self._is_closed:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._watch, name="gemmcast-follower", daemon=True
            )
            self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(self._refresh_s):
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                continue
            try:
                self._take_newest()
                self._stamp = stamp
            except ValueError as error:
                # A bad push stays bad (InputError, or no UTF-8): wait for the next one.
                log.warning("keeping %s: %s", self._in_use(), error)
                self._stamp = stamp
            except OSError as error:
                # Too many open files or a stale handle may pass: look again.
                log.warning("keeping %s: %s", self._in_use(), error)


def _stamp(path: Path) -> FileStamp | None:
    with contextlib.suppress(OSError):
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_ino
    return None
