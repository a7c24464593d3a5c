"""What learning curves say of one another."""

from __future__ import annotations

import pytest

from costmodel.evaluate.learning_curve import (
    Points,
    cells_for_same_error,
    cells_needed,
    mean_errors,
    over_all,
)


def points(**errors: float) -> Points:
    """`c100=8.0`: 8 % of the runtime with 100 cells."""
    return {int(name[1:]): {"runtime_us": {"mape": error}} for name, error in errors.items()}


def test_a_line_is_a_power_law_between_its_points() -> None:
    line = {100: 16.0, 400: 8.0, 1600: 4.0}
    assert cells_needed(line, 16.0) == pytest.approx(100)
    assert cells_needed(line, 8.0) == pytest.approx(400)
    assert cells_needed(line, 16 / 2**0.5) == pytest.approx(200)
    assert cells_needed(line, 4.0) == pytest.approx(1600)


def test_beyond_the_line_nothing_is_said() -> None:
    line = {100: 16.0, 400: 8.0}
    assert cells_needed(line, 17.0) is None
    assert cells_needed(line, 7.0) is None
    assert cells_needed({100: 5.0, 400: 5.0}, 5.0) is None


def test_the_first_crossing_counts() -> None:
    assert cells_needed({100: 16.0, 200: 8.0, 400: 9.0, 800: 6.0}, 8.5) < 200  # type: ignore[operator]


def test_half_the_cells_for_the_same_error() -> None:
    reference = points(c100=16.0, c400=8.0)
    ratios = cells_for_same_error(points(c100=16 / 2**0.5, c400=4.0), reference)
    assert ratios[100]["runtime_us"]["mape"] == pytest.approx(0.5)
    assert ratios[400]["runtime_us"] == {}


def test_over_all() -> None:
    ratios = over_all(points(c10=8.0, c20=4.4), points(c99=4.0)[99])
    assert ratios[10]["runtime_us"]["mape"] == 2.0
    assert ratios[20]["runtime_us"]["mape"] == pytest.approx(1.1)
    assert over_all(points(c10=8.0), {}) == {10: {}}


def test_a_target_that_a_seed_lacks_has_no_mean() -> None:
    one = {"runtime_us": {"mape": 2.0}, "power_w": {"mape": 1.0}}
    other = {"runtime_us": {"mape": 4.0}}
    assert mean_errors([one, other]) == {"runtime_us": {"mape": 3.0}}
