"""A registry's own directory: one SQLite database and the files of its versions.

    DIR/mlflow.db       whole from its first moment: made under another name, then renamed
    DIR/artifacts/      RUN/artifacts/model.onnx and card.json
    DIR/.lock           held while the database is made, and by every writer

The directory may be moved or copied as a whole. Knows nothing of MLflow: the caller fills a new
database. MLflow retries for 104 s on a database that it cannot open, so `check` opens it first.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from gemmcast.errors import InputError, WorkspaceError
from gemmcast.plainpath import is_plain, link_to, resolved
from registry.database import RegistryView, viewed


class RegistryDirectory:
    """Where a registry without a server lies."""

    def __init__(self, root: Path) -> None:
        self.root = resolved(root, "registry")
        self.database = self.root / "mlflow.db"
        self.artifacts = self.root / "artifacts"

    @cached_property
    def uri(self) -> str:
        """The database as SQLAlchemy names it."""
        return _sqlite_uri(self._plain_root / self.database.name)

    @cached_property
    def _plain_root(self) -> Path:
        """A name of the directory that SQLAlchemy and MLflow read alike."""
        return self.root if is_plain(self.root) else link_to(self.root, "registry")

    def exists(self) -> bool:
        """Whether the directory has a database."""
        return self.database.is_file()

    def check(self) -> None:
        """Open the database; creates nothing. Raises as `viewed`."""
        with self.viewed():
            return

    @contextmanager
    def viewed(self) -> Iterator[RegistryView]:
        """Look into the database; creates nothing.

        Raises:
            InputError: there is no registry here.
            WorkspaceError: the database cannot be read.
        """
        if not self.exists():
            way_out = "publish a model first, or name another directory"
            rule = "holds no registry (no mlflow.db)"
            raise InputError("registry", str(self.root), rule, way_out)
        with viewed(self.database) as view:
            if not view.is_registry():
                rule = "mlflow.db is not MLflow's"
                raise InputError("registry", str(self.root), rule, "name another directory")
            yield view

    def check_writable(self) -> None:
        """Whether a version could be written; creates nothing. Raises WorkspaceError if not."""
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            way_out = "name a directory that can be written"
            raise WorkspaceError(f"registry {self.root} can't be written: {way_out}")

    def create(self, fill: Callable[[str], None]) -> None:
        """Make the database unless there is one. A process killed here leaves nothing in the way.

        Args:
            fill: writes the tables into the empty database at a URI.
        """
        if self.exists():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self.lock():
                if not self.exists():
                    self._make(fill)
        except OSError as error:
            reason = error.strerror or error
            way_out = "name a directory that can be written"
            message = f"registry {self.root} can't be created ({reason}): {way_out}"
            raise WorkspaceError(message) from None

    def _make(self, fill: Callable[[str], None]) -> None:
        for left_by_a_killed_process in self.root.glob(".new-*"):
            left_by_a_killed_process.unlink()
        # A new name each time: MLflow keeps a connection to each name for the life of the process.
        fresh = self.root / f".new-{uuid.uuid4().hex[:12]}.db"
        fresh.touch()
        fill(_sqlite_uri(self._plain_root / fresh.name))
        os.replace(fresh, self.database)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One writer at a time, over processes and threads; the lock of a killed process ends."""
        lock = FileLock(self.root / ".lock", poll_interval=0.02)
        try:
            lock.acquire()
        except OSError as error:
            way_out = "run as a user who may write there"
            message = f"registry {self.root} can't be written ({error.strerror}): {way_out}"
            raise WorkspaceError(message) from None
        try:
            yield
        finally:
            lock.release()

    def file(self, run_id: str, name: str) -> Path:
        """Where MLflow put a file of a run, relative to where the directory is now."""
        return self.artifacts / run_id / "artifacts" / name


def _sqlite_uri(database: Path) -> str:
    return f"sqlite:///{database}"
