"""bf16 as the uint16 of its bits, against float64 arithmetic: every bf16 and every float32 is exact there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from agent.numbers import CARRIERS, narrow, poison, widen


def _every_bf16() -> npt.NDArray[np.uint16]:
    bits = np.arange(2**16, dtype=np.uint16)
    return bits[(bits & 0x7FFF) <= 0x7F80]  # above infinity lie the NaNs


def _value(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """By the definition: sign, 8 bits of exponent, 7 of mantissa."""
    sign, exponent, mantissa = np.where(bits >> 15, -1.0, 1.0), (bits >> 7 & 0xFF).astype(np.int64), (bits & 0x7F).astype(np.float64)
    normal = np.ldexp(1 + mantissa / 128, exponent - 127)
    return sign * np.where(exponent == 255, np.inf, np.where(exponent == 0, np.ldexp(mantissa / 128, -126), normal))


def test_widening_gives_each_number_exactly() -> None:
    bits = _every_bf16()
    assert len(bits) == 2**16 - 2 * 127
    assert np.array_equal(widen(np, bits, "bf16"), _value(bits))


def test_narrowing_takes_back_what_widening_gave() -> None:
    bits = _every_bf16()
    assert np.array_equal(narrow(np, widen(np, bits, "bf16").astype(np.float32), "bf16"), bits)


def test_narrowing_rounds_to_the_nearest_and_halves_to_even() -> None:
    rng = np.random.default_rng(3)
    scales = np.ldexp(1.0, rng.integers(-100, 100, 50_000))
    halves = widen(np, rng.integers(0x0080, 0x7F00, 5000).astype(np.uint16), "bf16").astype(np.float32)
    half_way = (halves.view(np.uint32) + 0x8000).view(np.float32)
    values = np.concatenate([(rng.standard_normal(50_000) * scales).astype(np.float32), half_way, -half_way])
    got = narrow(np, values, "bf16")
    below = (values.view(np.uint32) >> 16).astype(np.uint16)  # towards zero; the next one is away from it
    near, far = (np.abs(_value(bits) - values.astype(np.float64)) for bits in (below, below + np.uint16(1)))
    want = np.where(near < far, below, np.where(far < near, below + 1, below + (below & 1)))
    assert np.array_equal(got, want)
    assert (near == far).sum() >= 10_000


def test_a_number_too_large_becomes_infinite_and_nan_stays_nan() -> None:
    values = np.array([3.4e38, -3.4e38, np.inf, -np.inf, np.nan], dtype=np.float32)
    wide = widen(np, narrow(np, values, "bf16"), "bf16")
    assert np.array_equal(wide, [np.inf, -np.inf, np.inf, -np.inf, np.nan], equal_nan=True)


@pytest.mark.parametrize("dtype", CARRIERS)
def test_every_carrier_can_be_poisoned_and_widened(dtype: str) -> None:
    array = narrow(np, np.array([1.0, -0.5], dtype=np.float32), dtype)
    assert str(array.dtype) == CARRIERS[dtype]
    assert np.array_equal(widen(np, array, dtype), [1.0, -0.5])
    poison(array, dtype)
    assert np.isnan(widen(np, array, dtype)).all()
