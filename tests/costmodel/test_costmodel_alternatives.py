"""`coordinator compare`: every kind of model on the same new shapes, and nothing published."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from coordinator.samples.store import SampleStore
from costmodel import alternatives as module
from costmodel.alternatives import Figures, compare, winner
from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.metrics import COMPARED
from costmodel.model import CostModel
from costmodel.model_kinds import DEFAULT, MODEL_KINDS, TIMES, Analytical, Plain
from costmodel.onnx_session import open_session
from costmodel.terms import QUANTITIES, terms
from gemmcast.query import AT

Coordinator = Callable[..., subprocess.CompletedProcess[str]]
PLAIN = [name for name in MODEL_KINDS if name != DEFAULT]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folds, one small network and few trees."""
    monkeypatch.setattr(module, "FOLDS", 2)
    monkeypatch.setattr("costmodel.evaluate.groups.FOLDS", 2)
    brief = partial(CostModel, members=1, steps=300, iterations=20)
    monkeypatch.setattr("costmodel.model_kinds.CostModel", brief)


@pytest.fixture(scope="module")
def data(power_samples: pa.Table) -> TrainingSet:
    return training_set(power_samples)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, power_samples: pa.Table) -> Path:
    path = tmp_path_factory.mktemp("to compare") / "workspace"
    store = SampleStore.open(path / "samples", create=True)
    store.append([power_samples])
    return path


def _files_beside_samples(workspace: Path) -> set[Path]:
    return {path for path in workspace.rglob("*") if "samples" not in path.parts}


def test_every_kind_is_printed_and_nothing_is_published(
    coordinator: Coordinator, workspace: Path
) -> None:
    before = _files_beside_samples(workspace)
    ended = coordinator("compare", "--workspace", workspace)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    names = [re.split(r"\s{2,}", line.strip())[0] for line in lines]
    names = [name for name in names if name.removesuffix(" *") in MODEL_KINDS]
    assert [name.removesuffix(" *") for name in names] == list(MODEL_KINDS)
    assert sum(name.endswith(" *") for name in names) == 1
    assert re.search(r"at most \d+ us for one query", lines[-1])
    assert _files_beside_samples(workspace) == before
    assert not (workspace / "registry").exists()
    assert not (workspace / "node").exists()


def test_too_few_samples_are_refused_in_a_line(coordinator: Coordinator, workspace: Path) -> None:
    ended = coordinator("compare", "--min-rows", 1000, "--workspace", workspace)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "a model needs 1000 rows" in ended.stderr


def test_json_has_all_of_it(
    coordinator: Coordinator, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: MODEL_KINDS[name] for name in ("boosting", "analytical fit")}
    monkeypatch.setattr(module, "MODEL_KINDS", few)
    ended = coordinator("compare", "--json", "--workspace", workspace)
    comparison = json.loads(ended.stdout.splitlines()[-1])
    assert set(comparison["candidates"]) == set(few)
    assert comparison["winner"] in few
    assert comparison["default"] == DEFAULT
    for figures in comparison["candidates"].values():
        errors = figures["errors"]
        assert set(errors) == set(COMPARED)
        assert all(error["rows"] == 240 for error in errors.values())
        mean_error = np.mean([error["mape"] for error in errors.values()])
        assert figures["mean_error"] == pytest.approx(mean_error)
        assert figures["size_mib"] > 0
        assert figures["fit_s"] > 0
        assert 0 < figures["single_us"] < figures["batch_us"]
        assert 1 < figures["times_empty"] < figures["single_us"]


def _figures(mean_error: float, times_empty: float) -> Figures:
    return Figures(
        errors={},
        mean_error=mean_error,
        size_mib=1.0,
        fit_s=1.0,
        batch_us=1.0,
        single_us=100.0,
        times_empty=times_empty,
    )


@pytest.mark.parametrize(("bound", "expected"), [(50.0, "middling"), (250.0, "good"), (1.0, None)])
def test_the_winner_has_the_smallest_error_within_the_bound(
    monkeypatch: pytest.MonkeyPatch, bound: float, expected: str | None
) -> None:
    figures = {
        "good": _figures(3.0, 225.0),
        "middling": _figures(5.0, 37.0),
        "poor": _figures(9.0, 2.5),
    }
    monkeypatch.setattr(module, "MAX_TIMES_EMPTY", bound)
    assert winner(figures) == expected


def test_progress_is_reported_fold_by_fold(
    data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "analytical fit"
    monkeypatch.setattr(module, "MODEL_KINDS", {name: MODEL_KINDS[name]})
    reported: list[str] = []
    compare(data, reported.append)
    assert reported == [name] * 2


@pytest.mark.parametrize("name", PLAIN)
def test_the_graphs_predict_as_scikit_learn_does(data: TrainingSet, name: str) -> None:
    kind = MODEL_KINDS[name]()
    kind.fit(data)
    assert isinstance(kind, Plain)
    assert set(kind.factors) == set(COMPARED)
    for factor in kind.factors["energy_mj"]:
        expected = factor.predict(data.queries)
        for graph in factor.graphs(data.queries):
            session = open_session(graph.model)
            (argument,) = session.get_inputs()
            (output,) = session.run(None, {argument.name: graph.columns})
            values = output[:, 0].astype(np.float64)
            if not isinstance(factor, Analytical):
                values = np.exp(values)
            assert np.median(np.abs(values / expected - 1)) < 1e-5


def test_the_analytical_fit_finds_what_the_times_explain(data: TrainingSet) -> None:
    quantities = terms(data.queries).quantities.astype(np.float64)
    times_us = {name: quantities[:, QUANTITIES.index(name)] for name in TIMES}
    busy_us = times_us["compute_us"]
    loading_us = times_us["dram_a_us"]
    measured_us = 3 * busy_us + 0.5 * loading_us + times_us["empty_kernel_us"]
    fit = Analytical("runtime_us")
    fit.fit(data.queries, measured_us, np.ones(len(data)))
    predicted_us = fit.predict(data.queries)
    assert np.max(np.abs(predicted_us / measured_us - 1)) < 1e-3


def test_a_larger_problem_is_never_cheaper_to_the_monotone_kind(data: TrainingSet) -> None:
    kind = MODEL_KINDS["boosting, monotone"]()
    kind.fit(data)
    small = kind.predict(data.queries)
    for name in ("m", "n", "k", "batch"):
        larger = data.queries.copy()
        larger[:, AT[name]] *= 3
        large = kind.predict(larger)
        for target in ("runtime_us", "energy_mj"):
            assert (large[target] >= small[target]).all()
        assert (large["runtime_us"] > 0).all()


def test_a_target_that_was_not_measured_is_not_compared(
    cpu_samples: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MODEL_KINDS", {"boosting": MODEL_KINDS["boosting"]})
    comparison = json.loads(json.dumps(compare(training_set(cpu_samples))))
    assert set(comparison["candidates"]["boosting"]["errors"]) == {"runtime_us"}
