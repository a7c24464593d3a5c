"""A CuPy and libraries on paper, in the host's memory, for the kernel families of CUDA.

Kernels and library calls read their arguments where the real ones do (argument arrays, pointers,
leading dimensions) and multiply float32 with NumPy at once.
"""

from __future__ import annotations

from ctypes import c_float, c_int, c_void_p
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

KERNELS: dict[int, RawKernel] = {}
"""By the address that a launch names."""
THREADS_PER_SM = 2048
NOT_SUPPORTED = 15


def row_major(address: int, rows: int, columns: int, batch: int = 1) -> Any:
    """float32[batch, rows, columns] at an address."""
    count = batch * rows * columns
    values = (c_float * count).from_address(address)
    return np.frombuffer(values, np.float32).reshape(batch, rows, columns)


def multiply(a: Any, b: Any, c: Any, alpha: float, beta: float) -> None:
    """C = alpha A·B + beta C; with beta = 0, C is not read."""
    product = alpha * np.matmul(a, b)
    c[...] = product + beta * c if beta else product


class RawModule:
    """cupy.RawModule of a cubin: its kernels take (a, b, c, m, n, k, group_m), layout nn.

    Two pointers to scratch memory of Triton's runtime follow, which are null.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def get_function(self, name: str) -> RawKernel:
        """A kernel that multiplies."""
        return RawKernel("cubin", name)


class RawKernel:
    """cupy.RawKernel of a kernel (a, b, c, m, n, k, alpha, beta), layout nn."""

    num_regs = 40
    shared_size_bytes = 2048
    local_size_bytes = 0
    max_threads_per_block = 1024

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self.code, self.name, self.options = code, name, options
        self.kernel = SimpleNamespace(ptr=id(self))
        KERNELS[id(self)] = self

    def compile(self) -> None:
        """There is nothing to compile."""


def _argument(table: int, place: int, kind: Any) -> Any:
    address = c_void_p.from_address(table + 8 * place).value
    assert address is not None
    return kind.from_address(address).value


def launch_kernel(function: int, *arguments: int) -> None:
    """cupy.cuda.driver.launchKernel: grid, block, shared memory, stream, arguments, extra."""
    assert function in KERNELS
    batch = arguments[2]
    table = arguments[-2]
    of_triton = KERNELS[function].code == "cubin"
    if of_triton:
        batch = arguments[1]
    m, n, k = (_argument(table, place, c_int) for place in (3, 4, 5))
    a = row_major(_argument(table, 0, c_void_p), m, k, batch)
    b = row_major(_argument(table, 1, c_void_p), k, n, batch)
    c = row_major(_argument(table, 2, c_void_p), m, n, batch)
    if of_triton:
        assert _argument(table, 6, c_int) > 0
        assert [_argument(table, place, c_void_p) for place in (7, 8)] == [None, None]
        multiply(a, b, c, 1.0, 0.0)
        return
    multiply(a, b, c, _argument(table, 6, c_float), _argument(table, 7, c_float))


def fake_cupy() -> ModuleType:
    """The part of CuPy that the families use."""
    cupy = ModuleType("cupy")
    cupy.RawKernel = RawKernel
    cupy.RawModule = RawModule
    error = type("CUDAError", (Exception,), {})
    device = SimpleNamespace(
        id=0, compute_capability="90", attributes={"MaxSharedMemoryPerBlockOptin": 232_448}
    )
    driver = SimpleNamespace(
        CUDADriverError=error,
        launchKernel=launch_kernel,
        occupancyMaxActiveBlocksPerMultiprocessor=lambda kernel, threads, smem: 2,
    )
    runtime = SimpleNamespace(
        getDevice=lambda: 0,
        getDeviceProperties=lambda device_id: {"maxThreadsPerMultiProcessor": THREADS_PER_SM},
    )
    cupy.cuda = SimpleNamespace(
        Device=lambda: device,
        alloc=lambda size: SimpleNamespace(ptr=4096),
        compiler=SimpleNamespace(CompileException=error),
        driver=driver,
        get_current_stream=lambda: SimpleNamespace(ptr=99),
        runtime=runtime,
    )
    return cupy


class FakeCublas:
    """libcublas: column-major, so operands come swapped; layout nt is not supported."""

    def cublasCreate_v2(self, handle: Any) -> int:
        """A handle."""
        handle._obj.value = 7
        return 0

    def cublasGetVersion_v2(self, handle: Any, number: Any) -> int:
        """That of fake_cublaslt."""
        number._obj.value = 131_002
        return 0

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        """The current one."""
        assert stream.value == 99
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, address: Any, size: Any) -> int:
        """Given by the family."""
        assert (address.value, size.value) == (4096, 32 * 2**20)
        return 0

    def cublasGemmStridedBatchedEx(self, handle: Any, *arguments: Any) -> int:
        """C^T = B^T·A^T; the library's first matrix is our B."""
        transposed_b, transposed_a, n, m, k, alpha = arguments[:6]
        b_at, b_type, ldb, b_stride, a_at, a_type, lda, a_stride = arguments[6:14]
        beta, c_at, c_type, ldc, c_stride, batch, compute, algorithm = arguments[14:]
        if (transposed_a, transposed_b) == (0, 1):
            return NOT_SUPPORTED
        assert (a_type, b_type, c_type, compute, algorithm) == (0, 0, 0, 68, -1)
        assert (a_stride, b_stride, c_stride) == (m * k, k * n, m * n)
        assert (lda, ldb, ldc) == (m if transposed_a else k, k if transposed_b else n, n)
        a = row_major(a_at, m * k // lda, lda, batch)
        b = row_major(b_at, k * n // ldb, ldb, batch)
        a = a.swapaxes(1, 2) if transposed_a else a
        b = b.swapaxes(1, 2) if transposed_b else b
        c = row_major(c_at, m, n, batch)
        multiply(a, b, c, alpha._obj.value, beta._obj.value)
        return 0


class FakeCutlass:
    """A library of one kernel, fp32 in layout nn; k must divide into the slices."""

    def gemmcast_can_implement(self, index: int, *problem: Any) -> int:
        """4 is cutlass::Status::kErrorInvalidProblem."""
        _, _, k, *_, slices = problem
        return 4 if k % slices else 0

    def gemmcast_workspace_bytes(self, index: int, m: int, n: int, k: int, slices: int) -> int:
        """One partial result a slice."""
        return 4 * m * n * slices

    def gemmcast_facts(self, index: int, values: Any) -> int:
        """In the order of libraries.LOADED_FACTS."""
        values[:] = (384, 200_000, 168, 0, 1)
        return 0

    def gemmcast_run(self, index: int, *arguments: Any) -> int:
        """The problem, then workspace, its bytes and the stream."""
        m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, _, workspace, size, stream = arguments
        assert (lda, ldb, ldc) == (k, n, n)
        assert (workspace, stream) == (4096, 99)
        assert size >= 0
        first, second = row_major(a, m, k), row_major(b, k, n)
        multiply(first, second, row_major(c, m, n), alpha, beta)
        return 0
