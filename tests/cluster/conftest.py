"""Real processes: a coordinator as a user starts it, Ray, agents, measuring children."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar
from urllib.request import urlopen

import pytest
from deltalake import DeltaTable

from coordinator.samples.store import SampleStore

ROOT = Path(__file__).resolve().parent.parent.parent
RAY = Path(sys.executable).parent / "ray"
PLAN = """
name = "killed"
seed = 11
[devices]
DEVICES
[measure]
burst_s = BURST
[[sweep]]
family = "blas"
kernel = "numpy"
shapes = { sample = CELLS, min = 16, max = 500 }
knobs = { cpu_threads = [1] }
"""
CELLS = 100
BURST_S = 0.1
"""So long that no run ends before a test on a busy machine has done what it does meanwhile."""
LIMIT_S = 600.0
"""Longest wait for anything: far more than it takes on a machine that others use too."""


@dataclass(frozen=True)
class Run:
    """One `python -m coordinator run`."""

    process: subprocess.Popen[str]
    workspace: Path

    def committed(self) -> int:
        samples = self.workspace / "samples"
        if not DeltaTable.is_deltatable(str(samples)):
            return 0
        return len(SampleStore.open(samples, create=False).committed)

    def wait_for(self, cells: int, limit_s: float = LIMIT_S) -> None:
        deadline_s = monotonic() + limit_s
        while self.committed() < cells:
            assert self.process.poll() is None, self.process.communicate()
            assert monotonic() < deadline_s, f"{self.committed()} cells after {limit_s} s"
            sleep(0.05)

    def child(self) -> int:
        """The measuring child of this run's agent."""
        return wait_for_pid(f"{self.workspace}/node")

    def rows(self) -> Counter[str]:
        """Agent -> its committed rows."""
        if not self.committed():
            return Counter()
        samples = SampleStore.open(self.workspace / "samples", create=False)
        return Counter(samples.columns("agent")["agent"].to_pylist())

    def wait_until(self, is_so: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Until something is so, while the run lasts."""
        deadline_s = monotonic() + limit_s
        while not is_so():
            assert self.process.poll() is None, self.process.communicate()
            assert monotonic() < deadline_s
            sleep(0.2)

    def has_every_cell_once(self) -> None:
        """Wait for the end of the run, and hold its store against its result."""
        result = self.result()
        assert result["complete"]
        table = SampleStore.open(self.workspace / "samples", create=False).read()
        ids = table["cell_id"].to_pylist()
        assert len(ids) == len(set(ids)) == result["cells"]
        assert set(table["status"].to_pylist()) <= {"ok", "contended"}

    def has_no_cell_twice_when_interrupted(self) -> None:
        """Ctrl-C. For plans that are too long to wait for, on whatever machine."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 130, err
        ids = SampleStore.open(self.workspace / "samples", create=False).columns("cell_id")
        cells = ids["cell_id"].to_pylist()
        assert len(cells) == len(set(cells))

    def result(self, limit_s: float = LIMIT_S) -> dict[str, object]:
        out, err = self.process.communicate(timeout=limit_s)
        assert self.process.returncode == 0, err
        # Nothing stands before it, whatever Ray has to say of processes that died.
        values: dict[str, object] = json.loads(out)
        return values


def wait_for_pid(words: str, limit_s: float = LIMIT_S) -> int:
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
    started: list[subprocess.Popen[str]] = []

    def start_run(
        *options: str,
        env: dict[str, str] | None = None,
        cells: int = CELLS,
        devices: str = "",
        inside: Sequence[str] = (),
    ) -> Run:
        values = {"BURST": str(BURST_S), "CELLS": str(cells), "DEVICES": devices}
        text = PLAN
        for name, value in values.items():
            text = text.replace(name, value)
        plan.write_text(text)
        command = [
            *inside,
            sys.executable,
            "-m",
            "coordinator",
            "run",
            str(plan),
            "--workspace",
            str(workspace),
            "--no-train",
            "--json",
            *options,
        ]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**without_ray(os.environ), **(env or {})},
        )
        started.append(process)
        return Run(process, workspace)

    yield start_run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def without_ray(env: object) -> dict[str, str]:
    """No cluster of another test is joined; a busy machine may take its time to start one."""
    kept = {name: value for name, value in dict(env).items() if not name.startswith("RAY_")}  # type: ignore[call-overload]
    return {**kept, "RAY_raylet_start_wait_time_s": "300"}


