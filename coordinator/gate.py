"""The gate: whether a candidate may replace the champion.

It must agree with scikit-learn on every row, answer within the latency bound, and be no worse than the champion on the held-out
shapes, which neither has seen. What fails the gate is still registered, as challenger, with the reason: nothing is lost.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from coordinator.dataset import Dataset, dataset, held_out
from coordinator.scores import score
from coordinator.train import PARITY_LIMIT, Candidate, open_session
from gemmcast.question import INPUT

MAX_SINGLE_US = 200.0
TOLERANCE = 1.05
# of the champion's mean error: two models on one set of shapes differ by chance too


def objection(candidate: Candidate, champion: bytes | None, table: pa.Table, holdout: float) -> str | None:
    """Why the candidate must not become champion, or None."""
    card = candidate.card
    if card.parity_max_rel is None or not card.parity_max_rel <= PARITY_LIMIT:
        return f"ONNX and scikit-learn differ by {card.parity_max_rel}, the limit is {PARITY_LIMIT}"
    if card.single_p50_us is None or not card.single_p50_us <= MAX_SINGLE_US:
        return f"one question takes {card.single_p50_us} us, the limit is {MAX_SINGLE_US}"
    if champion is None:
        return None
    data = dataset(table)
    test = data.take(held_out(data.shapes, holdout))
    new, old = (_mape(model, test) for model in (candidate.model, champion))
    if not new <= old * TOLERANCE:
        return f"mean runtime error on held-out shapes {new:.2f} %, the champion's is {old:.2f} %"
    return None


def _mape(model: bytes, test: Dataset) -> float:
    runtime_us = open_session(model).run(["runtime_us"], {INPUT: test.questions})[0]
    return score(test.measured["runtime_us"], np.asarray(runtime_us, dtype=np.float64))["mape"]
