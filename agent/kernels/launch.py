"""Prepared launches of CuPy kernels: 2 us each instead of CuPy's 8 to 10; a graph has hundreds.

The argument arrays that the driver reads are built once for all operand sets. The launcher keeps
them alive. Knows no operand but by its address, and no kernel but by its arguments.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import cupy
import numpy as np

from agent.kernels import Launch
from agent.operands import Addresses, Operands, addresses
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

Dims = Sequence[int]
"""Along x, y and z."""
Scalar = ctypes.c_int | ctypes.c_longlong | ctypes.c_float | ctypes.c_double
"""An argument that is the same in every launch."""


def gemm_launcher(
    kernel: cupy.RawKernel,
    grid: Dims,
    block: Dims,
    gemm: Gemm,
    sets: Sequence[Operands],
    smem_bytes: int = 0,
) -> Launch:
    """Of a kernel with the arguments (a, b, c, m, n, k, alpha, beta).

    alpha and beta are double for fp64, float for every other dtype.
    """
    real = ctypes.c_double if gemm.dtype == "fp64" else ctypes.c_float
    scalars = (
        ctypes.c_int(gemm.m),
        ctypes.c_int(gemm.n),
        ctypes.c_int(gemm.k),
        real(gemm.alpha),
        real(gemm.beta),
    )
    return launcher(kernel, grid, block, addresses(sets), scalars, smem_bytes)


def launcher(
    kernel: cupy.RawKernel,
    grid: Dims,
    block: Dims,
    pointers: Addresses,
    scalars: Sequence[Scalar] = (),
    smem_bytes: int = 0,
    held: object = None,
) -> Launch:
    """launch(i) enqueues the kernel with the i-th row of pointers on the current stream.

    Args:
        kernel: a cupy.RawKernel, or a function of a cupy.RawModule.
        pointers: uint64[launches, pointers], the kernel's first arguments.
        scalars: the rest of its arguments.
        smem_bytes: dynamic shared memory of one block.
        held: arrays besides the operands that pointers point to; they live as long as `launch`.
    """
    pointers = np.ascontiguousarray(pointers)
    arguments = _argument_table(pointers, scalars)
    row_bytes = arguments.strides[0]
    first_row = arguments.ctypes.data
    rows = [first_row + i * row_bytes for i in range(len(arguments))]
    # The driver reads through these addresses: what they point to must live as long as `launch`.
    kept_alive = (kernel, pointers, scalars, arguments, held)
    function = kernel.kernel.ptr
    enqueue = cupy.cuda.driver.launchKernel
    current_stream = cupy.cuda.get_current_stream

    def launch(i: int) -> None:
        """Enqueue one launch."""
        assert kept_alive
        enqueue(function, *grid, *block, smem_bytes, current_stream().ptr, rows[i], 0)

    return launch


def _argument_table(pointers: Addresses, scalars: Sequence[Scalar]) -> Addresses:
    """uint64[launches, arguments]: where the driver finds each argument of each launch."""
    launches, leading = pointers.shape
    table = np.empty((launches, leading + len(scalars)), np.uint64)
    places = np.arange(pointers.size).reshape(pointers.shape)
    table[:, :leading] = pointers.ctypes.data + pointers.itemsize * places
    table[:, leading:] = [ctypes.addressof(scalar) for scalar in scalars]
    return table


def check_resources(kernel: cupy.RawKernel, name: str, threads: int, smem_bytes: int) -> None:
    """Refuse a kernel of which no block fits on this GPU.

    Args:
        name: for the reason.
        threads: of one block.
        smem_bytes: dynamic shared memory of one block.

    Raises:
        MeasurementError: "unsupported".
    """
    per_block_bytes = cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
    left_bytes = per_block_bytes - kernel.shared_size_bytes
    if smem_bytes > left_bytes:
        need = f"{name} needs {smem_bytes} bytes of dynamic shared memory"
        raise MeasurementError("unsupported", f"{need}, this GPU has {left_bytes} left for it")
    most = kernel.max_threads_per_block
    if threads > most:
        need = f"{name} has {kernel.num_regs} registers a thread"
        limit = f"so at most {most} threads a block, not {threads}"
        raise MeasurementError("unsupported", f"{need}, {limit}")


def kernel_facts(kernel: cupy.RawKernel, threads: int, smem_bytes: int = 0) -> Row:
    """Columns of the sample that are read from a compiled kernel.

    Args:
        threads: of one block.
        smem_bytes: dynamic shared memory of one block.
    """
    blocks_per_sm = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
        kernel.kernel.ptr, threads, smem_bytes
    )
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    return {
        "regs": kernel.num_regs,
        "smem_bytes": kernel.shared_size_bytes + smem_bytes,
        "spill_bytes": kernel.local_size_bytes,
        "occupancy": blocks_per_sm * threads / properties["maxThreadsPerMultiProcessor"],
        "block_threads": threads,
    }
