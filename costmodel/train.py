"""From samples to a candidate: split, fit, score beside the baselines, ask further questions, export, prove parity, measure latency.

The held-out shapes are never trained on, by this version or another, so the scores in the card are of shapes never seen and a
candidate meets the champion on equal terms. Knows nothing of Ray or the registry; runs in a Ray task, or in this process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa

from coordinator.plan.schema import Train
from coordinator.samples.export import repeatability
from costmodel.dataset import Dataset, dataset, held_out
from costmodel.evaluate.crossval import asked, beside_baselines, scores, scores_by, sizes, unseen_coverage
from costmodel.evaluate.generalisation import unseen
from costmodel.evaluate.ranking import ranking
from costmodel.model import CostModel
from costmodel.onnx_export import export
from gemmcast import __version__, modeldir
from gemmcast.card import ModelCard
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.query import CONTRACT, INPUT
from gemmcast.rows import device_of

PARITY_LIMIT = 1e-5
# relative, on every row
MIN_SHAPES = 10
STRETCHES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that may become a version."""

    model: bytes
    card: ModelCard


def train(table: pa.Table, settings: Train, *, store_version: int | None = None) -> Candidate:
    """Fit on what is not held out, and say how good it is on what is.

    Args:
        table: samples, of the sample schema.

    Raises:
        InputError: too few usable rows or shapes.
    """
    data = enough(table, settings.min_rows)
    test_rows = held_out(data.shapes, settings.holdout)
    if not 0 < test_rows.sum() < len(data):
        rule = f"of {len(set(data.shapes))} shapes, {settings.holdout:.0%} held out by hash leave one side empty"
        raise InputError("samples", len(table), rule, "measure more shapes, or change train.holdout in the plan")
    training, test = data.take(~test_rows), data.take(test_rows)
    model = CostModel().fit_dataset(training)
    covered = unseen_coverage(model, test)
    exported = export(model, devices_of(data))
    session = open_session(exported)
    predicted = asked(model, training, test)
    return Candidate(
        model=exported,
        card=ModelCard(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            program_version=__version__,
            contract=CONTRACT,
            targets=tuple(model.outputs_),
            rows=len(data),
            rows_by_device=dict(Counter(data.table["device"].to_pylist())),
            store_version=store_version,
            split=f"by shape: {settings.holdout:.0%} of the shapes, chosen by a hash of the shape, are never trained on",
            holdout=settings.holdout,
            train_rows=len(training),
            test_rows=len(test),
            train_shapes=len(set(training.shapes)),
            test_shapes=len(set(test.shapes)),
            scores=scores(test, predicted),
            scores_by_family=scores_by(test, predicted, test.column("family")),
            scores_by_dtype=scores_by(test, predicted, test.column("dtype")),
            scores_by_size=scores_by(test, predicted, sizes(test)),
            ranking=ranking(test, predicted | {"runtime_us": predicted["runtime_us"] | {"shortlist": model.rough(test.queries)}}),
            generalisation=unseen(data, model.shares_),
            repeatability=repeatability(data.table.to_pylist()),
            coverage=covered,
            tree_weight={target: model.shares_[target] for target in model.targets_},
            parity_max_rel=parity(model, session, data),
            latency_p50_us=p50_us(lambda: session.run(None, {INPUT: data.queries[:1]}), 2000),
            sklearn_latency_p50_us=p50_us(lambda: model.predict(data.queries[:1]), 50),
            sha256=modeldir.sha256(exported),
        ),
    )


def enough(table: pa.Table, min_rows: int) -> Dataset:
    """The usable rows. Raises InputError where they are too few, or of too few shapes."""
    data = dataset(table)
    shapes = len(set(data.shapes))
    if len(data) < min_rows or shapes < MIN_SHAPES:
        rule = f"a model needs {min_rows} rows with status ok over {MIN_SHAPES} shapes, here are {len(data)} over {shapes}"
        raise InputError("samples", len(table), rule, "measure more, or lower train.min_rows in the plan")
    return data


def compare(training: Dataset, test: Dataset, predicted: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """target -> method -> metric, on the test rows where the target was read; every method sees the training rows alone."""
    return scores(test, beside_baselines(training, test, predicted))


def parity(model: CostModel, session: ort.InferenceSession, data: Dataset) -> float:
    """Largest relative difference between ONNX Runtime and scikit-learn, over every row and output."""
    names = [output.name for output in session.get_outputs()]
    got = dict(zip(names, session.run(None, {INPUT: data.queries}), strict=True))
    want = model.predict(data.queries)
    return max(float(np.max(np.abs(got[name].astype(np.float64) - want[name]) / np.maximum(np.abs(want[name]), 1e-30))) for name in names)


def p50_us(run: Callable[[], object], runs: int) -> float:
    """Median time of a call in the quietest of STRETCHES: what else the machine does is not the model's."""
    took = np.empty((STRETCHES, runs // STRETCHES))
    for of_stretch in took:
        for i in range(len(of_stretch)):
            start_s = perf_counter()
            run()
            of_stretch[i] = perf_counter() - start_s
    return float(np.median(took, axis=1).min()) * 1e6


def open_session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def devices_of(data: Dataset) -> list[Device]:
    """One description per type of device in the data."""
    rows = data.table.to_pylist()
    names = dict.fromkeys(row["device"] for row in rows)
    return [device_of([row for row in rows if row["device"] == name]) for name in names]
