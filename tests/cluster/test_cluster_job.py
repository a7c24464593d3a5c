"""The demo plan as a Ray job on a cluster with token authentication: submitted, stopped, submitted again from changed source."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from deltalake import DeltaTable

from coordinator.plan import read_plan
from coordinator.store import SampleStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parent.parent.parent
RAY = Path(sys.executable).parent / "ray"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", ".*", "demo", "workspace", "datasets", "tests", "docs", "__pycache__")
CELLS = 550


class Cluster:
    """One head node, and the environment of its users."""

    def __init__(self, directory: Path) -> None:
        self.gcs, self.dashboard = free_port(), free_port()
        keep = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.env = {**keep, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}"}
        self.directory = directory

    def start(self) -> None:
        env = {name: value for name, value in self.env.items() if name != "RAY_ADDRESS"}
        head = ["--head", f"--port={self.gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard}", "--num-cpus=2"]
        head += [f"--dashboard-agent-listen-port={free_port()}"]  # its default belongs to whoever else runs Ray here
        done = subprocess.run(
            [RAY, "start", *head, f"--temp-dir={self.directory}", "--disable-usage-stats"], env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        """Only the processes of this head: `ray stop` would end every Ray on the machine."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"RAY_AUTH_TOKEN={self.env['RAY_AUTH_TOKEN']}".encode() in path.read_bytes():
                    os.kill(int(path.parent.name), 9)
            except OSError:
                continue

    def job(self, *words: str, limit_s: float = 120.0) -> str:
        deadline_s = monotonic() + 60
        while True:
            done = subprocess.run([RAY, "job", *words], env=self.env, capture_output=True, text=True, timeout=limit_s)
            if "No available agent to submit job" not in done.stderr or monotonic() > deadline_s:  # the head has only just started
                break
            sleep(1.0)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self, job: str) -> str:
        out = self.job("status", job).upper()
        return next(word for word in ("SUCCEEDED", "FAILED", "STOPPED", "RUNNING", "PENDING") if word in out)

    def wait(self, job: str, limit_s: float) -> str:
        deadline_s = monotonic() + limit_s
        while (status := self.status(job)) in ("RUNNING", "PENDING") and monotonic() < deadline_s:
            sleep(3.0)
        return status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Ray's sockets need a short path
    directory = Path("/tmp") / f"ray-{secrets.token_hex(4)}"
    made = Cluster(directory)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


def committed(workspace: Path) -> int:
    samples = workspace / "samples"
    return len(SampleStore.open(samples, create=False).committed) if DeltaTable.is_deltatable(str(samples)) else 0


def test_job_is_stopped_and_submitted_again_from_changed_source(cluster: Cluster, tmp_path: Path) -> None:
    source, workspace = tmp_path / "source", tmp_path / "workspace"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    assert read_plan(source / "examples" / "demo.toml").name == "demo"
    run = ["--", sys.executable, "-m", "coordinator", "run", "examples/demo.toml", "--workspace", str(workspace)]

    cluster.job("submit", "--working-dir", str(source), "--no-wait", "--submission-id", "first", *run)
    deadline_s = monotonic() + 90
    while committed(workspace) < 60:
        assert monotonic() < deadline_s, cluster.job("logs", "first")
        sleep(0.3)
    cluster.job("stop", "first")
    stopped_at = committed(workspace)
    assert 60 <= stopped_at < CELLS
    assert "stopped; start it again to go on" in cluster.job("logs", "first")

    edited = source / "agent" / "timing.py"
    edited.write_text(edited.read_text() + "\n# edited between two jobs\n")
    cluster.job("submit", "--working-dir", str(source), "--no-wait", "--submission-id", "second", *run)
    assert cluster.wait("second", 200) == "SUCCEEDED", cluster.job("logs", "second")
    ids = SampleStore.open(workspace / "samples", create=False).read()["cell_id"].to_pylist()
    assert len(ids) == len(set(ids)) == CELLS
    assert (workspace / "node" / "current.json").exists()


def test_relative_workspace_is_refused_inside_a_job(cluster: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    cluster.job(
        "submit", "--working-dir", str(source), "--no-wait", "--submission-id", "relative", "--",
        sys.executable, "-m", "coordinator", "run", "examples/demo.toml", "--workspace", "here",
    )  # fmt: skip
    assert cluster.wait("relative", 60) == "FAILED"
    said = " ".join(cluster.job("logs", "relative").split())
    assert "--workspace" in said
    assert "give an absolute path" in said
