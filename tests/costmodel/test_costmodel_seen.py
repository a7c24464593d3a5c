"""What networks see of a query: nothing beyond the training rows, and numbers near 0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from costmodel.seen import INPUTS, Seen, middle_of
from costmodel.terms import QUANTITIES

Matrix = npt.NDArray[np.float32]


def _rows() -> Matrix:
    drawn = np.random.default_rng(0).uniform(1, 1000, (50, len(QUANTITIES)))
    return drawn.astype(np.float32)


def _seen(rows: Matrix) -> Matrix:
    """Inputs of a network that was fitted on these rows[n, len(QUANTITIES)]."""
    inputs: Matrix = Seen.of(rows, middle_of(rows))(rows)
    return inputs


def test_inputs_are_logarithms_about_their_mean() -> None:
    rows = _rows()
    inputs = _seen(rows)
    assert inputs.shape == (50, len(INPUTS))
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-5)
    logs = np.log(rows[:, QUANTITIES.index("dram_gbps")])
    of_column = inputs[:, INPUTS.index("dram_gbps")]
    np.testing.assert_allclose(of_column, logs - logs.mean(), atol=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_nothing_beyond_the_rows_is_seen(factor: float) -> None:
    rows = _rows()
    seen = Seen.of(rows, middle_of(rows))
    corner = rows.min(axis=0) if factor < 1 else rows.max(axis=0)
    np.testing.assert_array_equal(seen(factor * corner[np.newaxis]), seen(corner[np.newaxis]))


def test_fewer_rows_reach_less_far_about_the_same_middle() -> None:
    """As in the first fit, which is without a fifth of the layers."""
    rows = _rows()
    fewer = Seen.of(rows[:10], middle_of(rows))
    np.testing.assert_array_equal(fewer(rows[:10]), _seen(rows)[:10])
    assert (fewer(rows).max(axis=0) <= _seen(rows).max(axis=0)).all()


def test_what_is_0_has_an_input() -> None:
    rows = np.zeros((3, len(QUANTITIES)), dtype=np.float32)
    np.testing.assert_allclose(_seen(rows), 0, atol=1e-6)
