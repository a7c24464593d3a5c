"""Arenas of random numbers in the GPU's memory, of which operand sets are windows.

An arena grows and never shrinks. Inputs are never written, so no result becomes an input.
"""

from __future__ import annotations

import cupy

from agent.dtypes import carrier, narrow
from agent.operands import Array
from gemmcast.errors import MeasurementError

RANDOM_BLOCK = 2**24
"""Elements that are drawn at once: the float32 numbers need memory too."""
INT8_SPREAD = 32.0
"""Standard deviation of int8 operands: quantised layers use most of -127 to 127."""
MAX_FREE_SHARE = 0.95
"""Of the free memory that an arena may take."""
GROWTH = 2
"""An arena that grows becomes so many times as large, where that is at most SPARE_SHARE of the free
memory."""
SPARE_SHARE = 0.1


class CudaArenas:
    """Arenas by name."""

    def __init__(self) -> None:
        self._arenas: dict[str, Array] = {}

    def get(self, name: str, dtype: str, elements: int) -> Array:
        """At least so many standard normal numbers; for int8 INT8_SPREAD times as large, rounded.

        Whoever holds windows of an arena that is too small must drop them first, or its memory
        cannot be used for the larger one.

        Raises:
            MeasurementError: "out_of_memory".
        """
        arena = self._arenas.get(name)
        if arena is not None and arena.size >= elements:
            return arena
        old_elements = 0 if arena is None else arena.size
        # The last references: its memory is free from here on.
        arena = None
        self._arenas.pop(name, None)
        size = _affordable(elements, GROWTH * old_elements, cupy.dtype(carrier(dtype)).itemsize)
        arena = cupy.empty(size, dtype=carrier(dtype))
        self._arenas[name] = arena
        _fill(arena, dtype)
        return arena


def _fill(arena: Array, dtype: str) -> None:
    for start in range(0, arena.size, RANDOM_BLOCK):
        count = min(RANDOM_BLOCK, arena.size - start)
        block = cupy.random.standard_normal(count, dtype=cupy.float32)
        if dtype == "int8":
            block *= INT8_SPREAD
        arena[start : start + count] = narrow(cupy, block, dtype)


def _affordable(needed: int, wanted: int, item_bytes: int) -> int:
    """Elements: as many as wanted where there is ample room, else as many as needed."""
    free_bytes, _ = cupy.cuda.runtime.memGetInfo()
    free_bytes += cupy.get_default_memory_pool().free_bytes()
    needed_bytes = needed * item_bytes
    if needed_bytes > MAX_FREE_SHARE * free_bytes:
        reason = (
            f"operands need {needed_bytes / 2**30:.1f} GiB, {free_bytes / 2**30:.1f} GiB are free"
        )
        raise MeasurementError("out_of_memory", reason)
    if wanted * item_bytes < SPARE_SHARE * free_bytes:
        return max(needed, wanted)
    return needed
