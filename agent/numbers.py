"""How the dtypes that array libraries lack are carried: bf16 as the uint16 of its bits.

Works on NumPy and CuPy arrays alike.
"""

from __future__ import annotations

from typing import Any

CARRIERS = {"fp64": "float64", "fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "uint16"}


def widen(xp: Any, array: Any, dtype: str) -> Any:
    """As float64, exactly."""
    if dtype == "bf16":
        return (array.astype(xp.uint32) << 16).view(xp.float32).astype(xp.float64)
    return array.astype(xp.float64)


def narrow(xp: Any, array: Any, dtype: str) -> Any:
    """float32 array -> the carrier of dtype, rounded to nearest even."""
    if dtype == "bf16":
        bits = array.view(xp.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(xp.uint16)
    return array.astype(CARRIERS[dtype])


def poison(array: Any, dtype: str) -> None:
    """Fill with NaN."""
    array.fill(0x7FC0 if dtype == "bf16" else float("nan"))
