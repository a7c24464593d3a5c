"""A product as cuBLASLt reads it: column-major.

C^T = B^T·A^T is computed: the library's A is our B, its B is our A, and a row-major matrix is read
as its transpose. fp8 keeps the library's default of accurate accumulation
(CUBLASLT_MATMUL_DESC_FAST_ACCUM = 0, as torch._scaled_mm does) and unit scales. int8 is added up in
int32, as which C is stored too.
"""

from __future__ import annotations

from math import gcd
from typing import Final, NamedTuple

from gemmcast.gemm import DTYPES, Gemm

Alignment = tuple[int, int, int]
"""Bytes, of the library's A, B and C."""

# cudaDataType_t
FP32: Final = 0
FP16: Final = 2
INT8: Final = 3
INT32: Final = 10
BF16: Final = 14
E4M3: Final = 28

# cublasComputeType_t
COMPUTE_32F: Final = 68
COMPUTE_32I: Final = 72
COMPUTE_32F_FAST_TF32: Final = 77


class MatmulTypes(NamedTuple):
    """How cuBLASLt reads and multiplies one dtype."""

    inputs: int
    """cudaDataType_t of A and B."""
    output: int
    """cudaDataType_t of C."""
    compute: int
    """cublasComputeType_t."""
    scale: int = FP32
    """cudaDataType_t of alpha and beta."""

    @property
    def arguments(self) -> tuple[int, ...]:
        """As the library's queries take them: compute, scale, A, B, C and D."""
        return self.compute, self.scale, self.inputs, self.inputs, self.output, self.output


MATMUL_TYPES: Final = {
    "fp32": MatmulTypes(FP32, FP32, COMPUTE_32F),
    "tf32": MatmulTypes(FP32, FP32, COMPUTE_32F_FAST_TF32),
    "fp16": MatmulTypes(FP16, FP16, COMPUTE_32F),
    "bf16": MatmulTypes(BF16, BF16, COMPUTE_32F),
    "fp8_e4m3": MatmulTypes(E4M3, BF16, COMPUTE_32F),
    "int8": MatmulTypes(INT8, INT32, COMPUTE_32I, scale=INT32),
}
"""By dtype."""
ALONG_K: Final = ("fp8_e4m3", "int8")
"""dtypes of which sm_90 reads both operands along k: layout nt only."""


class Matrix(NamedTuple):
    """Column-major as it lies in memory; the leading dimension is `rows`."""

    rows: int
    columns: int
    transposed: bool = False

    @property
    def size(self) -> int:
        """Elements."""
        return self.rows * self.columns


def matrices(gemm: Gemm) -> tuple[Matrix, Matrix, Matrix]:
    """The library's A (our B), B (our A) and C (our C, transposed)."""
    our_a, our_b = gemm.layout[0], gemm.layout[1]
    a = Matrix(gemm.k, gemm.n, transposed=True) if our_b == "t" else Matrix(gemm.n, gemm.k)
    b = Matrix(gemm.m, gemm.k, transposed=True) if our_a == "t" else Matrix(gemm.k, gemm.m)
    return a, b, Matrix(gemm.n, gemm.m)


def row_alignment(gemm: Gemm, alignment: Alignment) -> Alignment:
    """Bytes that every column of every matrix of the batch is aligned to.

    Args:
        alignment: of the buffers.
    """
    a, b, c = matrices(gemm)
    stored = DTYPES[gemm.dtype]
    return (
        _column_alignment(a, alignment[0], stored.in_bytes, gemm.batch),
        _column_alignment(b, alignment[1], stored.in_bytes, gemm.batch),
        _column_alignment(c, alignment[2], stored.out_bytes, gemm.batch),
    )


def _column_alignment(matrix: Matrix, buffer: int, element_bytes: int, batch: int) -> int:
    column_bytes = matrix.rows * element_bytes
    stride_bytes = matrix.size * element_bytes if batch > 1 else 0
    return gcd(buffer, column_bytes, stride_bytes)
