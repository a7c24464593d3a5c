"""Who writes in a place: a lock that ends with its process, and a note that names the holder.

The operating system keeps the lock (flock), so a holder that is killed with `kill -9` lets go at
once. Where a file system has no flock, filelock keeps a file in its place and breaks the lock of a
process that is gone. Used for workspaces and for stores in files; see samples/lock.py for others.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gemmcast.errors import WorkspaceError
from gemmcast.modeldir import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that writes."""

    host: str
    pid: int
    workspace: str = ""
    """Its workspace, where that is not the place itself."""
    started: int = 0
    """When it started, in ticks since the boot of its host: numbers of processes come again. 0: the
    system does not say, or the note is of an earlier version."""

    @staticmethod
    def here(workspace: Path | None = None) -> Holder:
        """This process."""
        pid = os.getpid()
        return Holder(
            host=socket.gethostname(),
            pid=pid,
            workspace=str(workspace or ""),
            started=_started(pid) or 0,
        )

    @staticmethod
    def from_json(text: str) -> Holder | None:
        """None for a text that names no holder."""
        try:
            values = json.loads(text)
            return Holder(
                host=values["host"],
                pid=values["pid"],
                workspace=values["workspace"],
                started=values.get("started", 0),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def to_json(self) -> str:
        """The content of a note."""
        return json.dumps(asdict(self))

    def has_died(self) -> bool:
        """Whether the process is known to be gone: it ran on this host and runs no more."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            # It is another user's.
            pass
        started = _started(self.pid)
        return started is not None and self.started not in (0, started)

    def __str__(self) -> str:
        name = f"process {self.pid} on {self.host}"
        return f"{name} (workspace {self.workspace})" if self.workspace else name


@contextmanager
def held(lock: Path, note: Path, holder: Holder, *, place: str, way_out: str) -> Iterator[None]:
    """Hold the lock at a path.

    Args:
        note: file that names the holder.
        place: what is locked, and `way_out` of who comes second; for messages.

    Raises:
        WorkspaceError: another process holds it, or the lock can't be written.
    """
    file_lock = FileLock(lock, timeout=0)
    try:
        file_lock.acquire()
    except Timeout:
        raise in_use(place, _named(note), way_out) from None
    except OSError as error:
        rule = f"{lock} can't be locked ({error.strerror})"
        raise WorkspaceError(f"{rule}: name a directory that can be written") from None
    try:
        _write(note, holder)
        yield
    finally:
        file_lock.release()


def in_use(place: str, holder: Holder | None, way_out: str) -> WorkspaceError:
    """The refusal of a second writer."""
    name = holder or "a process that has not written its name"
    return WorkspaceError(f"{place} is in use by {name}: {way_out}")


def _started(pid: int) -> int | None:
    """When a process of this host started, in ticks since the boot (proc(5), field 22).

    None: the system does not say; -1: it has ended, and nobody has waited for it yet.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])


def _named(note: Path) -> Holder | None:
    """None if its note is not written yet."""
    try:
        return Holder.from_json(note.read_text())
    except (OSError, UnicodeDecodeError):
        return None


def _write(note: Path, holder: Holder) -> None:
    try:
        # It replaces a link that somebody has put there, and does not follow it.
        write_atomically(note, holder.to_json().encode())
    except OSError as error:
        rule = f"{note} can't be written ({error.strerror})"
        raise WorkspaceError(f"{rule}: free some space, or name another directory") from None
