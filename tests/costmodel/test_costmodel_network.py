"""The networks: what a fit learns, what it leaves alone, and that its slopes are those of the loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from costmodel.network import HUBER, STEEP, Ensemble, Size, _slopes

Values = npt.NDArray[np.float64]
STEPS = 2000


def _inputs(rows: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-2, 2, (rows, 3)).astype(np.float32)


def _bend(inputs: npt.NDArray[np.float32]) -> Values:
    x = inputs.astype(np.float64)
    return np.abs(x[:, 0]) - 0.5 * x[:, 1] * (x[:, 2] > 0)


def _fitted(inputs: npt.NDArray[np.float32], wanted: Values, steps: int = STEPS) -> Ensemble:
    return Ensemble({"runtime": Size(32, 2)}, steps=steps).fit(inputs, np.eye(inputs.shape[1], dtype=np.float32), {"runtime": wanted})


def _error(of: Ensemble, inputs: npt.NDArray[np.float32], wanted: Values) -> float:
    return float(np.mean(np.abs(of.answer(inputs)[:, 0] - wanted)))


def test_a_bend_is_learned_and_where_members_differ_is_told() -> None:
    inputs, asked = _inputs(3000), _inputs(500, seed=1)
    of = _fitted(inputs, _bend(inputs))
    said = of.answer(asked)
    assert said.shape == (500, 1 + 2)
    assert _error(of, asked, _bend(asked)) < 0.1 * np.std(_bend(asked))
    np.testing.assert_allclose(said[:, 1], -said[:, 2], atol=1e-5)  # both as far from their mean
    assert np.abs(said[:, 1]).max() > 1e-3


def test_odd_ones_do_not_bend_the_rest() -> None:
    """Every twentieth measurement is off by a factor of e^5: the others are answered nearly as well as without them."""
    inputs, asked = _inputs(3000), _inputs(500, seed=1)
    odd = _bend(inputs)
    odd[::20] += 5
    assert _error(_fitted(inputs, odd), asked, _bend(asked)) < 0.2


def test_rows_that_were_not_read_are_left_out() -> None:
    inputs = _inputs(600)
    wanted, read = _bend(inputs), np.arange(600) % 3 > 0
    with_holes, without = np.where(read, wanted, np.nan), wanted[read]
    one, other = _fitted(inputs, with_holes, 50), _fitted(inputs[read], without, 50)
    np.testing.assert_allclose(one.second_[0][0], other.second_[0][0], atol=1e-5)


def test_the_first_answer_is_told_to_the_others() -> None:
    """Power goes by runtime and was read in sixty rows of 3,000: it is answered nearly as well as runtime, and far better than from those alone."""
    inputs, asked = _inputs(3000), _inputs(500, seed=1)
    runtime = _bend(inputs)
    power = np.where(np.arange(3000) % 50 == 0, 0.5 * runtime, np.nan)
    shown = np.eye(3, dtype=np.float32)
    both = Ensemble({"runtime": Size(32, 2), "power": Size(16, 2)}, steps=STEPS).fit(inputs, shown, {"runtime": runtime, "power": power})
    alone = Ensemble({"power": Size(16, 2)}, steps=STEPS).fit(inputs, shown, {"power": power})
    said = both.answer(asked)
    assert said.shape == (500, 2 + 4)
    error, error_alone = (float(np.mean(np.abs(answers - 0.5 * _bend(asked)))) for answers in (said[:, 1], alone.answer(asked)[:, 0]))
    assert error < 0.1 * np.std(_bend(asked)) and error < 0.5 * error_alone
    # alone or together, what leads is the same
    leading = Ensemble({"runtime": Size(32, 2)}, steps=STEPS).fit(inputs, shown, {"runtime": runtime}).answer(asked)
    np.testing.assert_allclose(said[:, 0], leading[:, 0], atol=1e-4)


def test_what_hardly_varies_does_not_decide() -> None:
    """Ten rows of another kind, told apart by an input that is the same in all others, and no different otherwise."""
    inputs, asked = _inputs(2000), _inputs(500, seed=1)
    inputs[:, 2], asked[:, 2] = 0.0, 0.35
    inputs[:10, 2] = 0.35
    wanted = np.abs(inputs[:, 0].astype(np.float64))
    wanted[:10] += 0.02
    assert _error(_fitted(inputs, wanted), asked, np.abs(asked[:, 0].astype(np.float64))) < 0.1


def test_one_value_of_everything_is_answered() -> None:
    inputs = np.ones((30, 3), dtype=np.float32)
    said = _fitted(inputs, np.full(30, 2.5), 20).answer(inputs)
    np.testing.assert_allclose(said[:, 0], 2.5, atol=1e-2)
    assert np.isfinite(said).all()


@pytest.mark.parametrize("place", range(6))
def test_slopes_are_those_of_hubers_loss(place: int) -> None:
    rng = np.random.default_rng(place)
    fitted = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (5, 5), (5, 1), (5,), (5,), (1,))]
    inputs, wanted = _inputs(40), rng.standard_normal(40).astype(np.float32)

    def bent(x: Values) -> Values:
        return x / (1 + np.exp(-STEEP * x))

    def loss(values: npt.NDArray[np.float32]) -> float:
        w1, w2, w3, b1, b2, b3 = (x.astype(np.float64) for x in (*fitted[:place], values, *fitted[place + 1 :]))
        off = np.abs((bent(bent(inputs @ w1 + b1) @ w2 + b2) @ w3 + b3)[:, 0] - wanted)
        return float(np.mean(np.where(off < HUBER, off**2 / (2 * HUBER), off - HUBER / 2)))

    along = rng.standard_normal(fitted[place].shape).astype(np.float32)
    step = np.float32(1e-3)
    by_difference = (loss(fitted[place] + step * along) - loss(fitted[place] - step * along)) / (2 * float(step))
    assert float(np.sum(_slopes(fitted, inputs, wanted)[place] * along)) == pytest.approx(by_difference, rel=0.03, abs=2e-3)
