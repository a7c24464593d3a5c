"""A workspace: one directory with everything that a run leaves behind.

lock         held by the one process that writes here
samples/     the sample store (Delta Lake), unless a URI puts it elsewhere
registry/    model versions (MLflow: SQLite and files), unless a URI puts them elsewhere
node/        this node's model directory, which predictors follow
plan.json    the plan as it was resolved at the last run
report.html  what `report` made
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gemmcast.errors import InputError, WorkspaceError

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# set for the entrypoint of a `ray job submit`


def inside_job() -> bool:
    return JOB_VARIABLE in os.environ


class Workspace:
    """Paths and the lock.

    Raises:
        InputError: a relative path inside a Ray job, where the working directory is a cache that Ray deletes.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_absolute() and inside_job():
            raise InputError(
                "--workspace", str(path), "a relative path inside a Ray job lies in Ray's package cache, which is deleted", "give an absolute path"
            )
        self.path = path.resolve()

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def registry(self) -> Path:
        return self.path / "registry"

    @property
    def node(self) -> Path:
        return self.path / "node"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def must_exist(self) -> None:
        if not self.samples.exists():
            raise InputError("--workspace", str(self.path), "holds no samples", "run a plan there first: python -m coordinator run PLAN.toml")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For every writer. The lock ends with the process, however it ends."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"workspace {self.path} can't be made ({error.strerror}): name a directory that can be written") from None
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise WorkspaceError(
                    f"workspace {self.path} is in use by process {holder}: wait for it, stop it, or take another --workspace"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
