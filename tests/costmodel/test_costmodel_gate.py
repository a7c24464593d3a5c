"""The gate that a trained model must pass, and what happens to it afterwards."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest

from coordinator.fleet.publishing import publish
from coordinator.fleet.trainer import fit_and_judge
from costmodel import gate
from costmodel.dataset import devices_of, training_set
from costmodel.gate import MAX_TIMES_EMPTY, objection, times_of_empty
from costmodel.model import CostModel
from costmodel.onnx_export import empty_graph, export
from costmodel.onnx_session import COMPARED_RUNS, PARITY_LIMIT, open_session, times_of
from costmodel.settings import TrainSettings
from costmodel.train import TrainedModel
from gemmcast.arrow import read_samples
from gemmcast.card import ModelCard
from gemmcast.modeldir import sha256
from gemmcast.modelfile import METADATA_PREFIX
from gemmcast.query import FIELDS, INPUT
from registry.registry import Registry

HOLDOUT = TrainSettings().holdout
BEFORE = Path(__file__).parents[1] / "before"
FAR_WORSE = "more than one standard error worse"


def _poor_model(samples: pa.Table) -> bytes:
    """A model that was fitted on noise."""
    data = training_set(samples)
    noise = np.random.default_rng(0).normal(0, 1, len(data))
    runtime_us = data.measured["runtime_us"] * np.exp(noise)
    model = CostModel(members=1).fit(data.queries, {"runtime_us": runtime_us})
    return export(model, devices_of(data))


@pytest.fixture(scope="module")
def poor(cpu_samples: pa.Table) -> bytes:
    return _poor_model(cpu_samples)


@pytest.fixture(scope="module")
def samples_before() -> pa.Table:
    """Measured by the program before schema 3."""
    return read_samples(BEFORE / "cpu.parquet")


@pytest.fixture(scope="module")
def champion_before() -> TrainedModel:
    """Trained and published by the program before schema 3."""
    files: dict[str, bytes] = {}
    with tarfile.open(BEFORE / "workspace.tar.xz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None and "/registry/artifacts/" in member.name:
                files[Path(member.name).name] = content.read()
    card = ModelCard.from_json(files["card.json"].decode())
    return TrainedModel(model=files["model.onnx"], card=card)


def _with_card(trained: TrainedModel, **changes: object) -> TrainedModel:
    return replace(trained, card=replace(trained.card, **changes))


def test_the_first_good_model_passes(candidate: TrainedModel, cpu_samples: pa.Table) -> None:
    assert objection(candidate, None, cpu_samples, HOLDOUT) is None


@pytest.mark.parametrize("parity", [2e-5, float("nan"), float("inf"), None])
def test_a_file_that_differs_from_scikit_learn_is_refused(
    candidate: TrainedModel, cpu_samples: pa.Table, parity: float | None
) -> None:
    differing = _with_card(candidate, parity_max_rel=parity)
    reason = objection(differing, None, cpu_samples, HOLDOUT)
    assert reason == f"ONNX and scikit-learn differ by {parity}, the limit is {PARITY_LIMIT}"


class Machine:
    """A made-up clock: every call of a graph takes its time, and what else the machine does."""

    def __init__(self, busy: float = 1.0) -> None:
        self.now_s = 0.0
        self.busy = busy

    def call(self, quiet_us: float) -> Callable[[], None]:
        def run() -> None:
            self.now_s += quiet_us * self.busy * 1e-6

        return run

    def clock_s(self) -> float:
        return self.now_s


@pytest.mark.parametrize("busy", [0.2, 1.0, 40.0])
def test_a_latency_is_compared_with_the_empty_graph_on_this_machine(busy: float) -> None:
    machine = Machine(busy)
    run, empty = machine.call(120.0), machine.call(4.0)
    assert times_of(run, empty, machine.clock_s) == pytest.approx(30.0)


def test_a_machine_that_gets_busy_meanwhile_is_busy_for_both() -> None:
    """It is slower with every stretch of both: twice, three times, four times as slow."""
    machine = Machine()
    calls = 0

    def call(quiet_us: float) -> None:
        nonlocal calls
        machine.busy = 1.0 + calls // (2 * COMPARED_RUNS)
        calls += 1
        machine.call(quiet_us)()

    times = times_of(partial(call, 120.0), partial(call, 4.0), machine.clock_s)
    assert times == pytest.approx(30.0)


def test_a_model_takes_many_times_as_long_as_an_empty_graph(candidate: TrainedModel) -> None:
    """Seen: 15 to 25 times. The same graph takes once its own time."""
    query = np.zeros((1, len(FIELDS)), dtype=np.float32)
    run = partial(open_session(candidate.model).run, None, {INPUT: query})
    empty = partial(open_session(empty_graph()).run, None, {INPUT: query})
    assert 2 < times_of_empty(run) < 250
    assert 0.1 < times_of_empty(empty) < 10


@pytest.mark.parametrize(("times", "passes"), [(0.9, True), (1.1, False), (float("nan"), False)])
def test_a_slow_file_does_not_replace_a_champion(
    candidate: TrainedModel,
    poor: bytes,
    cpu_samples: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
    times: float,
    passes: bool,
) -> None:
    monkeypatch.setattr(gate, "times_of_empty", lambda run: times * MAX_TIMES_EMPTY)
    reason = objection(candidate, poor, cpu_samples, HOLDOUT)
    if passes:
        assert reason is None
        return
    assert reason == (
        f"one query takes {times * MAX_TIMES_EMPTY:.0f} times as long as an empty graph on this "
        f"machine, the limit is {MAX_TIMES_EMPTY:.0f}"
    )


def test_a_first_model_is_never_refused_for_its_latency(
    candidate: TrainedModel, cpu_samples: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for the latency on its card, which another machine may have measured."""
    monkeypatch.setattr(gate, "times_of_empty", lambda run: 1e9)
    slow = _with_card(candidate, latency_p50_us=1e6)
    assert objection(slow, None, cpu_samples, HOLDOUT) is None


