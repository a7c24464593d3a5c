"""The networks: what a fit learns, what it leaves alone, and that its gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from costmodel.ensemble import Ensemble, Size
from costmodel.network import HUBER, STEEPNESS, gradients

Matrix = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
STEPS = 2000


def _inputs(rows: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).uniform(-2, 2, (rows, 3)).astype(np.float32)


def _bend(inputs: Matrix) -> Values:
    x = inputs.astype(np.float64)
    return np.abs(x[:, 0]) - 0.5 * x[:, 1] * (x[:, 2] > 0)


def _fitted(inputs: Matrix, target: Values, steps: int = STEPS) -> Ensemble:
    return Ensemble({"runtime": Size(32, 2)}, steps).fit(inputs, {"runtime": target})


def _mean(of: Ensemble, inputs: Matrix) -> Matrix:
    mean: Matrix = of.predict(inputs).mean
    return mean


def _error(of: Ensemble, inputs: Matrix, target: Values) -> float:
    return float(np.mean(np.abs(_mean(of, inputs)[:, 0] - target)))


def test_a_bend_is_learned_and_the_spread_shows_where_members_differ() -> None:
    inputs, new = _inputs(3000), _inputs(500, seed=1)
    of = _fitted(inputs, _bend(inputs))
    mean, spread = of.predict(new)
    assert mean.shape == spread.shape == (500, 1)
    assert _error(of, new, _bend(new)) < 0.1 * np.std(_bend(new))
    assert (spread >= 0).all()
    assert spread.max() > 1e-3


def test_the_spread_is_the_mean_distance_of_the_members() -> None:
    inputs = _inputs(600)
    both = _fitted(inputs, _bend(inputs), 50)
    # the members of two networks are fitted with seeds 0 and 1
    first = Ensemble({"runtime": Size(32, 1)}, 50).fit(inputs, {"runtime": _bend(inputs)})
    mean, spread = both.predict(inputs)
    distance = np.abs(_mean(first, inputs) - mean)
    np.testing.assert_allclose(spread, distance, atol=1e-4)


def test_outliers_do_not_bend_the_rest() -> None:
    """Every twentieth measurement is off by e^5; the others are predicted nearly as well."""
    inputs, new = _inputs(3000), _inputs(500, seed=1)
    target = _bend(inputs)
    target[::20] += 5
    assert _error(_fitted(inputs, target), new, _bend(new)) < 0.2


def test_rows_that_were_not_measured_are_left_out() -> None:
    inputs = _inputs(600)
    target = _bend(inputs)
    measured = np.arange(600) % 3 > 0
    with_gaps = _fitted(inputs, np.where(measured, target, np.nan), 50)
    without = _fitted(inputs[measured], target[measured], 50)
    with_gaps_weights = with_gaps.second_[0].weights
    np.testing.assert_allclose(with_gaps_weights, without.second_[0].weights, atol=1e-5)


def test_the_first_prediction_is_an_input_of_the_others() -> None:
    """Power depends on runtime and was measured in sixty rows of 3,000.

    It is predicted nearly as well as runtime, and far better than from those rows alone.
    """
    inputs, new = _inputs(3000), _inputs(500, seed=1)
    runtime = _bend(inputs)
    power = np.where(np.arange(3000) % 50 == 0, 0.5 * runtime, np.nan)
    sizes = {"runtime": Size(32, 2), "power": Size(16, 2)}
    both = Ensemble(sizes, STEPS).fit(inputs, {"runtime": runtime, "power": power})
    alone = Ensemble({"power": Size(16, 2)}, STEPS).fit(inputs, {"power": power})
    expected = 0.5 * _bend(new)
    error = float(np.mean(np.abs(_mean(both, new)[:, 1] - expected)))
    assert error < 0.1 * np.std(_bend(new))
    assert error < 0.5 * _error(alone, new, expected)
    # alone or together, the leader is the same
    leader = _fitted(inputs, runtime)
    np.testing.assert_allclose(_mean(both, new)[:, 0], _mean(leader, new)[:, 0], atol=1e-4)


def test_an_input_that_hardly_varies_does_not_decide() -> None:
    """Ten rows of another kind have another third input, and are no different otherwise."""
    inputs, new = _inputs(2000), _inputs(500, seed=1)
    inputs[:, 2] = 0.0
    new[:, 2] = 0.35
    inputs[:10, 2] = 0.35
    target = np.abs(inputs[:, 0].astype(np.float64))
    target[:10] += 0.02
    expected = np.abs(new[:, 0].astype(np.float64))
    assert _error(_fitted(inputs, target), new, expected) < 0.1


def test_rows_that_are_all_alike_are_predicted() -> None:
    inputs = np.ones((30, 3), dtype=np.float32)
    mean, spread = _fitted(inputs, np.full(30, 2.5), 20).predict(inputs)
    np.testing.assert_allclose(mean[:, 0], 2.5, atol=1e-2)
    assert np.isfinite(spread).all()


def _loss(parameters: list[Matrix], inputs: Matrix, target: Matrix) -> float:
    """The mean of Huber's loss, in float64."""

    def silu(x: Values) -> Values:
        return np.asarray(x / (1 + np.exp(-STEEPNESS * x)))

    w1, w2, w3, b1, b2, b3 = (values.astype(np.float64) for values in parameters)
    hidden1 = silu(inputs @ w1 + b1)
    hidden2 = silu(hidden1 @ w2 + b2)
    error = np.abs((hidden2 @ w3 + b3)[:, 0] - target)
    return float(np.mean(np.where(error < HUBER, error**2 / (2 * HUBER), error - HUBER / 2)))


@pytest.mark.parametrize("place", range(6))
def test_gradients_are_those_of_hubers_loss(place: int) -> None:
    rng = np.random.default_rng(place)
    shapes = ((3, 5), (5, 5), (5, 1), (5,), (5,), (1,))
    parameters = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    inputs = _inputs(40)
    target = rng.standard_normal(40).astype(np.float32)
    direction = rng.standard_normal(shapes[place]).astype(np.float32)
    step = np.float32(1e-3)
    ahead, behind = list(parameters), list(parameters)
    ahead[place] = parameters[place] + step * direction
    behind[place] = parameters[place] - step * direction
    difference = _loss(ahead, inputs, target) - _loss(behind, inputs, target)
    by_difference = difference / (2 * float(step))
    slope = float(np.sum(gradients(parameters, inputs, target)[place] * direction))
    assert slope == pytest.approx(by_difference, rel=0.03, abs=2e-3)
