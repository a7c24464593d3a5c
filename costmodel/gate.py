"""The gate: whether a newly trained model may replace the champion.

Its file must agree with scikit-learn on every row. Where there is a champion, it must also answer
within the latency bound, and not be worse on the held-out shapes, which neither was trained on.
Worse means by more than one standard error of the difference, shape by shape. A model that fails is
still registered, as challenger, with the reason.

The latency bound is a multiple of the machine's own time for an empty graph, in the same second: a
slow or busy machine is slow at both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa

from costmodel.dataset import TrainingSet, Values, split_by_shape, training_set
from costmodel.onnx_export import empty_graph
from costmodel.onnx_session import PARITY_LIMIT, open_session, times_of
from costmodel.train import TrainedModel
from gemmcast.card import ModelCard
from gemmcast.modelfile import METADATA_PREFIX
from gemmcast.query import CONTRACT, FIELDS, INPUT, READ_CONTRACTS, Rows

MAX_TIMES_EMPTY: Final = 75.0
"""Time of one query through ONNX Runtime over that of an empty graph, one thread: about 300 us
where an empty graph takes 4 us. Models of 4 networks take 15 to 30 times as long as it, those
that start from a base 35 to 65 times."""


def objection(
    trained: TrainedModel, champion: bytes | None, table: pa.Table, holdout: float
) -> str | None:
    """Why the model must not become champion, or None.

    Args:
        trained: the new model.
        champion: the champion's file; None where there is none yet.
        table: all samples.
        holdout: share of the shapes that neither model was trained on.
    """
    reason = _defect(trained.card)
    if reason or champion is None:
        return reason
    reason = _too_slow(trained.model)
    if reason or not _is_comparable(champion):
        return reason
    _, test = split_by_shape(training_set(table), holdout)
    new_errors = _errors_by_shape(trained.model, test)
    old_errors = _errors_by_shape(champion, test)
    return _comparison(new_errors, old_errors)


def times_of_empty(run: Callable[[], object]) -> float:
    """How many times as long a call takes as one query through an empty graph, now and here."""
    return times_of(run, _one_query(empty_graph()))


def _one_query(model: bytes) -> Callable[[], object]:
    """A call of the model with one query."""
    query = np.zeros((1, len(FIELDS)), dtype=np.float32)
    return partial(open_session(model).run, None, {INPUT: query})


def _defect(card: ModelCard) -> str | None:
    """What is wrong with the file by itself; a missing or NaN figure is wrong."""
    parity = card.parity_max_rel
    if parity is None or not parity <= PARITY_LIMIT:
        return f"ONNX and scikit-learn differ by {parity}, the limit is {PARITY_LIMIT}"
    return None


def _too_slow(model: bytes) -> str | None:
    times = times_of_empty(_one_query(model))
    if times <= MAX_TIMES_EMPTY:
        return None
    return (
        f"one query takes {times:.0f} times as long as an empty graph on this machine, "
        f"the limit is {MAX_TIMES_EMPTY:.0f}"
    )


def _is_comparable(champion: bytes) -> bool:
    """Whether rows can be put in the champion's terms; else it is replaced uncompared."""
    return _contract_of(champion) in READ_CONTRACTS


def _contract_of(model: bytes) -> str | None:
    """None for a file of another program."""
    metadata = open_session(model).get_modelmeta().custom_metadata_map
    contract: str | None = metadata.get(f"{METADATA_PREFIX}contract")
    return contract


def _queries_for(model: bytes, test: TrainingSet) -> Rows:
    """[n_rows, n_fields] The rows in the terms of the model's own contract."""
    contract = _contract_of(model)
    if contract in (None, str(CONTRACT)):
        return test.queries
    return training_set(test.table, int(contract)).queries


def _errors_by_shape(model: bytes, test: TrainingSet) -> Values:
    """[n_shapes] Mean absolute percentage error of runtime.

    Rows of one shape are not independent, so each shape counts once.
    """
    queries = _queries_for(model, test)
    (runtime_us,) = open_session(model).run(["runtime_us"], {INPUT: queries})
    measured_us = test.measured["runtime_us"]
    ape = 100 * np.abs(np.asarray(runtime_us, dtype=np.float64) / measured_us - 1)
    means: list[float] = []
    for shape in sorted(set(test.shapes)):
        means.append(ape[test.shapes == shape].mean())
    return np.array(means)


def _comparison(new_errors: Values, old_errors: Values) -> str | None:
    """An objection if the mean difference exceeds its standard error."""
    shapes = len(new_errors)
    if shapes < 2:
        return None
    increase = new_errors - old_errors
    standard_error = increase.std(ddof=1) / np.sqrt(shapes)
    if increase.mean() <= standard_error:
        return None
    return (
        f"mean runtime error on {shapes} held-out shapes {new_errors.mean():.2f} %, "
        f"the champion's is {old_errors.mean():.2f} %: more than one standard error worse"
    )