@pytest.mark.parametrize(("standard_errors", "passes"), [(2.0, False), (0.5, True), (-2.0, True)])
def test_worse_means_by_more_than_a_standard_error(
    candidate: TrainedModel,
    cpu_samples: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
    standard_errors: float,
    passes: bool,
) -> None:
    """Of the mean difference over 100 shapes: a tenth of the differences' standard deviation."""
    noise = np.random.default_rng(0).normal(0.0, 1.0, 100)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    errors = {b"old": np.full(100, 5.0), b"new": 5.0 + noise + standard_errors / 10}
    monkeypatch.setattr(gate, "_errors_by_shape", lambda model, test: errors[model])
    monkeypatch.setattr(gate, "_is_comparable", lambda champion: True)
    monkeypatch.setattr(gate, "_too_slow", lambda model: None)
    reason = objection(replace(candidate, model=b"new"), b"old", cpu_samples, HOLDOUT)
    assert (reason is None) == passes


def test_a_model_that_is_worse_than_the_champion_is_refused(
    candidate: TrainedModel, poor: bytes, cpu_samples: pa.Table
) -> None:
    worse = replace(candidate, model=poor)
    reason = objection(worse, candidate.model, cpu_samples, HOLDOUT)
    assert reason is not None
    shapes = candidate.card.test_shapes
    assert reason.startswith(f"mean runtime error on {shapes} held-out shapes ")
    assert reason.endswith(FAR_WORSE)


def test_a_model_that_is_better_passes(
    candidate: TrainedModel, poor: bytes, cpu_samples: pa.Table
) -> None:
    assert objection(candidate, poor, cpu_samples, HOLDOUT) is None


def test_a_model_that_is_as_good_passes(candidate: TrainedModel, cpu_samples: pa.Table) -> None:
    assert objection(candidate, candidate.model, cpu_samples, HOLDOUT) is None


def test_a_champion_of_before_is_compared(
    candidate: TrainedModel, champion_before: TrainedModel, samples_before: pa.Table
) -> None:
    """Contract 3 has the fields of contract 2 at the same places."""
    assert champion_before.card.contract == 2
    worse = replace(candidate, model=_poor_model(samples_before))
    reason = objection(worse, champion_before.model, samples_before, HOLDOUT)
    assert reason is not None and reason.endswith(FAR_WORSE)
    as_good = replace(candidate, model=champion_before.model)
    assert objection(as_good, champion_before.model, samples_before, HOLDOUT) is None


def test_a_card_of_before_is_judged(
    champion_before: TrainedModel, samples_before: pa.Table
) -> None:
    """Its figures are read under their new names."""
    card = champion_before.card
    assert card.latency_p50_us and card.parity_max_rel is not None
    assert card.scores["runtime_us"]["model"]["rows"] == card.test_rows
    assert objection(champion_before, None, samples_before, HOLDOUT) is None


def test_a_champion_of_an_unreadable_contract_is_replaced(
    candidate: TrainedModel, poor: bytes, cpu_samples: pa.Table
) -> None:
    champion = onnx.load_from_string(candidate.model)
    for entry in champion.metadata_props:
        if entry.key == f"{METADATA_PREFIX}contract":
            entry.value = "1"
    worse = replace(candidate, model=poor)
    assert objection(worse, champion.SerializeToString(), cpu_samples, HOLDOUT) is None


def test_a_winner_becomes_champion_and_a_loser_challenger(
    candidate: TrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(tmp_path / "registry")
    model, card = candidate.model, candidate.card
    assert publish(registry, (model, card, None)) == "1"
    with caplog.at_level(logging.WARNING):
        assert publish(registry, (model, card, "too slow")) is None
    assert "version 2 stays challenger: too slow" in caplog.text
    assert registry.resolve("champion").number == "1"
    assert registry.resolve("challenger").number == "2"
    assert publish(registry, (model, card, None)) == "3"
    published = registry.load("champion")
    assert (published.model, published.card) == (model, card)


def test_fit_and_judge_is_train_and_gate(cpu_samples: pa.Table, candidate: TrainedModel) -> None:
    model, card, reason = fit_and_judge(cpu_samples, TrainSettings(), 3, candidate.model)
    assert card.sha256 == sha256(model)
    assert card.store_version == 3
    assert reason is None
