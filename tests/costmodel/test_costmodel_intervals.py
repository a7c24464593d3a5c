"""Widths of intervals: nine of ten new rows are within, for each output and group by itself."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.intervals import MIN_GROUP_ROWS, SPREAD_WEIGHT, Values, calibrated

ONE_GROUP = 0.0
OTHER_GROUP = 1.0


def _width(errors: Values, spreads: Values | None = None) -> float:
    """The pooled width of one output."""
    spread = np.zeros(len(errors)) if spreads is None else spreads
    widths = calibrated({"runtime_us": errors}, {"runtime_us": spread}, np.zeros(len(errors)))
    return widths.pooled["runtime_us"]


@pytest.mark.parametrize(
    ("rows", "rank"),
    [(99, 90), (199, 180), (100, 91), (9, 9), (10, 10), (5, 5), (1, 1)],
)
def test_the_width_is_the_error_that_a_tenth_of_new_rows_exceeds(rows: int, rank: int) -> None:
    """One of n + 1 equally likely places: the ceil(0.9 (n + 1))-th of n errors, or the largest."""
    errors = np.random.default_rng(rows).permutation(np.arange(1.0, rows + 1))
    assert _width(errors) == rank


def test_nine_of_ten_new_rows_are_within() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        width = _width(np.abs(rng.normal(size=99)))
        shares.append(np.mean(np.abs(rng.normal(size=500)) <= width))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)


def test_the_spread_is_part_of_the_margin() -> None:
    """Errors that the spread explains leave no width; an interval is never narrower than that."""
    spreads = np.linspace(0.1, 1.0, 99)
    explained = float(SPREAD_WEIGHT) * spreads
    assert _width(explained, spreads) == pytest.approx(0.0, abs=1e-12)
    assert _width(explained / 2, spreads) == 0.0
    assert _width(explained + 0.25, spreads) == pytest.approx(0.25)


@pytest.mark.parametrize("rows", [MIN_GROUP_ROWS - 1, MIN_GROUP_ROWS])
def test_a_group_with_enough_rows_has_its_own_width(rows: int) -> None:
    groups = np.repeat([ONE_GROUP, OTHER_GROUP], [200, rows])
    errors = np.repeat([1.0, 3.0], [200, rows])
    widths = calibrated({"power_w": errors}, {"power_w": np.zeros(len(errors))}, groups)
    expected = {("power_w", ONE_GROUP): 1.0}
    if rows >= MIN_GROUP_ROWS:
        expected["power_w", OTHER_GROUP] = 3.0
    assert widths.by_group == expected


def test_rows_without_a_measurement_do_not_count() -> None:
    errors = np.arange(1.0, 100.0)
    thinned = np.concatenate([errors, np.full(500, np.nan)])
    zeros = np.zeros(len(thinned))
    widths = calibrated(
        {"energy_mj": thinned, "power_w": zeros * np.nan},
        {"energy_mj": zeros, "power_w": zeros},
        zeros,
    )
    assert dict(widths.pooled) == {"energy_mj": 90.0}
