"""Two nodes measure, one dies in the middle of a run: every cell is committed exactly once."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from coordinator.samples.store import SampleStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
CELLS = 100


EXPORTED = {
    "ray_gemmcast_run_active": 1.0,
    "ray_gemmcast_cells": float(CELLS),
    "ray_gemmcast_champion_version": 0.0,
}
"""Gauges of the run while both nodes measure."""


def gemmcasts(page: str) -> dict[str, list[float]]:
    """Metric of ours -> its values, one for each combination of labels."""
    values: dict[str, list[float]] = defaultdict(list)
    for line in page.splitlines():
        if line.startswith("ray_gemmcast_"):
            values[line.partition("{")[0]].append(float(line.rpartition(" ")[2]))
    return values


def check_metrics(cluster: Any, run: Any) -> None:
    """Ray's exporter has the metrics of the run, with its values."""
    values = gemmcasts(cluster.metrics())
    while len(values["ray_gemmcast_agent_busy_ratio"]) < 2:
        assert run.process.poll() is None, "the run has ended before its metrics were seen"
        sleep(0.2)
        values = gemmcasts(cluster.metrics())
    for name, value in EXPORTED.items():
        assert values[name] == [value], name
    assert sum(values["ray_gemmcast_rows_total"]) >= 1
    assert 0 < values["ray_gemmcast_cells_due"][0] < CELLS


def agents_with_rows(run: Any) -> set[str]:
    """The agents whose rows are committed."""
    if not run.committed():
        return set()
    table = SampleStore.open(run.workspace / "samples", create=False).read()
    return set(table["agent"].to_pylist())


def test_a_node_that_dies_leaves_its_cells_to_the_other(
    cluster: Any, start: Callable[..., Any], workspace: Path
) -> None:
    cluster.join()
    head, second = cluster.raylets()
    address = f"127.0.0.1:{cluster.gcs}"
    run = start(
        "--address",
        address,
        env={name: cluster.env[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")},
    )
    while len(agents_with_rows(run)) < 2:
        assert run.process.poll() is None, "the run has ended before both nodes measured"
        sleep(0.1)
    check_metrics(cluster, run)
    os.kill(second, signal.SIGKILL)
    result = run.result()
    assert result["complete"]
    assert Path(f"/proc/{head}").exists()
    table = SampleStore.open(workspace / "samples", create=False).read()
    ids = table["cell_id"].to_pylist()
    assert len(ids) == len(set(ids)) == CELLS
    # A node's death is no cell's doing.
    assert set(table["status"].to_pylist()) <= {"ok", "contended"}
