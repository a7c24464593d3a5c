"""bf16 carried as uint16 and fp8 as uint8, against float64 arithmetic, which is exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from agent.dtypes import CARRIERS, narrow, poison, widen


def _every_bf16() -> npt.NDArray[np.uint16]:
    bits = np.arange(2**16, dtype=np.uint16)
    # Above infinity lie the NaNs.
    return bits[(bits & 0x7FFF) <= 0x7F80]


def _value(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """By the definition: sign, 8 bits of exponent, 7 of mantissa."""
    sign = np.where(bits >> 15, -1.0, 1.0)
    exponent = (bits >> 7 & 0xFF).astype(np.int64)
    mantissa = (bits & 0x7F).astype(np.float64)
    normal = np.ldexp(1 + mantissa / 128, exponent - 127)
    subnormal = np.ldexp(mantissa / 128, -126)
    finite = np.where(exponent == 0, subnormal, normal)
    return sign * np.where(exponent == 255, np.inf, finite)


def test_widening_gives_each_number_exactly() -> None:
    bits = _every_bf16()
    assert len(bits) == 2**16 - 2 * 127
    assert np.array_equal(widen(np, bits, "bf16"), _value(bits))


def test_narrowing_takes_back_what_widening_gave() -> None:
    bits = _every_bf16()
    wide = widen(np, bits, "bf16").astype(np.float32)
    assert np.array_equal(narrow(np, wide, "bf16"), bits)


def test_narrowing_rounds_to_the_nearest_and_halves_to_even() -> None:
    rng = np.random.default_rng(3)
    scales = np.ldexp(1.0, rng.integers(-100, 100, 50_000))
    random = (rng.standard_normal(50_000) * scales).astype(np.float32)
    bits = rng.integers(0x0080, 0x7F00, 5000).astype(np.uint16)
    exact = widen(np, bits, "bf16").astype(np.float32)
    half_way = (exact.view(np.uint32) + 0x8000).view(np.float32)
    values = np.concatenate([random, half_way, -half_way])
    got = narrow(np, values, "bf16")
    # Towards zero; the next one is away from it.
    below = (values.view(np.uint32) >> 16).astype(np.uint16)
    above = below + np.uint16(1)
    near = np.abs(_value(below) - values.astype(np.float64))
    far = np.abs(_value(above) - values.astype(np.float64))
    even = below + (below & 1)
    want = np.where(near < far, below, np.where(far < near, above, even))
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


def _every_e4m3() -> npt.NDArray[np.uint8]:
    bits = np.arange(2**8, dtype=np.uint8)
    # The two NaNs.
    return bits[(bits & 0x7F) != 0x7F]


def _e4m3_value(bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """By the definition: sign, 4 bits of exponent, 3 of mantissa, bias 7."""
    sign = np.where(bits >> 7, -1.0, 1.0)
    exponent = (bits >> 3 & 15).astype(np.int64)
    mantissa = (bits & 7).astype(np.float64)
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    subnormal = np.ldexp(mantissa / 8, -6)
    return sign * np.where(exponent == 0, subnormal, normal)


def _to_e4m3(*values: float) -> list[int]:
    return [int(bits) for bits in narrow(np, np.array(values, dtype=np.float32), "fp8_e4m3")]


def test_widening_gives_each_fp8_number_exactly() -> None:
    bits = _every_e4m3()
    assert len(bits) == 254
    assert np.array_equal(widen(np, bits, "fp8_e4m3"), _e4m3_value(bits))
    assert np.isnan(widen(np, np.array([0x7F, 0xFF], dtype=np.uint8), "fp8_e4m3")).all()
    assert widen(np, bits, "fp8_e4m3").dtype == np.float64


def test_narrowing_takes_back_what_widening_an_fp8_number_gave() -> None:
    bits = _every_e4m3()
    back = narrow(np, widen(np, bits, "fp8_e4m3").astype(np.float32), "fp8_e4m3")
    # Minus zero too.
    assert np.array_equal(back, bits)
    assert back.dtype == np.uint8


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (0.0, 0x00),
        (-0.0, 0x80),
        (1.0, 0x38),
        (-2.0, 0xC0),
        (448.0, 0x7E),
        (-448.0, 0xFE),
        (2.0**-6, 0x08),
        (2.0**-9, 0x01),
        (7 * 2.0**-9, 0x07),
        # Saturates.
        (464.0, 0x7E),
        (1e30, 0x7E),
        (np.inf, 0x7E),
        (-np.inf, 0xFE),
        # Below the smallest: half of it is a tie.
        (2.0**-10, 0x00),
        (-(2.0**-10), 0x80),
        (1.01 * 2.0**-10, 0x01),
        (3 * 2.0**-10, 0x02),
        # Ties to even, over a binade too.
        (1.0625, 0x38),
        (1.1875, 0x3A),
        (1.07, 0x39),
        (432.0, 0x7E),
        (416.0, 0x7D),
        (400.0, 0x7C),
        (1.9375, 0x40),
        (np.nan, 0x7F),
    ],
)
def test_known_values_have_their_fp8_bits(value: float, bits: int) -> None:
    assert _to_e4m3(value) == [bits]


def test_narrowing_to_fp8_rounds_to_the_nearest_and_halves_to_even() -> None:
    rng = np.random.default_rng(4)
    magnitudes = _e4m3_value(np.arange(127, dtype=np.uint8))
    half_way = (magnitudes[1:] + magnitudes[:-1]) / 2
    scales = np.ldexp(1.0, rng.integers(-12, 9, 20_000))
    random = rng.standard_normal(20_000) * scales
    values = np.concatenate([random, half_way, -half_way]).astype(np.float32)
    values = values[np.abs(values) <= 448]
    distance = np.abs(np.abs(values.astype(np.float64))[:, None] - magnitudes)
    nearest = distance == distance.min(axis=1, keepdims=True)
    is_tie = nearest.sum(axis=1) == 2
    even = nearest & (np.arange(127) % 2 == 0)
    magnitude = np.where(is_tie, even.argmax(axis=1), nearest.argmax(axis=1))
    want = magnitude + 128 * np.signbit(values)
    assert is_tie.sum() >= 2 * 126
    assert np.array_equal(narrow(np, values, "fp8_e4m3"), want)


def test_a_matrix_of_fp8_keeps_its_shape() -> None:
    matrix = np.random.default_rng(6).standard_normal((2, 3, 5)).astype(np.float32)
    narrowed = narrow(np, matrix, "fp8_e4m3")
    assert narrowed.shape == (2, 3, 5)
    assert widen(np, narrowed, "fp8_e4m3").shape == (2, 3, 5)
