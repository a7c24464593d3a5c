"""Power windows of older rows whose operands stayed in L2, though their cells are cold.

Until schema 3 a window rotated over at most SETS operand sets and did not evict L2, while the burst
before it did. Such rows keep their readings and are read as `power_disputed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gemmcast.errors import InputError
from gemmcast.gemm import Gemm

COLD_SINCE: Final = 4
"""Schema."""
SETS: Final = 512
STATUS: Final = "power_disputed"
REASON: Final = "the operands stayed in L2 during the power window: measured before schema 4"
COLUMNS: Final = ("m", "n", "k", "batch", "dtype", "cache", "l2_bytes", "power_w", "status")
"""What `is_warm` reads; absent is null."""


def is_warm(row: Mapping[str, Any], schema_version: int) -> bool:
    """Whether a row that is ok has such a window.

    Args:
        schema_version: in which the row was written.
    """
    if schema_version >= COLD_SINCE or row["status"] != "ok" or row["cache"] != "cold":
        return False
    if row["power_w"] is None or row["l2_bytes"] is None:
        return False
    try:
        gemm = Gemm(m=row["m"], n=row["n"], k=row["k"], batch=row["batch"], dtype=row["dtype"])
    except InputError:
        # whoever uses the row says so
        return False
    fits: bool = SETS * gemm.operand_bytes < row["l2_bytes"]
    return fits
