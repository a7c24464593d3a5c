"""Launches of a CuPy kernel with everything prepared: a plain launch costs 2 us instead of CuPy's 8 to 10, and a graph has hundreds.

The argument arrays that the driver reads are built once per operand set and kept alive by the launcher.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import cupy

from agent.kernels import Operands
from gemmcast.gemm import Gemm

Dims = Sequence[int]
# along x, y and z


def gemm_arguments(gemm: Gemm, sets: Sequence[Operands]) -> list[tuple[Any, ...]]:
    """(a, b, c, m, n, k, alpha, beta) for each set; alpha and beta are double where the operands are."""
    pointer, whole, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_double if gemm.dtype == "fp64" else ctypes.c_float
    rest = (whole(gemm.m), whole(gemm.n), whole(gemm.k), real(gemm.alpha), real(gemm.beta))
    return [(pointer(one.a.data.ptr), pointer(one.b.data.ptr), pointer(one.c.data.ptr), *rest) for one in sets]


def launcher(kernel: Any, grid: Dims, block: Dims, arguments: Sequence[Sequence[Any]], smem_bytes: int = 0) -> Callable[[int], None]:
    """launch(i) enqueues the kernel with the i-th arguments on the current stream.

    Args:
        kernel: a cupy.RawKernel, or a function of a cupy.RawModule.
        arguments: for each operand set ctypes values, in the kernel's order.
    """
    arrays = [(ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values)) for values in arguments]
    pointers = [ctypes.addressof(array) for array in arrays]
    kept_alive = (kernel, arrays, arguments)
    function, enqueue, stream = kernel.kernel.ptr, cupy.cuda.driver.launchKernel, cupy.cuda.get_current_stream

    def launch(i: int) -> None:
        assert kept_alive
        enqueue(function, *grid, *block, smem_bytes, stream().ptr, pointers[i], 0)

    return launch
