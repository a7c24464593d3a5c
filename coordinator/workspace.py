"""A workspace: one directory with everything that a run leaves behind.

lock         held by the one process that writes here
holder       who that is
samples/     the sample store (Delta Lake), unless a URI puts it elsewhere; it has a lock of its own
registry/    model versions (MLflow: SQLite and files), unless a URI puts them elsewhere
kept/        models that the registry refused, until `python -m registry publish FILE`
node/        this node's model directory, which predictors follow
plan.json    the plan as it was resolved at the last run
nodes.json   which agent took which model version, in the last run
run.json     which agents wait, and what the last run left
live.json    the run as it is now, or as it ended (coordinator/fleet/live.py)
health.json  which boards are not well, and were not (coordinator/health/record.py)
health/      the rows of each health check
report.html  what `report` made
ask.html     the page that asks its model, beside it
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coordinator.holder import Holder, held
from gemmcast.errors import InputError, WorkspaceError
from gemmcast.plainpath import resolved

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set for the entrypoint of a `ray job submit`."""


def inside_job() -> bool:
    """Whether this process is a Ray job."""
    return JOB_VARIABLE in os.environ


class Workspace:
    """Paths and the lock.

    Raises:
        InputError: a relative path inside a Ray job: the working directory of a job is deleted. Or
            a name that no library can open.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_absolute() and inside_job():
            rule = "a relative path inside a Ray job lies in Ray's package cache, which is deleted"
            raise InputError("--workspace", str(path), rule, "give an absolute path")
        self.path = resolved(path, "--workspace")

    @property
    def samples(self) -> Path:
        """The sample store."""
        return self.path / "samples"

    @property
    def registry(self) -> Path:
        """The registry of model versions."""
        return self.path / "registry"

    @property
    def node(self) -> Path:
        """The model directory of this node."""
        return self.path / "node"

    @property
    def kept(self) -> Path:
        """Models that the registry refused."""
        return self.path / "kept"

    @property
    def plan(self) -> Path:
        """The resolved plan of the last run."""
        return self.path / "plan.json"

    @property
    def nodes(self) -> Path:
        """Which agent took which model version (coordinator/fleet/delivery.py)."""
        return self.path / "nodes.json"

    @property
    def run(self) -> Path:
        """Which agents wait, and what stays due (coordinator/fleet/record.py)."""
        return self.path / "run.json"

    @property
    def live(self) -> Path:
        """The run as it is now (coordinator/fleet/live.py)."""
        return self.path / "live.json"

    @property
    def health(self) -> Path:
        """What is known of the boards (coordinator/health/record.py)."""
        return self.path / "health.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    def must_exist(self) -> None:
        """Raise InputError if there are no samples."""
        if not self.samples.exists():
            way_out = "run a plan there first: python -m coordinator run PLAN.toml"
            raise InputError("--workspace", str(self.path), "holds no samples", way_out)

    def measure_settings(self) -> Mapping[str, object] | None:
        """The [measure] table of the last run; None where nothing was run.

        Raises:
            InputError: plan.json is damaged.
        """
        if not self.plan.is_file():
            return None
        try:
            settings: Mapping[str, object] = json.loads(self.plan.read_bytes())["measure"]
        except (ValueError, KeyError, TypeError, RecursionError):
            rule = "was not written by a run"
            raise InputError("plan.json", str(self.plan), rule, "delete it") from None
        return settings

    def is_held(self) -> bool:
        """Whether a process writes here now, as far as this host can tell."""
        try:
            holder = Holder.from_json((self.path / "holder").read_text())
        except (OSError, UnicodeDecodeError):
            return False
        return holder is not None and not holder.has_died()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one writer. The lock ends with the process, however it ends.

        Raises:
            WorkspaceError: another process writes here, or the directory can't be made.
        """
        self._make()
        note, place = self.path / "holder", f"workspace {self.path}"
        way_out = "wait for it, stop it, or take another --workspace"
        with held(self.path / "lock", note, Holder.here(), place=place, way_out=way_out):
            yield

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            rule = f"workspace {self.path} can't be made ({error.strerror})"
            raise WorkspaceError(f"{rule}: name a directory that can be written") from None
