"""Intervals: nine of ten new rows are within, of each output and group, easy or hard."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from costmodel.categories import Categories
from costmodel.intervals import (
    LEAST_SPREAD,
    MIN_GROUP_ROWS,
    MIN_NETWORK_ROWS,
    Intervals,
    Matrix,
    Values,
    calibrated,
)
from gemmcast.query import FIELDS

ONE_GROUP = 0.0
OTHER_GROUP = 1.0
ROWS = 2 * MIN_NETWORK_ROWS


def _of_runtime(errors: Values, inputs: Matrix, spreads: Values | None = None) -> Intervals:
    """From errors of the runtime in one group, every row a layer of its own."""
    count = len(errors)
    spread = np.zeros(count) if spreads is None else spreads
    folds = np.arange(count) % 4
    return calibrated(
        {"runtime_us": errors}, {"runtime_us": spread}, inputs, np.zeros(count), folds
    )


def _without_inputs(errors: Values) -> Matrix:
    return np.zeros((len(errors), 1), dtype=np.float32)


def _factor(errors: Values, spreads: Values | None = None) -> float:
    """The pooled factor of one output."""
    return _of_runtime(errors, _without_inputs(errors), spreads).pooled["runtime_us"]


def _margins(
    intervals: Intervals, inputs: Matrix, outputs: tuple[str, ...] = ("runtime_us",)
) -> npt.NDArray[np.floating]:
    """[n_rows, n_outputs] where the networks do not differ."""
    queries = np.zeros((len(inputs), len(FIELDS)), dtype=np.float32)
    categories = Categories.of(queries)
    spread = np.zeros((len(inputs), len(outputs)), dtype=np.float32)
    one_hot = categories.one_hot(queries)
    return np.asarray(intervals.margins(outputs, categories, one_hot, inputs, spread))


@pytest.mark.parametrize(
    ("rows", "rank"),
    [(99, 90), (199, 180), (100, 91), (9, 9), (10, 10), (5, 5), (1, 1)],
)
def test_the_factor_is_the_error_that_a_tenth_of_new_rows_exceeds(rows: int, rank: int) -> None:
    """One of n + 1 equally likely places: the ceil(0.9 (n + 1))-th of n errors, or the largest."""
    errors = np.random.default_rng(rows).permutation(np.arange(1.0, rows + 1))
    assert _factor(errors) == pytest.approx(rank / LEAST_SPREAD)


def test_nine_of_ten_new_rows_are_within() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        width = LEAST_SPREAD * _factor(np.abs(rng.normal(size=99)))
        shares.append(np.mean(np.abs(rng.normal(size=500)) <= width))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)


def test_the_margin_grows_with_the_spread() -> None:
    """Errors in proportion to it have a factor, whatever their size."""
    spreads = np.linspace(0.1, 1.0, 99)
    assert _factor(3 * (spreads + LEAST_SPREAD), spreads) == pytest.approx(3)


@pytest.mark.parametrize("rows", [MIN_GROUP_ROWS - 1, MIN_GROUP_ROWS])
def test_a_group_with_enough_rows_has_its_own_factor(rows: int) -> None:
    groups = np.repeat([ONE_GROUP, OTHER_GROUP], [200, rows])
    errors = np.repeat([1.0, 3.0], [200, rows])
    spreads = np.full(len(errors), 1 - LEAST_SPREAD)
    folds = np.zeros(len(errors), dtype=np.int64)
    intervals = calibrated(
        {"power_w": errors}, {"power_w": spreads}, _without_inputs(errors), groups, folds
    )
    expected = {("power_w", ONE_GROUP): 1.0}
    if rows >= MIN_GROUP_ROWS:
        expected["power_w", OTHER_GROUP] = 3.0
    assert intervals.by_group == expected


def test_rows_without_a_measurement_do_not_count() -> None:
    errors = np.arange(1.0, 100.0)
    thinned = np.concatenate([errors, np.full(500, np.nan)])
    spreads = np.full(len(thinned), 1 - LEAST_SPREAD)
    intervals = calibrated(
        {"energy_mj": thinned, "power_w": spreads * np.nan},
        {"energy_mj": spreads, "power_w": spreads},
        _without_inputs(thinned),
        spreads,
        np.zeros(len(thinned), dtype=np.int64),
    )
    assert dict(intervals.pooled) == {"energy_mj": 90.0}


def test_easy_rows_have_narrow_intervals_and_hard_rows_wide_ones() -> None:
    """One group, no spread: only the inputs say which rows are hard."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, ROWS, 3)).astype(np.float32)
    scales = 0.05 * np.exp(inputs[:, :, 0])
    errors = scales * np.abs(rng.normal(size=(2, ROWS)))
    intervals = _of_runtime(errors[0], inputs[0])
    margins = _margins(intervals, inputs[1])[:, 0]
    is_within = errors[1] <= margins
    is_hard = scales[1] > 0.05
    for rows in (is_hard, ~is_hard):
        assert np.mean(is_within[rows]) == pytest.approx(0.9, abs=0.04)
    assert np.median(margins[is_hard]) > 2.5 * np.median(margins[~is_hard])


def test_what_a_network_learned_by_heart_does_not_narrow_intervals() -> None:
    """Inputs that say nothing of the errors: the factor is that of rows which no network saw."""
    rng = np.random.default_rng(0)
    count = MIN_NETWORK_ROWS
    errors = np.abs(rng.standard_t(2, size=(5, count)))
    inputs = rng.normal(size=(5, count, 60)).astype(np.float32)
    intervals = _of_runtime(errors[0], inputs[0])
    assert intervals.networks
    shares = []
    for new_errors, new_inputs in zip(errors[1:], inputs[1:], strict=True):
        shares.append(np.mean(new_errors <= _margins(intervals, new_inputs)[:, 0]))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.03)


def test_an_output_that_was_never_measured_is_as_uncertain_as_the_runtime() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, 2)).astype(np.float32)
    errors = np.abs(rng.normal(size=ROWS))
    intervals = _of_runtime(errors, inputs)
    runtime, throughput = _margins(intervals, inputs[:20], ("runtime_us", "tflops")).T
    np.testing.assert_allclose(runtime, throughput, rtol=1e-6)


def test_beyond_the_rows_that_it_comes_from_a_correction_stays_the_same() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, 2)).astype(np.float32)
    intervals = _of_runtime(np.exp(inputs[:, 0]) * np.abs(rng.normal(size=ROWS)), inputs)
    edge = intervals.reach.highest[None]
    assert np.array_equal(_margins(intervals, edge), _margins(intervals, edge + 100))
    assert not np.array_equal(_margins(intervals, edge), _margins(intervals, 0 * edge))


def test_the_margin_of_an_output_does_not_depend_on_the_others() -> None:
    """Networks of several outputs lie side by side in the same matrices."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(ROWS, 2)).astype(np.float32)
    spread, folds = np.zeros(ROWS), np.arange(ROWS) % 4
    errors = {"runtime_us": 0.1 * np.exp(inputs[:, 0]), "power_w": 0.1 * np.exp(inputs[:, 1])}
    both = calibrated(errors, dict.fromkeys(errors, spread), inputs, spread, folds)
    together = _margins(both, inputs[:50], ("power_w", "runtime_us"))
    for column, name in enumerate(("power_w", "runtime_us")):
        alone = calibrated({name: errors[name]}, {name: spread}, inputs, spread, folds)
        np.testing.assert_allclose(
            together[:, column], _margins(alone, inputs[:50], (name,))[:, 0], rtol=1e-5
        )
    assert not np.allclose(together[:, 0], together[:, 1])
