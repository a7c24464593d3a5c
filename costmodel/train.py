"""From samples to a trained model with its card.

    split by shape -> fit -> export -> score -> card

The held-out shapes are never trained on, by this version or another: the scores in the card are
of new shapes, and a new model can be compared with the champion. Nothing of the model comes from
them, its intervals neither: their coverage in the card is a test. Knows nothing of Ray or the
registry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

import pyarrow as pa

from costmodel.adapted import AdaptedModel
from costmodel.base import Base
from costmodel.dataset import TrainingSet, devices_of, split_by_shape, training_set
from costmodel.evaluate.crossval import (
    Predictions,
    coverage,
    of_baselines,
    predictions,
    scores,
    scores_by,
)
from costmodel.evaluate.generalisation import generalisation
from costmodel.evaluate.groups import kinds, sizes
from costmodel.evaluate.metrics import ScoreTable, to_json
from costmodel.evaluate.noise import repeatability
from costmodel.evaluate.ranking import ranking
from costmodel.exam import Exam, check_exam, exam_scores
from costmodel.joined import JoinedModel
from costmodel.model import CostModel
from costmodel.onnx_export import export
from costmodel.onnx_session import open_session, p50_us, parity
from costmodel.progress import Step, no_step
from costmodel.scope import scope
from costmodel.settings import TrainSettings
from gemmcast import __version__, modeldir
from gemmcast.card import ModelCard, Scores
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.query import CONTRACT, INPUT, Rows

Trainable = CostModel | AdaptedModel | JoinedModel

MIN_SHAPES: Final = 10
"""Different shapes that a model needs at least."""
SMALL_NETWORKS: Final = 1
"""Networks per target of the smaller models that are scored for generalisation."""
SMALL_STEPS: Final = 5_000
"""Their steps of gradient descent at most: a third of the published model's."""
PREFILTER: Final = "prefilter"
"""A method of the ranking: the file's smaller graph, which `pick` ranks many candidates with."""
BASE: Final = "base"
"""A method: the base that the model starts from, as it is."""
TIMED_RUNS: Final = 2_000
"""Queries through ONNX Runtime whose latency is measured."""
TIMED_SKLEARN_RUNS: Final = 50
"""Queries through scikit-learn whose latency is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model that may become a version in the registry."""

    model: bytes
    """The .onnx file."""
    card: ModelCard
    """Its data, split, errors, contract and hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a card says about errors."""

    scores: Scores
    by_family: Mapping[str, Scores]
    by_dtype: Mapping[str, Scores]
    by_size: Mapping[str, Scores]
    by_kind: Mapping[str, Scores]
    ranking: Scores
    coverage: Mapping[str, float]


def train(
    table: pa.Table,
    settings: TrainSettings,
    *,
    store_version: int | None = None,
    exam: Exam | None = None,
    base: Base | None = None,
    created_at: str | None = None,
    step: Step = no_step,
) -> TrainedModel:
    """Fit on the shapes that are not held out, and measure the errors on those that are.

    Args:
        table: samples, in the sample schema.
        settings: rows that are needed, and the share to hold out.
        store_version: version of the sample store that the table is, for the card.
        exam: rows of other boards and layers, to score the model with.
        base: what the model starts from, on kinds of device that it contains; None: from nothing.
        created_at: UTC, ISO 8601, for the file and the card; None: now.
        step: called with each part of the work, from this thread.

    Raises:
        InputError: too few usable rows or shapes, or an exam that shares boards or layers.
    """
    if exam is not None:
        check_exam(exam, {"the samples": table})
    data = enough_rows(table, settings.min_rows)
    training, test = _split(data, settings.holdout)
    if base is not None and not base.covers(training.queries).any():
        base = None
    model, baselines = _fitted(training, test, base, step)
    step("export", 0, 1)
    stamp = created_at or datetime.now(UTC).isoformat(timespec="seconds")
    exported = export(model, _devices(data, base), stamp)
    evaluation = _evaluate(model, training, test, baselines, step)
    one_query = data.queries[:1]
    card = replace(
        _card(model, training, test, settings, stamp),
        store_version=store_version,
        scope={**scope(training), **(base.card.scope if base else {})},
        base=base.title if base else "",
        exam=exam_scores(model, training, exam) if exam else {},
        scores=evaluation.scores,
        scores_by_family=evaluation.by_family,
        scores_by_dtype=evaluation.by_dtype,
        scores_by_size=evaluation.by_size,
        scores_by_kind=evaluation.by_kind,
        ranking=evaluation.ranking,
        # With a base a training takes seconds: these would take as long again, several times
        generalisation={} if base else _generalisation(data, model.tree_weight_, step),
        repeatability=repeatability(data.table.to_pylist()),
        coverage=evaluation.coverage,
        parity_max_rel=parity(model, open_session(exported), data.queries),
        latency_p50_us=_latency_us(exported, one_query),
        sklearn_latency_p50_us=p50_us(partial(model.predict, one_query), TIMED_SKLEARN_RUNS),
        sha256=modeldir.sha256(exported),
    )
    return TrainedModel(model=exported, card=card)


