"""A registry's own directory: one SQLite database and the files of its versions.

    DIR/mlflow.db       whole from its first moment: made under another name, then renamed
    DIR/artifacts/      RUN/artifacts/model.onnx and card.json
    DIR/.lock           held while the database is made, and by everyone who writes

It may be moved or copied as a whole. Knows nothing of MLflow: what fills a new database is handed in.
MLflow retries for 104 s on a database that it can't open, so whether it can is asked of SQLite first.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gemmcast.errors import InputError, WorkspaceError

BUSY_S = 20.0
UNUSABLE = "%?"
# in a database's path: SQLAlchemy unquotes and splits at them, MLflow does not


class Directory:
    """Where a registry without a server lives."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        if unusable := [letter for letter in UNUSABLE if letter in str(self.root)]:
            raise InputError("registry", str(self.root), f"MLflow can't keep a database at a path with {unusable[0]!r}", "name another directory")
        self.database = self.root / "mlflow.db"
        self.artifacts = self.root / "artifacts"

    def exists(self) -> bool:
        return self.database.is_file()

    def check(self) -> None:
        """Creates nothing. Raises InputError where no registry is, WorkspaceError where it can't be read."""
        if not self.exists():
            raise InputError("registry", str(self.root), "holds no registry (no mlflow.db)", "publish a model first, or name another directory")
        try:
            with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=rw", uri=True, timeout=BUSY_S)) as database:
                found = database.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('registered_models', 'model_versions')").fetchone()
        except sqlite3.Error as error:
            raise WorkspaceError(f"{self.database} can't be read ({error}): restore it from a copy, or publish into another directory") from None
        if found != (2,):
            raise InputError("registry", str(self.root), "mlflow.db is not MLflow's", "name another directory")

    def create(self, fill: Callable[[str], None]) -> None:
        """Make the database unless there is one; `fill` is given the URI of an empty one. Killed anywhere, it leaves nothing that is in the way."""
        if self.exists():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self.lock():
                if not self.exists():
                    self._make(fill)
        except OSError as error:
            raise WorkspaceError(f"registry {self.root} can't be created ({error.strerror or error}): name a directory that can be written") from None

    def _make(self, fill: Callable[[str], None]) -> None:
        for left_by_a_killed in self.root.glob(".new-*"):
            left_by_a_killed.unlink()
        # A new name each time: MLflow keeps a connection to each name for the life of the process.
        fresh = self.root / f".new-{uuid.uuid4().hex[:12]}.db"
        fresh.touch()
        fill(sqlite_uri(fresh))
        os.replace(fresh, self.database)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One writer at a time, over processes and threads; a killed holder lets go."""
        try:
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise WorkspaceError(f"registry {self.root} can't be written ({error.strerror}): run as a user who may write there") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def file(self, run_id: str, name: str) -> Path:
        """Where MLflow put a run's file, relative to where the directory is now."""
        return self.artifacts / run_id / "artifacts" / name


def sqlite_uri(database: Path) -> str:
    return f"sqlite:///{database}"
