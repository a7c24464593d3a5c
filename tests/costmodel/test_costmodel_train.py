"""From samples to a candidate, and the gate that it must pass."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coordinator.fleet.trainer import fit_and_judge, publish
from coordinator.plan.schema import Train
from costmodel.dataset import dataset, held_out
from costmodel.gate import MAX_LATENCY_US, objection
from costmodel.model import CostModel
from costmodel.onnx_export import export
from costmodel.train import MIN_SHAPES, PARITY_LIMIT, Candidate, devices_of, open_session, train
from gemmcast.card import ModelCard
from gemmcast.errors import InputError
from gemmcast.modeldir import sha256
from gemmcast.query import CONTRACT, INPUT, OUTPUTS
from registry.registry import Registry

HOLDOUT = Train().holdout


# the candidate


def test_the_card_says_what_it_was_made_of(candidate: Candidate, cpu_samples: pa.Table) -> None:
    card, shapes = candidate.card, dataset(cpu_samples).shapes
    test = held_out(shapes, HOLDOUT)
    assert (card.rows, card.train_rows, card.test_rows) == (300, int((~test).sum()), int(test.sum()))
    assert (card.train_shapes, card.test_shapes) == (len(set(shapes[~test])), len(set(shapes[test])))
    assert (card.rows_by_device, card.store_version, card.holdout, card.contract) == ({"Paper CPU (2 cores)": 300}, 7, HOLDOUT, CONTRACT)
    assert card.targets == OUTPUTS[:2]
    assert card.sha256 == sha256(candidate.model)
    assert ModelCard.from_json(card.to_json()) == card


def test_a_model_of_a_metered_device_answers_everything(power_candidate: Candidate) -> None:
    assert power_candidate.card.targets == OUTPUTS
    assert set(power_candidate.card.scores) == set(OUTPUTS)
    assert set(power_candidate.card.scores_by_family) == {"tiled", "cublas"}


def test_the_card_has_the_further_splits_and_the_noise(candidate: Candidate, power_candidate: Candidate) -> None:
    for card in (candidate.card, power_candidate.card):
        assert set(card.generalisation) == {"layer"}
        assert set(card.generalisation["layer"]["scores"]) == set(card.targets)
        for parted in (card.scores_by_dtype, card.scores_by_size, card.scores_by_family):
            assert sum(scores["runtime_us"]["model"]["rows"] for scores in parted.values()) == card.test_rows
        assert card.repeatability == {"runtime_rse": {"median": pytest.approx(0.3), "p90": pytest.approx(0.3), "max": pytest.approx(0.3), "rows": card.rows}}
        assert card.ranking == {}


def test_cards_of_before_are_read(candidate: Candidate) -> None:
    values = json.loads(candidate.card.to_json())
    for name in ("scores_by_dtype", "scores_by_size", "ranking", "unseen", "noise"):
        del values[name]
    old = ModelCard.from_json(json.dumps(values))
    assert old.scores == candidate.card.scores
    assert (old.scores_by_dtype, old.scores_by_size, old.ranking, old.unseen, old.noise) == ({}, {}, {}, {}, {})


def test_every_target_is_scored_beside_the_baselines(candidate: Candidate, power_candidate: Candidate) -> None:
    for card in (candidate.card, power_candidate.card):
        for scores in (card.scores, *card.scores_by_family.values()):
            for methods in scores.values():
                assert list(methods) == ["model", "lookup", "roofline", "paper_forest"]
                assert len({values["rows"] for values in methods.values()}) == 1
        assert card.scores["runtime_us"]["model"]["rows"] == card.test_rows
        assert sum(scores["runtime_us"]["model"]["rows"] for scores in card.scores_by_family.values()) == card.test_rows


def test_the_model_beats_the_baselines_on_shapes_that_it_never_saw(candidate: Candidate, power_candidate: Candidate) -> None:
    for card in (candidate.card, power_candidate.card):
        errors = {method: values["median_ape"] for method, values in card.scores["runtime_us"].items()}
        assert errors["model"] < 15
        assert min(errors, key=lambda method: errors[method]) == "model"


def test_parity_and_latency_are_on_the_card(candidate: Candidate, power_candidate: Candidate) -> None:
    for card in (candidate.card, power_candidate.card):
        assert card.parity_max_rel is not None and 0 <= card.parity_max_rel <= PARITY_LIMIT
        assert card.latency_p50_us and card.sklearn_latency_p50_us and 0 < card.latency_p50_us < card.sklearn_latency_p50_us


def test_held_out_shapes_are_never_trained_on(cpu_samples: pa.Table, candidate: Candidate) -> None:
    """Values of held-out rows may be anything: the model stays the same."""
    held = held_out(dataset(cpu_samples).shapes, HOLDOUT)
    runtime_us = np.where(held, 12345.0, cpu_samples["runtime_us"].to_numpy())
    at = cpu_samples.schema.get_field_index("runtime_us")
    other = train(cpu_samples.set_column(at, cpu_samples.schema.field(at), pa.array(runtime_us)), Train())
    rows = dataset(cpu_samples).queries
    one, two = (open_session(model).run(list(OUTPUTS[:2]), {INPUT: rows}) for model in (candidate.model, other.model))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("rows", "settings"), [(99, Train()), (300, Train(min_rows=301)), (0, Train(min_rows=20))])
def test_too_few_rows_are_refused(cpu_samples: pa.Table, rows: int, settings: Train) -> None:
    with pytest.raises(InputError) as caught:
        train(cpu_samples.slice(0, rows), settings)
    assert f"samples = {rows}: a model needs {settings.min_rows} rows with status ok over {MIN_SHAPES} shapes, here are {rows} over" in str(
        caught.value
    )
    assert caught.value.way_out == "measure more, or lower train.min_rows in the plan"


def test_too_few_shapes_are_refused(cpu_samples: pa.Table) -> None:
    shapes = dataset(cpu_samples).shapes
    few = cpu_samples.filter(pa.array(np.isin(shapes.astype(str), list(dict.fromkeys(shapes))[: MIN_SHAPES - 1])))
    with pytest.raises(InputError, match=f"here are {20 * len(few)} over {MIN_SHAPES - 1}"):
        train(pa.concat_tables([few] * 20), Train(min_rows=20))


def test_rows_that_failed_do_not_count(cpu_samples: pa.Table) -> None:
    at = cpu_samples.schema.get_field_index("status")
    table = cpu_samples.set_column(at, cpu_samples.schema.field(at), pa.array(["ok"] * 80 + ["timeout"] * 220))
    with pytest.raises(InputError, match="here are 80 over"):
        train(table, Train())


def test_every_kind_of_device_is_described(cpu_samples: pa.Table, power_samples: pa.Table) -> None:
    devices = devices_of(dataset(pa.concat_tables([cpu_samples, power_samples])))
    assert [(device.name, sorted(device.peak_tflops)) for device in devices] == [
        ("Paper CPU (2 cores)", ["fp32"]),
        ("Paper GPU 80GB", ["fp16", "fp32"]),
    ]


# the gate


@pytest.fixture(scope="module")
def poor(cpu_samples: pa.Table) -> bytes:
    """A model that learned noise."""
    data = dataset(cpu_samples)
    runtime_us = data.measured["runtime_us"] * np.exp(np.random.default_rng(0).normal(0, 1, len(data)))
    return export(CostModel(members=1).fit(data.queries, {"runtime_us": runtime_us}), devices_of(data))


def _card(candidate: Candidate, **changes: Any) -> Candidate:
    return Candidate(model=candidate.model, card=replace(candidate.card, **changes))


def test_the_first_good_candidate_passes(candidate: Candidate, cpu_samples: pa.Table) -> None:
    assert objection(candidate, None, cpu_samples, HOLDOUT) is None


@pytest.mark.parametrize("parity", [2e-5, float("nan"), float("inf"), None])
def test_a_file_that_differs_from_scikit_learn_is_refused(candidate: Candidate, cpu_samples: pa.Table, parity: float | None) -> None:
    said = objection(_card(candidate, parity_max_rel=parity), None, cpu_samples, HOLDOUT)
    assert said == f"ONNX and scikit-learn differ by {parity}, the limit is {PARITY_LIMIT}"


@pytest.mark.parametrize("single_us", [MAX_LATENCY_US + 1, float("nan"), None])
def test_a_slow_file_is_refused(candidate: Candidate, cpu_samples: pa.Table, single_us: float | None) -> None:
    said = objection(_card(candidate, latency_p50_us=single_us), None, cpu_samples, HOLDOUT)
    assert said == f"one question takes {single_us} us, the limit is {MAX_LATENCY_US}"


def test_a_candidate_that_is_worse_than_the_champion_is_refused(candidate: Candidate, poor: bytes, cpu_samples: pa.Table) -> None:
    said = objection(Candidate(model=poor, card=candidate.card), candidate.model, cpu_samples, HOLDOUT)
    assert said is not None
    assert said.startswith(f"mean runtime error on {candidate.card.test_shapes} held-out shapes ")
    assert said.endswith("worse by more than chance")


def test_a_candidate_that_is_better_passes(candidate: Candidate, poor: bytes, cpu_samples: pa.Table) -> None:
    assert objection(candidate, poor, cpu_samples, HOLDOUT) is None


def test_a_candidate_that_is_as_good_passes(candidate: Candidate, cpu_samples: pa.Table) -> None:
    assert objection(candidate, candidate.model, cpu_samples, HOLDOUT) is None


# what happens to it


def test_a_winner_becomes_champion_and_a_loser_challenger(candidate: Candidate, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(tmp_path / "registry")
    assert publish(registry, candidate.model, candidate.card, None) == "1"
    with caplog.at_level(logging.WARNING):
        assert publish(registry, candidate.model, candidate.card, "too slow") is None
    assert "version 2 stays challenger: too slow" in caplog.text
    assert (registry.resolve("champion").number, registry.resolve("challenger").number) == ("1", "2")
    assert publish(registry, candidate.model, candidate.card, None) == "3"
    assert registry.load("champion")[:2] == (candidate.model, candidate.card)


def test_fit_and_judge_is_train_and_gate(cpu_samples: pa.Table, candidate: Candidate) -> None:
    model, card, why_not = fit_and_judge(cpu_samples, Train(), 3, candidate.model)
    assert (card.sha256, card.store_version, why_not) == (sha256(model), 3, None)
