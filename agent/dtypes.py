"""How the dtypes that array libraries lack are carried: bf16 as the uint16 of its bits, fp8_e4m3 as the uint8 of its.

Works on NumPy and CuPy arrays alike. E4M3 after Micikevicius et al., "FP8 formats for deep learning" (arXiv 2209.05433): bias 7,
no infinities, largest value 448, NaN where all seven bits are set.
"""

from __future__ import annotations

from functools import cache
from typing import Any

CARRIERS = {"fp64": "float64", "fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "uint16", "fp8_e4m3": "uint8"}


def widen(xp: Any, array: Any, dtype: str) -> Any:
    """As float64, exactly."""
    if dtype == "bf16":
        return (array.astype(xp.uint32) << 16).view(xp.float32).astype(xp.float64)
    if dtype == "fp8_e4m3":
        return _e4m3_values(xp)[array]
    return array.astype(xp.float64)


def narrow(xp: Any, array: Any, dtype: str) -> Any:
    """float32 array -> the carrier of dtype, rounded to nearest even."""
    if dtype == "bf16":
        bits = array.view(xp.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(xp.uint16)
    if dtype == "fp8_e4m3":
        return _narrow_e4m3(xp, array)
    return array.astype(CARRIERS[dtype])


def poison(array: Any, dtype: str) -> None:
    """Fill with NaN."""
    array.fill({"bf16": 0x7FC0, "fp8_e4m3": 0x7F}.get(dtype, float("nan")))


@cache
def _e4m3_values(xp: Any) -> Any:
    """float64[256]: what each bit pattern means."""
    bits = xp.arange(256)
    exponent, mantissa = (bits >> 3) & 15, (bits & 7).astype(xp.float64)
    magnitude = xp.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa / 8 * 2.0**-6)
    magnitude = xp.where((bits & 0x7F) == 0x7F, float("nan"), magnitude)
    return xp.where(bits >= 128, -magnitude, magnitude)


def _narrow_e4m3(xp: Any, array: Any) -> Any:
    """To the nearest of the 127 magnitudes, ties to the even pattern, beyond 448 to 448: as a saturating conversion does."""
    magnitudes = _e4m3_values(xp)[:127]
    middles = (magnitudes[:-1] + magnitudes[1:]) / 2
    wide = xp.abs(array).astype(xp.float64)
    up, down = xp.searchsorted(middles, wide, side="right"), xp.searchsorted(middles, wide, side="left")
    nearest = xp.where(up % 2 == 0, up, down)  # they differ at a tie only
    return xp.where(xp.isnan(array), 0x7F, nearest + 128 * xp.signbit(array)).astype(xp.uint8)