def _card(
    model: Trainable,
    training: TrainingSet,
    test: TrainingSet,
    settings: TrainSettings,
    created_at: str,
) -> ModelCard:
    """The card of a model and its data, before anything is scored."""
    devices = Counter(training.table["device"].to_pylist())
    devices.update(test.table["device"].to_pylist())
    return ModelCard(
        created_at=created_at,
        program_version=__version__,
        contract=CONTRACT,
        targets=tuple(model.outputs_),
        rows=len(training) + len(test),
        rows_by_device=dict(devices),
        store_version=None,
        split=_split_in_words(settings.holdout),
        holdout=settings.holdout,
        train_rows=len(training),
        test_rows=len(test),
        train_shapes=len(set(training.shapes)),
        test_shapes=len(set(test.shapes)),
        tree_weight={target: model.tree_weight_[target] for target in model.targets_},
    )


def _fitted(
    training: TrainingSet, test: TrainingSet, base: Base | None, step: Step
) -> tuple[Trainable, Predictions]:
    """The model, and what the baselines predict, which need none: on another core meanwhile."""
    with ThreadPoolExecutor(1) as other:
        predicting = other.submit(of_baselines, training, test)
        model = _unfitted(training, base).fit_dataset(training, step)
        step("baselines", 0, 1)
        return model, predicting.result()


def _unfitted(training: TrainingSet, base: Base | None) -> Trainable:
    """From nothing, from the base, or both where the base contains not every kind of device."""
    if base is None:
        return CostModel()
    return AdaptedModel(base) if base.covers(training.queries).all() else JoinedModel(base)


def _devices(data: TrainingSet, base: Base | None) -> list[Device]:
    """The devices of the samples, then those of the base that have another name."""
    own = devices_of(data)
    if base is None:
        return own
    names = {device.name for device in own}
    return [*own, *(device for device in base.devices if device.name not in names)]


def _latency_us(exported: bytes, query: Rows) -> float:
    """Of one query through ONNX Runtime."""
    session = open_session(exported)
    return p50_us(partial(session.run, None, {INPUT: query}), TIMED_RUNS)


def enough_rows(table: pa.Table, min_rows: int) -> TrainingSet:
    """The usable rows of a table of samples.

    Raises:
        InputError: fewer than `min_rows`, or fewer than MIN_SHAPES shapes.
    """
    data = training_set(table)
    shapes = len(set(data.shapes))
    if len(data) < min_rows or shapes < MIN_SHAPES:
        rule = (
            f"a model needs {min_rows} rows with status ok over {MIN_SHAPES} shapes, "
            f"here are {len(data)} over {shapes}"
        )
        way_out = "measure more, or lower train.min_rows in the plan"
        raise InputError("samples", len(table), rule, way_out)
    return data


def _split(data: TrainingSet, holdout: float) -> tuple[TrainingSet, TrainingSet]:
    """The rows to train on and the held-out rows, neither of them empty."""
    training, test = split_by_shape(data, holdout)
    if not len(training) or not len(test):
        shapes = len(set(data.shapes))
        rule = f"of {shapes} shapes, {holdout:.0%} held out by hash leave one side empty"
        way_out = "measure more shapes, or change train.holdout in the plan"
        raise InputError("samples", len(data), rule, way_out)
    return training, test


def _split_in_words(holdout: float) -> str:
    return (
        f"by shape: {holdout:.0%} of the shapes, chosen by a hash of the shape, "
        "are never trained on"
    )


def _evaluate(
    model: Trainable,
    training: TrainingSet,
    test: TrainingSet,
    baselines: Predictions,
    step: Step,
) -> Evaluation:
    """The errors on the held-out rows, beside the baselines."""
    predicted = predictions(model, training, test, baselines=baselines)
    if not isinstance(model, CostModel):
        for target, values in model.base.predict(test.queries).items():
            predicted.get(target, {})[BASE] = values
    step("ranking", 0, 1)
    return Evaluation(
        scores=to_json(scores(test, predicted)),
        by_family=_to_json(scores_by(test, predicted, test.column("family"))),
        by_dtype=_to_json(scores_by(test, predicted, test.column("dtype"))),
        by_size=_to_json(scores_by(test, predicted, sizes(test))),
        by_kind=_to_json(scores_by(test, predicted, kinds(test))),
        coverage=coverage(test, predicted),
        ranking=ranking(test, _with_prefilter(predicted, model, test)),
    )


def _with_prefilter(predicted: Predictions, model: Trainable, test: TrainingSet) -> Predictions:
    """The predictions, and those of the smaller graph that ranks many candidates."""
    runtime_us = predicted["runtime_us"] | {PREFILTER: model.prefilter(test.queries)}
    return predicted | {"runtime_us": runtime_us}


def _to_json(tables: Mapping[str, ScoreTable]) -> dict[str, Scores]:
    return {name: to_json(table) for name, table in tables.items()}


def _generalisation(
    data: TrainingSet, tree_weight: Mapping[str, float], step: Step
) -> dict[str, dict[str, object]]:
    """The errors of smaller models on layers, kernels and devices that they were not trained on."""

    def fit(training: TrainingSet) -> CostModel:
        """A smaller model with the published model's weights of the trees."""
        small = CostModel(members=SMALL_NETWORKS, steps=SMALL_STEPS, tree_weight=tree_weight)
        return small.fit_dataset(training)

    by_split = generalisation(data, fit, step)
    step("latency", 0, 1)
    return {name: of_split.to_json() for name, of_split in by_split.items()}
