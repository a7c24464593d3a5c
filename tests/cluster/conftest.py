"""Real processes: a coordinator as a user starts it, its Ray, its agents, their measuring children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest
from deltalake import DeltaTable

from coordinator.store import SampleStore

ROOT = Path(__file__).resolve().parent.parent.parent
PLAN = """
name = "killed"
seed = 11
[measure]
burst_s = 0.02
[[sweep]]
family = "blas"
kernel = "numpy"
shapes = { sample = 110, min = 16, max = 500 }
knobs = { threads = [1, 2] }
"""


@dataclass(frozen=True)
class Run:
    """One `python -m coordinator run`."""

    process: subprocess.Popen[str]
    workspace: Path

    def committed(self) -> int:
        samples = self.workspace / "samples"
        return len(SampleStore.open(samples, create=False).committed) if DeltaTable.is_deltatable(str(samples)) else 0

    def wait_for(self, cells: int, limit_s: float = 60.0) -> None:
        deadline_s = monotonic() + limit_s
        while self.committed() < cells:
            assert self.process.poll() is None, self.process.communicate()
            assert monotonic() < deadline_s, f"{self.committed()} cells after {limit_s} s"
            sleep(0.05)

    def child(self) -> int:
        """The measuring child of this run's agent."""
        return wait_for_pid(f'"model_dir": "{self.workspace}/node"')

    def result(self, limit_s: float = 120.0) -> dict[str, object]:
        out, err = self.process.communicate(timeout=limit_s)
        assert self.process.returncode == 0, err
        found: dict[str, object] = json.loads(out.splitlines()[-1])
        return found


def wait_for_pid(words: str, limit_s: float = 30.0) -> int:
    """The process `agent.child` whose command line has these words."""
    deadline_s = monotonic() + limit_s
    while monotonic() < deadline_s:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if "agent.child" in line and words in line:
                return int(path.parent.name)
        sleep(0.05)
    raise AssertionError(f"no measuring child with {words}")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def start(tmp_path: Path, workspace: Path) -> Iterator[object]:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    started: list[subprocess.Popen[str]] = []

    def start_run(*options: str) -> Run:
        command = [sys.executable, "-m", "coordinator", "run", str(plan), "--workspace", str(workspace), "--no-train", "--json", *options]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=without_ray(os.environ))
        started.append(process)
        return Run(process, workspace)

    yield start_run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def without_ray(env: object) -> dict[str, str]:
    """So that no cluster of another test is joined."""
    return {name: value for name, value in dict(env).items() if not name.startswith("RAY_")}  # type: ignore[call-overload]
