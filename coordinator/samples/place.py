"""Where a sample store lies, and its files: a folder, or a prefix of an object store.

A file counts as written when it survives a power cut: its bytes are synchronised before it gets its
name, and the folder after. Object stores promise that by themselves. A file that is not there is a
FileNotFoundError; whatever else goes wrong is an UnavailableError of one line.
Does not know what the files contain.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import PyFileSystem

from gemmcast.errors import InputError, UnavailableError
from gemmcast.modeldir import write_atomically
from gemmcast.plainpath import is_plain, link_to, resolved

LOG_FOLDER: Final = "_delta_log"
CHECKPOINT_NOTE: Final = "_checkpoint.json"
"""In a folder: name and SHA-256 of the newest checkpoint."""
CLIENT_OPTIONS: Final = {
    "connect_timeout": "5s",
    "timeout": "15s",
    "max_retries": "2",
    "retry_timeout": "10s",
}
"""Of object stores. The defaults keep a caller waiting for three minutes on a store that is down;
a run retries for as long as it lasts (coordinator/fleet/commits.py)."""
_CHUNK: Final = 1 << 16
_LONGEST_REASON: Final = 300
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m|↳")
_PASSWORD: Final = re.compile(r"//[^/@\s]*@")


class StorePlace(ABC):
    """Where a store lies."""

    shown: str
    """The place in messages."""
    uri: str
    """What Delta Lake opens. Beneath it lies at least the log."""
    options: dict[str, str]
    """For Delta Lake."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there may be a table; only opening it tells where the place is remote."""

    @abstractmethod
    def make(self) -> None:
        """Make the folders, if such a place has any."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a file, named relative to the store."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file, so that it survives a power cut."""

    @abstractmethod
    def sync_log(self, *names: str) -> None:
        """Make these files of the log survive a power cut; without names its newest ones."""

    @abstractmethod
    def retire(self, names: Sequence[str]) -> None:
        """Note that these files are no longer part of the table."""


class FolderPlace(StorePlace):
    """A store in a folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = resolved(path, "--store")
        self.shown = str(self.path)
        self.options: dict[str, str] = {}
        self.uri = self._plain_uri()

    def exists(self) -> bool:
        """Whether there may be a table."""
        return self.log.is_dir()

    @property
    def log(self) -> Path:
        """The folder of the log."""
        return self.path / LOG_FOLDER

    def make(self) -> None:
        """Make the folders."""
        with translated(self.shown):
            self.log.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with translated(self.shown):
            return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file, so that it survives a power cut."""
        with translated(self.shown):
            write_atomically(self.path / name, data)

    def sync_log(self, *names: str) -> None:
        """Make files of the log survive a power cut; by default the newest entry and checkpoint,
        and the hint. To find these takes longer the longer the log is."""
        with translated(self.shown):
            for path in [self.log / name for name in names] or self._newest_of_log():
                _sync(path)
            _sync(self.log)
            _sync(self.path)

    def _newest_of_log(self) -> Iterator[Path]:
        for pattern in ("*.json", "*.parquet", "_last_checkpoint"):
            yield max(self.log.glob(pattern), default=self.log)

    def retire(self, names: Sequence[str]) -> None:
        """From now on their age counts. A damaged one may be missing."""
        for name in names:
            with suppress(OSError):
                os.utime(self.path / name)

    def note_checkpoint(self) -> None:
        """Note the digest of the newest checkpoint."""
        newest = self._newest_checkpoint()
        if newest is not None:
            note = {newest.name: _digest(newest)}
            self.write(CHECKPOINT_NOTE, json.dumps(note).encode())

    def is_checkpoint_whole(self) -> bool:
        """Whether the newest checkpoint has the digest that was noted, if one was.

        Delta Lake may panic, with many lines on the terminal, on one that has not.
        """
        newest = self._newest_checkpoint()
        if newest is None:
            return True
        try:
            note = json.loads(self.read(CHECKPOINT_NOTE))
        except (FileNotFoundError, ValueError):
            return True
        if not isinstance(note, dict) or newest.name not in note:
            return True
        return bool(note[newest.name] == _digest(newest))

    def _newest_checkpoint(self) -> Path | None:
        return max(self.log.glob("*.checkpoint.parquet"), default=None)

    def data_files(self) -> list[str]:
        """Names of all data files, of the table or not."""
        return sorted(path.name for path in self.path.glob("*.parquet"))

    def sweep(self, names: Collection[str], older_than_s: float) -> None:
        """Delete data files that have other names than these and are old."""
        oldest_s = time.time() - older_than_s
        for path in self.path.glob("*.parquet*"):
            if path.name not in names and path.stat().st_mtime <= oldest_s:
                path.unlink(missing_ok=True)

    def _plain_uri(self) -> str:
        """Of the folder or, where Delta Lake would read its name differently, of a stand-in.

        The stand-in contains a link to the log. Delta Lake needs no other file: it follows links to
        the root of a table, but not to the log.
        """
        if is_plain(self.path):
            return self.path.as_uri()
        return link_to(self.log, LOG_FOLDER).parent.as_uri()


class ObjectPlace(StorePlace):
    """A store in an object store: s3://, gs://, az://, ..."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.shown = _PASSWORD.sub("//", self.uri)
        self.options = dict(CLIENT_OPTIONS)
        self._opened: PyFileSystem | None = None

    def exists(self) -> bool:
        """Only opening the table tells."""
        return True

    def make(self) -> None:
        """Object stores have no folders."""

    def read(self, name: str) -> bytes:
        """The bytes of an object."""
        with translated(self.shown), self._files().open_input_file(name) as file:
            return bytes(file.read())

    def write(self, name: str, data: bytes) -> None:
        """Write an object."""
        with (
            translated(self.shown),
            self._files().open_output_stream(name, buffer_size=1 << 20) as file,
        ):
            # In chunks: the handler takes no buffers of Arrow, which a longer write would be.
            for start in range(0, len(data), _CHUNK):
                file.write(data[start : start + _CHUNK])

    def sync_log(self, *names: str) -> None:
        """An object that was written is safe."""

    def retire(self, names: Sequence[str]) -> None:
        """Delta's log says since when."""

    def _files(self) -> PyFileSystem:
        if self._opened is None:
            self._opened = PyFileSystem(DeltaStorageHandler(self.uri, self.options))
        return self._opened


def store_place(uri: Path | str) -> StorePlace:
    """The place that a path or a URI names. Writes nothing.

    Raises:
        InputError: no library could open it.
    """
    text = str(uri)
    parts = urlsplit(text) if "://" in text else None
    if parts is None:
        return FolderPlace(uri)
    if parts.scheme != "file":
        return ObjectPlace(text)
    if parts.netloc not in ("", "localhost"):
        rule = f"names a file of the host {parts.netloc}"
        raise InputError("--store", text, rule, "write file:///PATH, or the path itself")
    return FolderPlace(unquote(text.split("://", maxsplit=1)[1].removeprefix("localhost")))


@contextmanager
def translated(shown: str) -> Iterator[None]:
    """The errors of files and of Delta Lake as an UnavailableError of one line.

    Raises:
        FileNotFoundError, TableNotFoundError, CommitFailedError: as they are.
    """
    try:
        yield
    except (FileNotFoundError, TableNotFoundError, CommitFailedError):
        raise
    except (OSError, DeltaError) as error:
        raise UnavailableError(f"sample store {shown}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    parts = " ".join(_COLOURS.sub(" ", str(error)).split())
    return _PASSWORD.sub("//", parts)[:_LONGEST_REASON]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(path: Path) -> None:
    """fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
