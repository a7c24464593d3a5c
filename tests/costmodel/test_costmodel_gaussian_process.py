"""A Gaussian process corrects little with few rows, and much with many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from costmodel.gaussian_process import Points, fit_process

FAR = 100.0
OFFSET = 0.2
NOISE = 0.05


def _points(count: int, *, kind: float = 1.0, shapes: int | None = None) -> Points:
    """Far from each other; of as many shapes, or of so many."""
    numbers = np.arange(count, dtype=np.float64)[:, np.newaxis]
    kinds = np.full((count, 1), kind)
    shape_of = numbers if shapes is None else numbers % shapes
    return Points(inputs=FAR * numbers, kinds=kinds, groups=kinds, shapes=shape_of)


def _values(count: int, offset: float = OFFSET) -> npt.NDArray[np.float64]:
    return offset + NOISE * np.random.default_rng(0).standard_normal(count)


def _at_new_place(points: Points, values: npt.NDArray[np.float64], kind: float = 1.0) -> float:
    process = fit_process(points, values)
    assert process is not None
    asked = Points(
        inputs=np.array([[-FAR]]),
        kinds=np.array([[kind]]),
        groups=np.array([[kind]]),
        shapes=np.array([[-1.0]]),
    )
    return float(process.value(asked)[0, 0])


def test_many_rows_give_the_offset_of_all() -> None:
    assert _at_new_place(_points(200), _values(200)) == pytest.approx(OFFSET, abs=0.01)


def test_an_offset_that_noise_may_explain_is_shrunken() -> None:
    small = _values(6, offset=0.01)
    assert abs(_at_new_place(_points(6), small)) < abs(small.mean())


def test_rows_of_one_shape_say_little_of_others() -> None:
    """Ten rows of each shape have much in common, and shapes that are near have nothing."""
    rng = np.random.default_rng(1)
    shape_of = np.repeat(np.arange(12.0), 10)[:, np.newaxis]
    by_shape = 0.1 * rng.standard_normal(12)
    values = by_shape[shape_of[:, 0].astype(int)] + 0.01 * rng.standard_normal(120)
    points = _points(120)._replace(inputs=0.3 * shape_of, shapes=shape_of)
    process = fit_process(points, values)
    assert process is not None
    asked = points.take(np.arange(0, 120, 10))
    assert np.abs(process.value(asked)).mean() < 0.4 * np.abs(by_shape).mean()


def test_kinds_have_offsets_of_their_own() -> None:
    one, other = _points(60, kind=1.0), _points(60, kind=2.0)
    both = Points(*(np.concatenate(values) for values in zip(one, other, strict=True)))
    both = both._replace(shapes=np.arange(120.0)[:, np.newaxis], inputs=_points(120).inputs)
    values = np.concatenate([_values(60), _values(60, offset=-OFFSET)])
    assert _at_new_place(both, values, kind=1.0) == pytest.approx(OFFSET, abs=0.03)
    assert _at_new_place(both, values, kind=2.0) == pytest.approx(-OFFSET, abs=0.03)


def test_an_outlier_is_cut_off() -> None:
    values = _values(30)
    expected = _at_new_place(_points(30), values)
    values[4] = 50.0
    assert _at_new_place(_points(30), values) == pytest.approx(expected, abs=0.05)


def test_near_rows_correct_where_they_are() -> None:
    place = np.linspace(0, 6, 120)[:, np.newaxis]
    points = _points(120)._replace(inputs=place)
    process = fit_process(points, 0.3 * np.sin(place[:, 0]) + _values(120, 0.0) / 5)
    assert process is not None
    asked = _points(1)._replace(inputs=np.array([[np.pi / 2]]), shapes=np.array([[-1.0]]))
    assert process.value(asked)[0, 0] == pytest.approx(0.3, abs=0.05)


def test_two_rows_are_no_reason_to_correct() -> None:
    values = np.array([0.5, np.nan, 0.5])
    assert fit_process(_points(3), values) is None
