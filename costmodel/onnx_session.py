"""ONNX Runtime for the trainer: open an exported model, compare it with its source, time it.

Sessions have one thread, as those of the embedded predictor (gemmcast/predictor.py) have.
Knows nothing of how a model was fitted or exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from gemmcast.query import INPUT, INTERVALS, Rows

PARITY_LIMIT: Final = 1e-5
"""Largest relative difference that a model file may have from the model it was exported from."""
ENDS_ALLOWANCE: Final = 10.0
"""So many times as far apart may the ends of intervals be: a half width is a difference of networks
that nearly agree, which has few digits, times a factor of up to 50 (costmodel/intervals.py)."""
STRETCHES: Final = 5
"""A timing is repeated in so many stretches."""
COMPARED_RUNS: Final = 100
"""Calls in one stretch of a comparison with the empty graph."""
SMALLEST: Final = 1e-30
"""In place of an output of 0, when a difference is divided by it."""

Array = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class Predicts(Protocol):
    """A fitted model in Python."""

    def predict(self, queries: Rows) -> Mapping[str, Array]:
        """output -> [n_rows], or [n_rows, n_outputs] of the interval's ends."""
        ...


def open_session(model: bytes) -> ort.InferenceSession:
    """The model in ONNX Runtime, on one thread of the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_reuse = False
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def parity(model: Predicts, session: ort.InferenceSession, queries: Rows) -> float:
    """Largest relative difference between the model and its file, over all rows and outputs.

    Of the ends of intervals a tenth counts (ENDS_ALLOWANCE). Where only one of the two has no
    value, the difference is infinite.
    """
    names = [output.name for output in session.get_outputs()]
    # The file answers on another core meanwhile.
    with ThreadPoolExecutor(1) as other:
        answering = other.submit(session.run, None, {INPUT: queries})
        from_model = model.predict(queries)
        from_file = answering.result()
    largest = 0.0
    for name, values in zip(names, from_file, strict=True):
        expected = from_model[name]
        difference = np.abs(values.astype(np.float64) - expected)
        relative = difference / np.maximum(np.abs(expected), SMALLEST)
        has_no_value = np.isnan(values) != np.isnan(expected)
        relative = np.where(has_no_value, np.inf, np.nan_to_num(relative, nan=0.0))
        allowance = ENDS_ALLOWANCE if name in INTERVALS else 1.0
        largest = max(largest, float(np.max(relative)) / allowance)
    return largest


def p50_us(run: Callable[[], object], runs: int) -> float:
    """Median time of a call in the quietest stretch, because other processes only add time."""
    medians_us = [_median_us(run, runs // STRETCHES, perf_counter) for _ in range(STRETCHES)]
    return min(medians_us)


def times_of(
    run: Callable[[], object],
    other: Callable[[], object],
    clock_s: Callable[[], float] = perf_counter,
) -> float:
    """How many times as long a call takes as another one, by the median of the stretches.

    The two alternate within a few milliseconds, so whatever slows the machine slows both.
    """
    ratios: list[float] = []
    for _ in range(STRETCHES):
        other_us = _median_us(other, COMPARED_RUNS, clock_s)
        run_us = _median_us(run, COMPARED_RUNS, clock_s)
        ratios.append(run_us / other_us)
    return float(np.median(ratios))


def _median_us(run: Callable[[], object], runs: int, clock_s: Callable[[], float]) -> float:
    times_s: list[float] = []
    for _ in range(runs):
        start_s = clock_s()
        run()
        times_s.append(clock_s() - start_s)
    return float(np.median(times_s)) * 1e6
