"""cuBLAS with its default choice of kernel: what a program that just calls the library gets.

cuBLAS leaves the choice to cuBLASLt's heuristic. So the knobs of the kernel that will run are read
from that heuristic beforehand, where nvmath-python and the same version of cuBLASLt are installed
(docs/decisions/0013).

Called through ctypes, because CuPy refuses its own cuBLAS calls while a stream is being captured,
and because the copy that CuPy has loaded must be the one that runs. cuBLAS is column-major, so
C^T = B^T·A^T is computed: operands swapped, a row-major matrix read as its transpose. The workspace
of 32 MiB is NVIDIA's advice for sm_90.
API: docs.nvidia.com/cuda/cublas, cublasGemmStridedBatchedEx.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_float, c_int, c_longlong, c_size_t, c_void_p
from functools import cached_property

import cupy

from agent.kernels import Prepared, cublaslt
from agent.kernels.cublaslt.library import WORKSPACE_BYTES
from agent.operands import Operands, addresses
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

DEFAULT_ALGORITHM = -1
"""CUBLAS_GEMM_DEFAULT of cublasGemmAlgo_t."""
COMPUTE_32F = 68
COMPUTE_TYPES = {"fp64": 70, "tf32": 77}
"""dtype -> cublasComputeType_t, where it is not COMPUTE_32F."""
CUDA_TYPES = {"fp64": 1, "fp32": 0, "tf32": 0, "fp16": 2, "bf16": 14}
"""dtype -> cudaDataType_t of A, B and C."""
OPERATIONS = {"n": 0, "t": 1}
"""Letter of a layout -> cublasOperation_t."""
NOT_SUPPORTED = 15
"""CUBLAS_STATUS_NOT_SUPPORTED."""
_MATRIX_TYPES = (c_void_p, c_int, c_int, c_longlong)
"""Address, type, leading dimension, stride between problems."""
_SIZE_TYPES = (c_int, c_int, c_int)
_OPERATION_TYPES = (c_int, c_int)
_MODE_TYPES = (c_int, c_int, c_int)
"""Number of problems, cublasComputeType_t, cublasGemmAlgo_t."""
GEMM_ARGUMENTS = (
    c_void_p,
    *_OPERATION_TYPES,
    *_SIZE_TYPES,
    c_void_p,
    *_MATRIX_TYPES,
    *_MATRIX_TYPES,
    c_void_p,
    *_MATRIX_TYPES,
    *_MODE_TYPES,
)
"""Of cublasGemmStridedBatchedEx: handle, operations, sizes, alpha, A, B, beta, C, modes."""


class Cublas:
    """The library, with one handle and one workspace."""

    @cached_property
    def _library(self) -> ctypes.CDLL:
        handle = cupy.cuda.device.get_cublas_handle()
        major = cupy.cuda.cublas.getVersion(handle) // 10_000
        # CuPy has loaded it by now, from wherever it lies: the soname finds that very copy.
        library = ctypes.CDLL(f"libcublas.so.{major}")
        library.cublasGemmStridedBatchedEx.argtypes = GEMM_ARGUMENTS
        return library

    @cached_property
    def _handle(self) -> c_void_p:
        handle = c_void_p()
        _check(self._library.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
        return handle

    @cached_property
    def _workspace(self) -> cupy.cuda.MemoryPointer:
        return cupy.cuda.alloc(WORKSPACE_BYTES)

    @cached_property
    def version(self) -> str:
        """Name and version, as `cublas 13.1.0`."""
        number = c_int()
        status = self._library.cublasGetVersion_v2(self._handle, ctypes.byref(number))
        _check(status, "cublasGetVersion")
        return f"cublas {cublaslt.version_text(number.value)}"

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Build the calls, and read the knobs of the default kernel."""
        calls = self._calls(gemm, sets)
        self._use_current_stream()
        call = self._library.cublasGemmStridedBatchedEx

        def launch(i: int) -> None:
            """Enqueue one product."""
            status = call(*calls[i])
            if status:
                _check(status, "cublasGemmStridedBatchedEx")

        alignment = cublaslt.aligned(sets)
        own_version = self.version.split()[1]
        knobs = cublaslt.FAMILY.default_knobs(gemm, alignment, own_version)
        facts = {
            **knobs,
            "kernel": config.kernel or "default",
            "library": self.version,
            "workspace_bytes": WORKSPACE_BYTES,
        }
        return Prepared(launch, facts)

    def _calls(self, gemm: Gemm, sets: Sequence[Operands]) -> list[tuple[object, ...]]:
        """The arguments of one call for every set; ctypes keeps what they point to alive."""
        scalar = c_double if gemm.dtype == "fp64" else c_float
        alpha = ctypes.byref(scalar(gemm.alpha))
        beta = ctypes.byref(scalar(gemm.beta))
        kind = CUDA_TYPES[gemm.dtype]
        lda = gemm.m if gemm.layout[0] == "t" else gemm.k
        ldb = gemm.k if gemm.layout[1] == "t" else gemm.n
        a_shape = (kind, lda, gemm.m * gemm.k)
        b_shape = (kind, ldb, gemm.k * gemm.n)
        c_shape = (kind, gemm.n, gemm.m * gemm.n)
        # Operands are swapped: the library's A is our B.
        operations = (OPERATIONS[gemm.layout[1]], OPERATIONS[gemm.layout[0]])
        before = (self._handle, *operations, gemm.n, gemm.m, gemm.k, alpha)
        compute = COMPUTE_TYPES.get(gemm.dtype, COMPUTE_32F)
        after = (gemm.batch, compute, DEFAULT_ALGORITHM)
        return [
            (*before, b, *b_shape, a, *a_shape, beta, c, *c_shape, *after)
            for a, b, c in addresses(sets).tolist()
        ]

    def _use_current_stream(self) -> None:
        stream = c_void_p(cupy.cuda.get_current_stream().ptr)
        _check(self._library.cublasSetStream_v2(self._handle, stream), "cublasSetStream")
        # The call above resets the workspace to the library's own, so it is set again.
        status = self._library.cublasSetWorkspace_v2(
            self._handle, c_void_p(self._workspace.ptr), c_size_t(WORKSPACE_BYTES)
        )
        _check(status, "cublasSetWorkspace")


def _check(status: int, call: str) -> None:
    if status == NOT_SUPPORTED:
        raise MeasurementError("unsupported", f"{call}: not supported by this cuBLAS")
    if status:
        raise MeasurementError("cuda_error", f"{call} returned cublasStatus_t {status}")


FAMILY = Cublas()
