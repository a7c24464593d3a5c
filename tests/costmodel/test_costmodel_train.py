"""From samples to a trained model with its card."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from costmodel.dataset import devices_of, held_out, training_set
from costmodel.onnx_session import PARITY_LIMIT, open_session
from costmodel.settings import TrainSettings
from costmodel.train import MIN_SHAPES, TrainedModel, train
from gemmcast.card import ModelCard, Scores
from gemmcast.errors import InputError
from gemmcast.modeldir import sha256
from gemmcast.query import CONTRACT, INPUT, INTERVALS, OUTPUTS

HOLDOUT = TrainSettings().holdout
METHODS = ["model", "lookup", "roofline", "paper_forest"]


def _model_rows(scores: Scores) -> float:
    return scores["runtime_us"]["model"]["rows"]


def test_the_card_describes_the_data(candidate: TrainedModel, cpu_samples: pa.Table) -> None:
    card = candidate.card
    shapes = training_set(cpu_samples).shapes
    is_test = held_out(shapes, HOLDOUT)
    assert card.rows == 300
    assert card.train_rows == (~is_test).sum()
    assert card.test_rows == is_test.sum()
    assert card.train_shapes == len(set(shapes[~is_test]))
    assert card.test_shapes == len(set(shapes[is_test]))
    assert card.rows_by_device == {"Paper CPU (2 cores)": 300}
    assert card.store_version == 7
    assert card.holdout == HOLDOUT


def test_the_card_describes_the_file(candidate: TrainedModel) -> None:
    card = candidate.card
    assert card.contract == CONTRACT
    assert card.targets == OUTPUTS[:2]
    assert card.sha256 == sha256(candidate.model)
    assert ModelCard.from_json(card.to_json()) == card


def test_a_model_of_a_metered_device_has_every_output(power_candidate: TrainedModel) -> None:
    card = power_candidate.card
    assert card.targets == OUTPUTS
    assert set(card.scores) == set(OUTPUTS)
    assert set(card.scores_by_family) == {"tiled", "cublas"}
    assert set(card.coverage) == set(OUTPUTS)


def test_the_card_has_the_errors_in_parts(
    candidate: TrainedModel, power_candidate: TrainedModel
) -> None:
    for card in (candidate.card, power_candidate.card):
        assert set(card.generalisation) == {"layer", "layer-algorithm"}
        for part in card.generalisation.values():
            assert set(part["scores"]) == set(card.targets)
            by_kind = [_model_rows(scores) for scores in part["kinds"].values()]
            assert sum(by_kind) == part["test_rows"]
        assert card.ranking == {}
        for by_name in (
            card.scores_by_dtype,
            card.scores_by_size,
            card.scores_by_family,
            card.scores_by_kind,
        ):
            rows = [_model_rows(scores) for scores in by_name.values()]
            assert sum(rows) == card.test_rows


def test_the_card_has_the_repeatability(
    candidate: TrainedModel, power_candidate: TrainedModel
) -> None:
    for card in (candidate.card, power_candidate.card):
        within = card.repeatability["runtime_uncertainty"]
        assert set(card.repeatability) == {"runtime_uncertainty"}
        assert within == {
            "median": pytest.approx(0.3),
            "p90": pytest.approx(0.3),
            "max": pytest.approx(0.3),
            "rows": card.rows,
        }


def test_cards_without_the_newer_fields_are_read(candidate: TrainedModel) -> None:
    values = json.loads(candidate.card.to_json())
    newer = (
        "scores_by_dtype",
        "scores_by_size",
        "scores_by_kind",
        "ranking",
        "generalisation",
        "repeatability",
    )
    for name in newer:
        del values[name]
    old = ModelCard.from_json(json.dumps(values))
    assert old.scores == candidate.card.scores
    for name in newer:
        assert getattr(old, name) == {}


def test_every_target_is_scored_beside_the_baselines(
    candidate: TrainedModel, power_candidate: TrainedModel
) -> None:
    for card in (candidate.card, power_candidate.card):
        assert _model_rows(card.scores) == card.test_rows
        for scores in (card.scores, *card.scores_by_family.values()):
            for methods in scores.values():
                assert list(methods) == METHODS
                rows = {values["rows"] for values in methods.values()}
                assert len(rows) == 1


def test_the_model_beats_the_baselines_on_new_shapes(
    candidate: TrainedModel, power_candidate: TrainedModel
) -> None:
    for card in (candidate.card, power_candidate.card):
        methods = card.scores["runtime_us"]
        errors = {method: values["median_ape"] for method, values in methods.items()}
        assert errors["model"] < 15
        assert errors["model"] == min(errors.values())


def test_parity_and_latency_are_on_the_card(
    candidate: TrainedModel, power_candidate: TrainedModel
) -> None:
    for card in (candidate.card, power_candidate.card):
        assert card.parity_max_rel is not None
        assert 0 <= card.parity_max_rel <= PARITY_LIMIT
        assert card.latency_p50_us and card.sklearn_latency_p50_us
        assert 0 < card.latency_p50_us < card.sklearn_latency_p50_us


def _with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), values)


def test_held_out_shapes_are_never_trained_on(
    cpu_samples: pa.Table, candidate: TrainedModel
) -> None:
    """Values of held-out rows may be anything: predictions and intervals stay the same."""
    data = training_set(cpu_samples)
    is_held_out = held_out(data.shapes, HOLDOUT)
    runtime_us = np.where(is_held_out, 12345.0, cpu_samples["runtime_us"].to_numpy())
    changed = _with_column(cpu_samples, "runtime_us", pa.array(runtime_us))
    other = train(changed, TrainSettings())
    outputs = [*OUTPUTS[:2], *INTERVALS]
    inputs = {INPUT: data.queries}
    before = open_session(candidate.model).run(outputs, inputs)
    after = open_session(other.model).run(outputs, inputs)
    for one, two in zip(before, after, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("rows", "min_rows"),
    [(99, 100), (300, 301), (0, 20)],
)
def test_too_few_rows_are_refused(cpu_samples: pa.Table, rows: int, min_rows: int) -> None:
    with pytest.raises(InputError) as caught:
        train(cpu_samples.slice(0, rows), TrainSettings(min_rows=min_rows))
    message = (
        f"samples = {rows}: a model needs {min_rows} rows with status ok "
        f"over {MIN_SHAPES} shapes, here are {rows} over"
    )
    assert message in str(caught.value)
    assert caught.value.way_out == "measure more, or lower train.min_rows in the plan"


def test_too_few_shapes_are_refused(cpu_samples: pa.Table) -> None:
    shapes = training_set(cpu_samples).shapes
    names = list(dict.fromkeys(shapes))[: MIN_SHAPES - 1]
    few = cpu_samples.filter(pa.array(np.isin(shapes.astype(str), names)))
    repeated = pa.concat_tables([few] * 20)
    with pytest.raises(InputError, match=f"here are {len(repeated)} over {len(names)}"):
        train(repeated, TrainSettings(min_rows=20))


def test_rows_that_failed_do_not_count(cpu_samples: pa.Table) -> None:
    statuses = pa.array(["ok"] * 80 + ["timeout"] * 220)
    with pytest.raises(InputError, match="here are 80 over"):
        train(_with_column(cpu_samples, "status", statuses), TrainSettings())


def test_a_holdout_that_leaves_one_side_empty_is_refused(cpu_samples: pa.Table) -> None:
    with pytest.raises(InputError, match="leave one side empty"):
        train(cpu_samples, TrainSettings(holdout=1e-9))


def test_every_type_of_device_is_described(cpu_samples: pa.Table, power_samples: pa.Table) -> None:
    data = training_set(pa.concat_tables([cpu_samples, power_samples]))
    dtypes = {device.name: sorted(device.peak_tflops) for device in devices_of(data)}
    assert dtypes == {"Paper CPU (2 cores)": ["fp32"], "Paper GPU 80GB": ["fp16", "fp32"]}


def test_a_training_says_how_far_it_is(
    candidate: TrainedModel, training_steps: list[tuple[str, int, int]]
) -> None:
    stages = list(dict.fromkeys(stage for stage, _, _ in training_steps))
    assert stages[:4] == ["trial networks", "trial trees", "intervals", "networks"]
    assert stages[-5:] == ["baselines", "export", "ranking", "generalisation", "latency"]
    networks = [(done, total) for stage, done, total in training_steps if stage == "networks"]
    assert networks == [(done, 5) for done in range(6)]
    assert all(0 <= done <= total for _, done, total in training_steps)
