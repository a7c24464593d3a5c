"""cuBLAS with its own choice of kernel: what a program that just calls the library gets.

cuBLAS leaves the choice to cuBLASLt's heuristic, so the knobs of what it will launch are known before: they are asked there, where nvmath-python and
the same version are at hand, and stand in the facts (docs/decisions/0013).

Called through ctypes, because CuPy refuses its own cuBLAS calls while a stream is being captured. cuBLAS is column-major, so
C^T = B^T·A^T is computed: operands swapped, a row-major matrix read as its transpose. Workspace of our own, 32 MiB (NVIDIA's advice for sm_90).
API: docs.nvidia.com/cuda/cublas, cublasGemmStridedBatchedEx.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import cupy

from agent.kernels import Prepared, cublaslt
from agent.operands import Operands, addresses
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

WORKSPACE_BYTES = 32 * 2**20
DEFAULT_ALGORITHM = -1
COMPUTE_32F = 68
COMPUTE = {"fp64": 70, "tf32": 77}
# cublasComputeType_t
CUDA_TYPES = {"fp64": 1, "fp32": 0, "tf32": 0, "fp16": 2, "bf16": 14}
# cudaDataType_t
OPERATIONS = {"n": 0, "t": 1}
INT, LONG, POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
MATRIX = (POINTER, INT, INT, LONG)
# address, type, leading dimension, stride
ARGUMENTS = (POINTER, INT, INT, INT, INT, INT, POINTER, *MATRIX, *MATRIX, POINTER, *MATRIX, INT, INT, INT)
# of cublasGemmStridedBatchedEx


class Cublas:
    """The library's own choice."""

    @cached_property
    def _library(self) -> Any:
        version = cupy.cuda.device.get_cublas_handle() and cupy.cuda.cublas.getVersion(cupy.cuda.device.get_cublas_handle())
        major = version // 10_000
        # CuPy has loaded it by now, from wherever it lies: the soname finds that very copy
        return ctypes.CDLL(f"libcublas.so.{major}")

    @cached_property
    def _handle(self) -> tuple[ctypes.c_void_p, Any]:
        handle = ctypes.c_void_p()
        _must(self._library.cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
        return handle, cupy.cuda.alloc(WORKSPACE_BYTES)

    @cached_property
    def version(self) -> str:
        number = ctypes.c_int()
        _must(self._library.cublasGetVersion_v2(self._handle[0], ctypes.byref(number)), "cublasGetVersion")
        return f"cublas {number.value // 10_000}.{number.value // 100 % 100}.{number.value % 100}"

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        handle, workspace = self._handle
        kind, compute = CUDA_TYPES[gemm.dtype], COMPUTE.get(gemm.dtype, COMPUTE_32F)
        scalar = ctypes.c_double if gemm.dtype == "fp64" else ctypes.c_float
        alpha, beta = ctypes.byref(scalar(gemm.alpha)), ctypes.byref(scalar(gemm.beta))
        lda = gemm.m if gemm.layout[0] == "t" else gemm.k
        ldb = gemm.k if gemm.layout[1] == "t" else gemm.n
        head = (handle, OPERATIONS[gemm.layout[1]], OPERATIONS[gemm.layout[0]], gemm.n, gemm.m, gemm.k, alpha)
        of_a, of_b, of_c = (kind, lda, gemm.m * gemm.k), (kind, ldb, gemm.k * gemm.n), (kind, gemm.n, gemm.m * gemm.n)
        tail = (gemm.batch, compute, DEFAULT_ALGORITHM)
        calls = [(*head, b, *of_b, a, *of_a, beta, c, *of_c, *tail) for a, b, c in addresses(sets).tolist()]
        stream = cupy.cuda.get_current_stream()
        _must(self._library.cublasSetStream_v2(handle, POINTER(stream.ptr)), "cublasSetStream")  # forgets the workspace
        _must(self._library.cublasSetWorkspace_v2(handle, POINTER(workspace.ptr), ctypes.c_size_t(WORKSPACE_BYTES)), "cublasSetWorkspace")
        call = self._library.cublasGemmStridedBatchedEx
        call.argtypes = ARGUMENTS

        def launch(i: int) -> None:
            if status := call(*calls[i]):
                _must(status, "cublasGemmStridedBatchedEx")

        knobs = cublaslt.FAMILY.chosen(gemm, cublaslt.aligned(sets), self.version.split()[1])
        return Prepared(launch, {**knobs, "kernel": config.kernel or "default", "library": self.version, "workspace_bytes": WORKSPACE_BYTES})


def _must(status: int, call: str) -> None:
    if status == 15:  # CUBLAS_STATUS_NOT_SUPPORTED
        raise MeasurementError("unsupported", f"{call}: not supported by this cuBLAS")
    if status:
        raise MeasurementError("cuda_error", f"{call} returned cublasStatus_t {status}")


FAMILY = Cublas()
