"""The published kind of model beside others: fitted on the same samples, tested on the same shapes.

`python -m coordinator compare` prints the table; nothing is published. Errors are from cross-
validation grouped by shape, through scikit-learn. Size and latency are of the last fold's ONNX
graphs, one thread: those of plain kinds are the regressors alone, the published kind's graph is
whole, with its features, intervals and range check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter
from typing import Final

import numpy as np

from costmodel.dataset import TrainingSet
from costmodel.evaluate.crossval import Predictions, scores
from costmodel.evaluate.groups import FOLDS, split
from costmodel.evaluate.metrics import COMPARED, Score
from costmodel.gate import MAX_TIMES_EMPTY, times_of_empty
from costmodel.model_kinds import DEFAULT, MODEL_KINDS, Graph, ModelKind
from costmodel.onnx_session import open_session, p50_us
from gemmcast.query import FIELDS

BATCH: Final = 256
"""Queries in the batch whose latency is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one kind."""

    errors: Mapping[str, Score]
    """By target."""
    mean_error: float
    """Mean over the targets of the mean absolute percentage errors."""
    size_mib: float
    """Of the ONNX graphs."""
    fit_s: float
    """Mean time of one fold's fit."""
    batch_us: float
    """Latency of BATCH queries through ONNX Runtime, one thread."""
    single_us: float
    """Latency of one query."""
    times_empty: float
    """How many times as long one query takes as an empty graph (costmodel/gate.py)."""

    def to_json(self) -> dict[str, object]:
        """As plain numbers."""
        errors = {target: error.to_json() for target, error in self.errors.items()}
        return {**asdict(self), "errors": errors}


def compare(
    data: TrainingSet, on_fold: Callable[[str], None] = lambda _: None
) -> dict[str, object]:
    """The figures of every kind, and the winner.

    The winner has the smallest mean error of the kinds whose single query takes at most `bound_us`:
    MAX_TIMES_EMPTY times as long as an empty graph on this machine.

    Args:
        data: all usable rows.
        on_fold: called with the kind's name after every fold.

    Returns:
        rows, shapes, candidates (kind -> Figures as plain numbers), bound_us, winner, default.
    """
    figures: dict[str, Figures] = {}
    for name, make in MODEL_KINDS.items():
        figures[name] = _measured(make, data, partial(on_fold, name))
    candidates: dict[str, dict[str, object]] = {}
    for name, of_kind in figures.items():
        candidates[name] = of_kind.to_json()
    return {
        "rows": len(data),
        "shapes": len(set(data.shapes)),
        "candidates": candidates,
        "bound_us": _bound_us(figures),
        "winner": winner(figures),
        "default": DEFAULT,
    }


def winner(figures: Mapping[str, Figures]) -> str | None:
    """The kind with the smallest mean error within the latency bound; None where none is."""
    fast = [name for name, of_kind in figures.items() if of_kind.times_empty <= MAX_TIMES_EMPTY]
    return min(fast, key=lambda name: figures[name].mean_error, default=None)


def _bound_us(figures: Mapping[str, Figures]) -> float:
    """The bound as a time on this machine."""
    empty_us = [of_kind.single_us / of_kind.times_empty for of_kind in figures.values()]
    return MAX_TIMES_EMPTY * float(np.median(empty_us))


def _measured(
    make: Callable[[], ModelKind], data: TrainingSet, on_fold: Callable[[], None]
) -> Figures:
    """Cross-validate one kind, then measure the last fold's graphs."""
    predicted: Predictions = {}
    for target in COMPARED:
        predicted[target] = {"model": np.full(len(data), np.nan)}
    times_s: list[float] = []
    for is_training, is_test in split(data.shapes, FOLDS):
        training = data.take(is_training)
        kind = make()
        start_s = perf_counter()
        kind.fit(training)
        times_s.append(perf_counter() - start_s)
        of_fold = kind.predict(data.queries[is_test])
        for target in COMPARED:
            if target in of_fold:
                predicted[target]["model"][is_test] = of_fold[target]
        on_fold()
    errors: dict[str, Score] = {}
    for target, methods in scores(data, predicted).items():
        errors[target] = methods["model"]
    mean_error = np.mean([error.mape for error in errors.values()])
    queries = np.resize(data.queries, (BATCH, len(FIELDS)))
    graphs = kind.graphs(training, queries)
    size = sum(len(graph.model) for graph in graphs)
    batch = _prediction(graphs, rows=BATCH)
    single = _prediction(graphs, rows=1)
    return Figures(
        errors=errors,
        mean_error=float(mean_error),
        size_mib=size / 2**20,
        fit_s=float(np.mean(times_s)),
        batch_us=p50_us(batch, runs=50),
        single_us=p50_us(single, runs=500),
        times_empty=times_of_empty(single),
    )


def _prediction(graphs: Sequence[Graph], rows: int) -> Callable[[], object]:
    """A call of all graphs with their first rows."""
    calls: list[Callable[[], object]] = []
    for graph in graphs:
        session = open_session(graph.model)
        (argument,) = session.get_inputs()
        calls.append(partial(session.run, None, {argument.name: graph.columns[:rows]}))

    def run_all() -> None:
        """One prediction."""
        for call in calls:
            call()

    return run_all
