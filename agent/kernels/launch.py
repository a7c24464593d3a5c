"""Launches of a CuPy kernel with everything prepared: a plain launch costs 2 us instead of CuPy's 8 to 10, and a graph has hundreds.

The argument arrays that the driver reads are built once, for all operand sets, and kept alive by the launcher.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from agent.operands import Operands, addresses
from gemmcast.gemm import Gemm

Dims = Sequence[int]
# along x, y and z


def gemm_launcher(kernel: Any, grid: Dims, block: Dims, gemm: Gemm, sets: Sequence[Operands], smem_bytes: int = 0) -> Callable[[int], None]:
    """Of a kernel that takes (a, b, c, m, n, k, alpha, beta); alpha and beta are double where the operands are."""
    whole, real = ctypes.c_int, ctypes.c_double if gemm.dtype == "fp64" else ctypes.c_float
    scalars = (whole(gemm.m), whole(gemm.n), whole(gemm.k), real(gemm.alpha), real(gemm.beta))
    return launcher(kernel, grid, block, addresses(sets), scalars, smem_bytes)


def launcher(
    kernel: Any, grid: Dims, block: Dims, pointers: NDArray[np.uint64], scalars: Sequence[Any] = (), smem_bytes: int = 0
) -> Callable[[int], None]:
    """launch(i) enqueues the kernel with the i-th pointers on the current stream.

    Args:
        kernel: a cupy.RawKernel, or a function of a cupy.RawModule.
        pointers: uint64[launches, arguments], the kernel's first arguments.
        scalars: ctypes values, the rest of them.
    """
    pointers = np.ascontiguousarray(pointers)
    rows, given = pointers.shape
    arguments = np.empty((rows, given + len(scalars)), np.uint64)
    arguments[:, :given] = pointers.ctypes.data + pointers.itemsize * np.arange(pointers.size).reshape(pointers.shape)
    arguments[:, given:] = [ctypes.addressof(scalar) for scalar in scalars]
    at = [arguments.ctypes.data + i * arguments.strides[0] for i in range(rows)]
    kept_alive = (kernel, pointers, scalars, arguments)
    function, enqueue, stream = kernel.kernel.ptr, cupy.cuda.driver.launchKernel, cupy.cuda.get_current_stream

    def launch(i: int) -> None:
        assert kept_alive
        enqueue(function, *grid, *block, smem_bytes, stream().ptr, at[i], 0)

    return launch
