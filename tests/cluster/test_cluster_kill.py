"""kill -9 of each process in the middle of a run: every cell is committed exactly once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from coordinator.samples.store import SampleStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
CELLS = 100
STOP_LIMIT_S = 20.0
"""Ten times what a stop takes at most on a machine with nothing else to do."""
Start = Callable[..., Any]


def every_cell_once(workspace: Path) -> None:
    table = SampleStore.open(workspace / "samples", create=False).read()
    ids = table["cell_id"].to_pylist()
    assert len(ids) == len(set(ids)) == CELLS
    assert len(set(table["sample_id"].to_pylist())) == CELLS
    # a neighbour on the test machine may cost a cell its reading, a kill may not
    assert set(table["status"].to_pylist()) <= {"ok", "contended"}


def test_killed_child_and_killed_agent(start: Start, workspace: Path) -> None:
    run = start()
    run.wait_for(20)
    first = run.child()
    os.kill(first, signal.SIGKILL)
    run.wait_for(run.committed() + 20)
    second = run.child()
    assert second != first
    agent = int(Path(f"/proc/{second}/stat").read_text().rpartition(")")[2].split()[1])
    assert "ray::Agent" in Path(f"/proc/{agent}/cmdline").read_text()
    os.kill(agent, signal.SIGKILL)
    result = run.result()
    assert result["complete"]
    assert result["done"] == CELLS
    every_cell_once(workspace)
    # the child died with its agent
    assert not Path(f"/proc/{second}").exists()


def test_terminated_then_killed_coordinator_goes_on(start: Start, workspace: Path) -> None:
    run = start()
    run.wait_for(20)
    signalled_s = monotonic()
    run.process.send_signal(signal.SIGTERM)
    run.process.communicate(timeout=STOP_LIMIT_S)
    assert monotonic() - signalled_s < STOP_LIMIT_S
    assert run.process.returncode == 130
    after_term = run.committed()
    assert 20 <= after_term < CELLS

    run = start()
    run.wait_for(after_term + 20)
    run.process.send_signal(signal.SIGKILL)
    run.process.communicate(timeout=STOP_LIMIT_S)
    after_kill = run.committed()
    assert after_term + 20 <= after_kill < CELLS

    result = start().result()
    assert result["complete"]
    assert result["committed_now"] == CELLS - after_kill
    every_cell_once(workspace)


def test_a_second_coordinator_is_refused(start: Start, workspace: Path) -> None:
    run = start()
    run.wait_for(1)
    other = start()
    _, err = other.process.communicate(timeout=600)
    assert other.process.returncode == 2
    assert f"is in use by process {run.process.pid}" in err.replace("\n", " ")
    run.process.send_signal(signal.SIGINT)
    run.process.communicate(timeout=STOP_LIMIT_S)
    assert run.process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_ray_starts_ends_it_as_quickly(
    start: Start, workspace: Path, number: signal.Signals
) -> None:
    run = start()
    deadline_s = monotonic() + 600
    while not (workspace / "samples").exists():  # made just before Ray is started
        assert monotonic() < deadline_s
        sleep(0.02)
    sleep(0.5)
    signalled_s = monotonic()
    run.process.send_signal(number)
    run.process.communicate(timeout=STOP_LIMIT_S)
    assert monotonic() - signalled_s < STOP_LIMIT_S
    assert run.process.returncode == 130
    assert run.committed() == 0
