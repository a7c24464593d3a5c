"""Carry the dtypes that array libraries lack: bf16 as uint16, fp8_e4m3 as uint8, bit by bit.

E4M3 after Micikevicius et al., "FP8 formats for deep learning" (arXiv 2209.05433): bias 7, no
infinities, largest value 448, NaN where all seven bits below the sign are set.
Works on NumPy and CuPy arrays alike; `xp` is the module.
"""

from __future__ import annotations

from functools import cache

from agent.operands import Array, ArrayModule

CARRIERS = {
    "fp64": "float64",
    "fp32": "float32",
    "tf32": "float32",
    "fp16": "float16",
    "bf16": "uint16",
    "fp8_e4m3": "uint8",
}
"""Floating-point dtype -> the array library's dtype that holds it."""
INTEGERS = ("int8", "int32")
"""Dtype of operands and of their C; an array library has both."""
NAN_BITS = {"bf16": 0x7FC0, "fp8_e4m3": 0x7F, "int32": -(2**31)}
"""A NaN, where the carrier holds bits; for int32 the number that is farthest from every product."""
INT8_MAX = 127


def carrier(dtype: str) -> str:
    """The array library's dtype that holds numbers of this one."""
    return dtype if dtype in INTEGERS else CARRIERS[dtype]


def widen(xp: ArrayModule, array: Array, dtype: str) -> Array:
    """The values as float64, exactly."""
    if dtype == "bf16":
        bits = array.astype(xp.uint32) << 16
        return bits.view(xp.float32).astype(xp.float64)
    if dtype == "fp8_e4m3":
        return _e4m3_values(xp)[array]
    return array.astype(xp.float64)


def narrow(xp: ArrayModule, array: Array, dtype: str) -> Array:
    """A float32 array in the carrier of `dtype`, rounded to nearest even.

    Beyond the largest number of fp8 and int8 it becomes that number.
    """
    if dtype == "bf16":
        bits = array.view(xp.uint32)
        to_even = 0x7FFF + ((bits >> 16) & 1)
        return ((bits + to_even) >> 16).astype(xp.uint16)
    if dtype == "fp8_e4m3":
        return _narrow_e4m3(xp, array)
    if dtype == "int8":
        array = xp.clip(xp.rint(array), -INT8_MAX, INT8_MAX)
    return array.astype(carrier(dtype))


def poison(array: Array, dtype: str) -> None:
    """Fill with NaN, or with NAN_BITS of an integer."""
    array.fill(NAN_BITS.get(dtype, float("nan")))


@cache
def _e4m3_values(xp: ArrayModule) -> Array:
    """float64[256]: the value of each bit pattern."""
    bits = xp.arange(256)
    exponent = (bits >> 3) & 15
    mantissa = (bits & 7).astype(xp.float64)
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    subnormal = mantissa / 8 * 2.0**-6
    magnitude = xp.where(exponent > 0, normal, subnormal)
    magnitude = xp.where((bits & 0x7F) == 0x7F, float("nan"), magnitude)
    return xp.where(bits >= 128, -magnitude, magnitude)


def _narrow_e4m3(xp: ArrayModule, array: Array) -> Array:
    """To the nearest of the 127 magnitudes, ties to the even pattern, beyond 448 to 448."""
    magnitudes = _e4m3_values(xp)[:127]
    middles = (magnitudes[:-1] + magnitudes[1:]) / 2
    wide = xp.abs(array).astype(xp.float64)
    # The two searches differ only at a tie.
    up = xp.searchsorted(middles, wide, side="right")
    down = xp.searchsorted(middles, wide, side="left")
    nearest = xp.where(up % 2 == 0, up, down)
    signed = nearest + 128 * xp.signbit(array)
    return xp.where(xp.isnan(array), 0x7F, signed).astype(xp.uint8)
