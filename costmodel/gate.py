"""The gate: whether a candidate may replace the champion.

It must agree with scikit-learn on every row, answer within the latency bound, and be no worse than the champion on the held-out
shapes, which neither has seen: worse means by more than one standard error of the difference, shape by shape.
What fails the gate is still registered, as challenger, with the reason: nothing is lost.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from costmodel.dataset import Dataset, dataset, held_out
from costmodel.train import PARITY_LIMIT, Candidate, open_session
from gemmcast.predictor import METADATA_PREFIX
from gemmcast.query import CONTRACT, INPUT

MAX_LATENCY_US = 200.0


def objection(candidate: Candidate, champion: bytes | None, table: pa.Table, holdout: float) -> str | None:
    """Why the candidate must not become champion, or None."""
    card = candidate.card
    if card.parity_max_rel is None or not card.parity_max_rel <= PARITY_LIMIT:
        return f"ONNX and scikit-learn differ by {card.parity_max_rel}, the limit is {PARITY_LIMIT}"
    if card.latency_p50_us is None or not card.latency_p50_us <= MAX_LATENCY_US:
        return f"one question takes {card.latency_p50_us} us, the limit is {MAX_LATENCY_US}"
    if champion is None or not _speaks_our_contract(champion):
        return None
    data = dataset(table)
    test = data.take(held_out(data.shapes, holdout))
    new, old = (_errors(model, test) for model in (candidate.model, champion))
    worse = new - old
    if len(worse) > 1 and worse.mean() > worse.std(ddof=1) / np.sqrt(len(worse)):
        return (
            f"mean runtime error on {len(worse)} held-out shapes {new.mean():.2f} %, the champion's is {old.mean():.2f} %: worse by more than chance"
        )
    return None


def _speaks_our_contract(model: bytes) -> bool:
    """A champion of another contract can't be asked our questions: its successor needs no comparison."""
    found = open_session(model).get_modelmeta().custom_metadata_map.get(f"{METADATA_PREFIX}contract")
    return bool(found == str(CONTRACT))


def _errors(model: bytes, test: Dataset) -> npt.NDArray[np.float64]:
    """[n_shapes] mean absolute percentage error of runtime, shape by shape: the rows of one shape are not independent."""
    runtime_us = open_session(model).run(["runtime_us"], {INPUT: test.queries})[0]
    ape = 100 * np.abs(np.asarray(runtime_us, dtype=np.float64) / test.measured["runtime_us"] - 1)
    return np.array([ape[test.shapes == shape].mean() for shape in sorted(set(test.shapes))])