class Cluster:
    """One head node, and the environment of its users."""

    def __init__(self, directory: Path) -> None:
        self.gcs, self.dashboard = free_port(), free_port()
        self.env = {
            **without_ray(os.environ),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # `ray job stop` kills after 3 s; on a busy machine the last line may take longer.
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            # Ten seconds are long for a test.
            "RAY_metrics_report_interval_ms": "2000",
            "RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
        }
        self.directory = directory

    def start(self) -> None:
        env = {name: value for name, value in self.env.items() if name != "RAY_ADDRESS"}
        head = [
            "--head",
            f"--port={self.gcs}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard}",
            "--num-cpus=2",
        ]
        head += [
            f"--dashboard-agent-listen-port={free_port()}"
        ]  # its default belongs to whoever else runs Ray here
        done = subprocess.run(
            [RAY, "start", *head, f"--temp-dir={self.directory}", "--disable-usage-stats"],
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def join(self) -> None:
        """A second node, on this machine."""
        env = {name: value for name, value in self.env.items() if name != "RAY_ADDRESS"}
        words = [
            f"--address=127.0.0.1:{self.gcs}",
            "--num-cpus=1",
            f"--dashboard-agent-listen-port={free_port()}",
            "--disable-usage-stats",
        ]
        done = subprocess.run(
            [RAY, "start", *words], env=env, capture_output=True, text=True, timeout=LIMIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def metrics(self) -> str:
        """What Prometheus would read: of every port that the head lists."""
        listed = self.directory / "prom_metrics_service_discovery.json"
        (group,) = json.loads(listed.read_text())
        pages = []
        for target in group["targets"]:
            with contextlib.suppress(OSError):
                pages.append(urlopen(f"http://{target}/metrics", timeout=60).read().decode())
        return "".join(pages)

    def raylets(self) -> list[int]:
        """The node processes, the head's first."""
        return [
            pid
            for pid in sorted(self._pids())
            if "raylet/raylet"
            in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0].decode()
        ]

    def stop(self) -> None:
        """Only the processes of this head: `ray stop` would end every Ray on the machine."""
        for pid in self._pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _pids(self) -> list[int]:
        pids = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"RAY_AUTH_TOKEN={self.env['RAY_AUTH_TOKEN']}".encode() in path.read_bytes():
                    pids.append(int(path.parent.name))
        return pids

    def job(self, *words: str, limit_s: float = LIMIT_S) -> str:
        deadline_s = monotonic() + LIMIT_S
        while True:
            done = subprocess.run(
                [RAY, "job", *words], env=self.env, capture_output=True, text=True, timeout=limit_s
            )
            if (
                "No available agent to submit job" not in done.stderr or monotonic() > deadline_s
            ):  # the head has only just started
                break
            sleep(1.0)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self, job: str) -> str:
        out = self.job("status", job).upper()
        return next(
            word for word in ("SUCCEEDED", "FAILED", "STOPPED", "RUNNING", "PENDING") if word in out
        )

    def wait(self, job: str, limit_s: float) -> str:
        deadline_s = monotonic() + limit_s
        while (status := self.status(job)) in ("RUNNING", "PENDING") and monotonic() < deadline_s:
            sleep(3.0)
        return status


C = TypeVar("C", bound=Cluster)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def head_options(**others: object) -> dict[str, object]:
    """Of a head that this process starts; Ray leaves a socket open if its usual port is taken."""
    return {"num_cpus": 1, "dashboard_port": free_port(), **others}


@contextlib.contextmanager
def running(kind: type[C]) -> Iterator[C]:
    """A cluster that has started, in a folder of its own; both are gone afterwards."""
    # Ray's sockets need a short path.
    directory = Path("/tmp") / f"ray-{secrets.token_hex(4)}"
    made = kind(directory)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(Cluster) as made:
        yield made
