"""`train --compare`: every candidate on the same unseen shapes, the winner within the latency bound, and nothing published."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coordinator.samples.store import Batch, SampleStore
from costmodel import alternatives as module
from costmodel.alternatives import CANDIDATES, COMPARED, DEFAULT, TIMES, Analytical, Plain, compare
from costmodel.dataset import Dataset, dataset
from costmodel.model import CostModel
from costmodel.terms import SHOWN, terms
from costmodel.train import open_session
from gemmcast.query import AT

Coordinator = Callable[..., subprocess.CompletedProcess[str]]
PLAIN = [name for name in CANDIDATES if name != DEFAULT]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folds and one network."""
    monkeypatch.setattr("costmodel.alternatives.FOLDS", 2)
    monkeypatch.setattr("costmodel.evaluate.crossval.FOLDS", 2)
    monkeypatch.setattr("costmodel.alternatives.CostModel", partial(CostModel, members=1))


@pytest.fixture(scope="module")
def data(power_samples: pa.Table) -> Dataset:
    return dataset(power_samples)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, power_samples: pa.Table) -> Path:
    path = tmp_path_factory.mktemp("to compare") / "workspace"
    SampleStore.open(path / "samples", create=True).append([Batch("hand", 1, power_samples)])
    return path


def test_every_candidate_is_printed_and_nothing_is_published(coordinator: Coordinator, workspace: Path) -> None:
    before = {path for path in workspace.rglob("*") if "samples" not in path.parts}
    ended = coordinator("train", "--compare", "--workspace", workspace)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    named = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert [name.removesuffix(" *") for name in named] == list(CANDIDATES)
    assert sum(name.endswith(" *") for name in named) == 1 and "within 200 us a question" in lines[-1]
    assert {path for path in workspace.rglob("*") if "samples" not in path.parts} == before
    assert not (workspace / "registry").exists() and not (workspace / "node").exists()


def test_too_few_samples_are_refused_in_a_line(coordinator: Coordinator, workspace: Path) -> None:
    ended = coordinator("train", "--compare", "--min-rows", 1000, "--workspace", workspace)
    assert (ended.returncode, ended.stdout) == (2, "") and "a model needs 1000 rows" in ended.stderr


def test_json_has_all_of_it(coordinator: Coordinator, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: CANDIDATES[name] for name in ("boosting", "analytical fit")}
    monkeypatch.setattr("costmodel.alternatives.CANDIDATES", few)
    ended = coordinator("train", "--compare", "--json", "--workspace", workspace)
    found = json.loads(ended.stdout.splitlines()[-1])
    assert set(found["candidates"]) == set(few) and found["winner"] in few and found["default"] == DEFAULT
    for of in found["candidates"].values():
        assert set(of["errors"]) == set(COMPARED) and all(error["rows"] == 240 for error in of["errors"].values())
        assert of["mean_error"] == pytest.approx(np.mean([error["mape"] for error in of["errors"].values()]))
        assert of["size_mib"] > 0 and 0 < of["single_us"] < of["batch_us"] and of["fit_s"] > 0


def test_the_winner_has_the_smallest_error_within_the_bound(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[str, Any] = {"good": (3.0, 900.0), "middling": (5.0, 150.0), "poor": (9.0, 10.0)}
    monkeypatch.setattr(module, "CANDIDATES", {name: (lambda name=name: name) for name in figures})
    monkeypatch.setattr(module, "_measured", lambda make, data, done: dict(zip(("mean_error", "single_us"), figures[make()], strict=True)))
    assert compare(data)["winner"] == "middling"
    monkeypatch.setattr(module, "MAX_LATENCY_US", 1000.0)
    assert compare(data)["winner"] == "good"
    monkeypatch.setattr(module, "MAX_LATENCY_US", 1.0)
    assert compare(data)["winner"] is None


def test_progress_is_told_fold_by_fold(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATES", {"analytical fit": CANDIDATES["analytical fit"]})
    told: list[str] = []
    compare(data, told.append)
    assert told == ["analytical fit"] * 2


@pytest.mark.parametrize("name", PLAIN)
def test_the_graphs_answer_as_scikit_learn_does(data: Dataset, name: str) -> None:
    candidate = CANDIDATES[name]()
    candidate.fit(data)
    assert isinstance(candidate, Plain) and set(candidate.steps) == set(COMPARED)
    for step in candidate.steps["energy_mj"]:
        for graph, columns in step.graphs(data.queries):
            session = open_session(graph)
            said = session.run(None, {session.get_inputs()[0].name: columns})[0][:, 0].astype(np.float64)
            want = step.factor(data.queries)
            assert np.median(np.abs((said if isinstance(step, Analytical) else np.exp(said)) / want - 1)) < 1e-5


def test_the_analytical_fit_finds_what_the_times_explain(data: Dataset) -> None:
    times_us = dict(
        zip(TIMES, np.exp(SHOWN.of(np, terms(data.queries))[:, [SHOWN.names.index(name) for name in TIMES]].T.astype(np.float64)), strict=True)
    )
    measured = 3 * times_us["own_busy_us"] + 0.5 * times_us["dram_a_us"] + times_us["empty_launch_us"]
    fit = Analytical("runtime_us")
    fit.fit(data.queries, measured, np.ones(len(data)))
    assert np.max(np.abs(fit.factor(data.queries) / measured - 1)) < 1e-3


def test_a_larger_problem_is_never_cheaper_to_the_monotone_one(data: Dataset) -> None:
    candidate = CANDIDATES["boosting, monotone"]()
    candidate.fit(data)
    small = data.queries
    for name in ("m", "n", "k", "batch"):
        large = small.copy()
        large[:, AT[name]] *= 3
        before, after = candidate.predict(small), candidate.predict(large)
        assert all((after[target] >= before[target]).all() for target in ("runtime_us", "energy_mj"))
    assert (candidate.predict(large)["runtime_us"] > 0).all()


def test_what_was_not_read_is_not_compared(cpu_samples: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATES", {"boosting": CANDIDATES["boosting"]})
    assert set(compare(dataset(cpu_samples))["candidates"]["boosting"]["errors"]) == {"runtime_us"}
