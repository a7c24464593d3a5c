"""Faults of a cluster of several nodes, on one machine: `pytest -m soak` runs them.

Each ends with every cell committed exactly once, or with one line and exit code 1.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from coordinator.samples.store import SampleStore
from tests.cluster.conftest import Run, head_options

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(900)]
Start = Callable[..., Run]
LIMIT_S = 300.0
RECONNECT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "30"}
"""Ray's own limit for a head that is gone; a run ends before it."""


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head with a CPU, and a second node."""
    made = Cluster(initialize_head=True, head_node_args=head_options())
    made.add_node(num_cpus=1)
    try:
        yield made
    finally:
        # Some of its processes are gone.
        with suppress(Exception):
            made.shutdown()


class Agents:
    """The agents of a run, seen through the command lines of their measuring children."""

    def __init__(self, workspace: Path) -> None:
        self._words = f"{workspace}/node"

    def pids(self) -> dict[str, int]:
        """Name -> process of the agent."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().decode().split("\0")
                if "agent.child" in words and self._words in words:
                    _, parent, name = words[words.index("agent.child") + 1 :][:3]
                    found[name] = int(parent)
        return found

    def signal_all(self, number: signal.Signals) -> None:
        for pid in self.pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@pytest.fixture
def agents(workspace: Path) -> Agents:
    return Agents(workspace)


@pytest.fixture
def run(nodes: Cluster, start: Start) -> Run:
    """Both nodes measure."""
    started = start("--address", nodes.address, "--without-token", env=RECONNECT, cells=400)
    started.wait_until(lambda: len(started.rows()) == 2)
    return started


def test_an_agent_that_is_stopped_does_not_hold_the_run(run: Run, agents: Agents) -> None:
    name, pid = next(iter(agents.pids().items()))
    os.kill(pid, signal.SIGSTOP)
    try:
        run.has_every_cell_once()
        record = (run.workspace / "run.json").read_text()
        assert name not in record, "a fault is that of a run that lasts"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_an_agent_that_is_continued_measures_again(run: Run, agents: Agents) -> None:
    name, pid = next(iter(agents.pids().items()))
    os.kill(pid, signal.SIGSTOP)
    run.wait_until(lambda: name in (run.workspace / "run.json").read_text())
    os.kill(pid, signal.SIGCONT)
    run.wait_until(lambda: name not in (run.workspace / "run.json").read_text())
    run.has_every_cell_once()


def test_all_agents_are_killed_at_once_and_again(run: Run, agents: Agents) -> None:
    for _ in range(3):
        before = run.committed()
        agents.signal_all(signal.SIGKILL)
        run.wait_until(lambda before=before: run.committed() > before)  # type: ignore[misc]
    run.has_every_cell_once()


def test_a_node_leaves_and_another_one_joins(nodes: Cluster, run: Run, agents: Agents) -> None:
    before = set(agents.pids())
    (second,) = nodes.worker_nodes
    nodes.remove_node(second, allow_graceful=False)
    nodes.add_node(num_cpus=1)
    run.wait_until(lambda: bool(set(run.rows()) - before))
    run.has_every_cell_once()


def test_a_head_that_is_gone_ends_the_run_with_one_line(nodes: Cluster, run: Run) -> None:
    nodes.head_node.kill_gcs_server(check_alive=False)
    _, err = run.process.communicate(timeout=LIMIT_S)
    assert run.process.returncode == 1
    last = err.splitlines()[-1]
    assert last.startswith("error: the head of the Ray cluster has not answered for ")
    assert last.endswith("start the head, and the same command again to go on")
    ids = SampleStore.open(run.workspace / "samples", create=False).read()["cell_id"]
    assert len(ids) == len(set(ids.to_pylist())) > 0
