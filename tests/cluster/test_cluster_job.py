"""A plan as a Ray job: submitted, stopped, submitted again from changed source."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from deltalake import DeltaTable

from coordinator.plan.schema import read_plan
from coordinator.samples.store import SampleStore
from costmodel.train import TrainedModel
from gemmcast import modeldir
from registry.registry import Registry

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parent.parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".*", "demo", "workspace", "datasets", "tests", "docs", "build", "node_modules", "__pycache__"
)
PLAN = """
name = "job"

[measure]
burst_s = 1.0

[train]
every = 1000
min_rows = 20

[[sweep]]
family = "blas"
kernel = "numpy"
shapes = { sample = 160, min = 16, max = 256 }
knobs = { cpu_threads = [1] }
"""
"""Small GEMMs on one thread: processes beside them seldom cost a reading. The first job takes
minutes, so that it does not end before it is stopped; the second is the same with short bursts."""
CELLS = 160
BEFORE_THE_STOP = 5
LIMIT_S = 500.0


def committed(workspace: Path) -> int:
    samples = workspace / "samples"
    return (
        len(SampleStore.open(samples, create=False).committed)
        if DeltaTable.is_deltatable(str(samples))
        else 0
    )


def test_job_is_stopped_and_submitted_again_from_changed_source(
    cluster: Any, tmp_path: Path, candidate: TrainedModel
) -> None:
    source, workspace = tmp_path / "source", tmp_path / "workspace"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    plan = source / "examples" / "job.toml"
    plan.write_text(PLAN)
    assert read_plan(plan).name == "job"
    run = [
        "--",
        sys.executable,
        "-m",
        "coordinator",
        "run",
        "examples/job.toml",
        "--workspace",
        str(workspace),
    ]

    cluster.job(
        "submit", "--working-dir", str(source), "--no-wait", "--submission-id", "first", *run
    )
    deadline_s = monotonic() + LIMIT_S
    while committed(workspace) < BEFORE_THE_STOP:
        assert monotonic() < deadline_s, cluster.job("logs", "first")
        sleep(0.3)
    cluster.job("stop", "first")
    stopped_at = committed(workspace)
    assert BEFORE_THE_STOP <= stopped_at < CELLS
    assert "stopped; start it again to go on" in cluster.job("logs", "first")

    # Not every model passes the gate that is made from rows of a busy machine.
    registry = Registry(workspace / "registry")
    registry.promote(registry.publish(candidate.model, candidate.card).number)
    edited = source / "agent" / "timing.py"
    edited.write_text(edited.read_text() + "\n# edited between two jobs\n")
    plan.write_text(PLAN.replace("burst_s = 1.0", "burst_s = 0.02"))
    as_json = json.dumps({"env_vars": {"GEMMCAST_LOG": "json"}})
    second = ["--submission-id", "second", "--runtime-env-json", as_json]
    cluster.job("submit", "--working-dir", str(source), "--no-wait", *second, *run)
    assert cluster.wait("second", LIMIT_S) == "SUCCEEDED", cluster.job("logs", "second")
    ids = SampleStore.open(workspace / "samples", create=False).read()["cell_id"].to_pylist()
    assert len(ids) == len(set(ids)) == CELLS
    champion = registry.champion_number()
    assert (workspace / "node" / modeldir.CURRENT).exists(), cluster.job("logs", "second")
    assert modeldir.read_current(workspace / "node").version == champion
    log = cluster.job("logs", "second")
    assert f"Model {champion} is on 1 of 1 nodes." in log
    progress = [line for line in log.splitlines() if '"event": "progress"' in line]
    assert json.loads(progress[-1])["fields"]["cells"] == CELLS


def test_relative_workspace_is_refused_inside_a_job(cluster: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    cluster.job(
        "submit",
        "--working-dir",
        str(source),
        "--no-wait",
        "--submission-id",
        "relative",
        "--",
        sys.executable,
        "-m",
        "coordinator",
        "run",
        "examples/demo.toml",
        "--workspace",
        "here",
    )
    assert cluster.wait("relative", LIMIT_S) == "FAILED"
    log = " ".join(cluster.job("logs", "relative").split())
    assert "--workspace" in log
    assert "give an absolute path" in log
