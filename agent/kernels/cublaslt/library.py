"""cuBLASLt's calls: descriptors of one product, the heuristic's list, what algorithms can do, and the check of a configuration.

`lt` is nvmath.bindings.cublasLt, or a test's stand-in with the same functions: handles and addresses are integers, attributes pass
through buffers. cuBLASLt is column-major, so C^T = B^T·A^T is asked for: its A is our B, its B our A, and a row-major matrix is
read as its transpose. Numbers and attribute types: cublasLt.h, docs.nvidia.com/cuda/cublas, "Using the cuBLASLt API".

fp8 keeps cuBLASLt's default of accurate accumulation (CUBLASLT_MATMUL_DESC_FAST_ACCUM = 0, as torch._scaled_mm does) and unit scales.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.kernels.cublaslt.names import Algorithm, Ids, scheme
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, Gemm

Blob = NDArray[np.uint64]
# cublasLtMatmulAlgo_t: blob[8]

WORKSPACE_BYTES: Final = 32 * 2**20
LISTED: Final = 8
# asked of the heuristic; it gave no more whatever the limit
MAX_ALGORITHMS: Final = 256
WIDEST_ALIGNMENT: Final = 256
FP32, FP16, BF16, E4M3 = 0, 2, 14, 28
# cudaDataType_t
COMPUTE_32F, COMPUTE_32F_FAST_TF32 = 68, 77
# cublasComputeType_t
TRANSA, TRANSB = (3, np.int32), (4, np.int32)
BATCH_COUNT, BATCH_OFFSET = (5, np.int32), (6, np.int64)
MAX_WORKSPACE = (1, np.uint64)
MIN_ALIGNMENTS = tuple((attribute, np.uint32) for attribute in (5, 6, 7, 8))
# of A, B, C and D
ID, TILE, SPLIT, SCHEME, SWIZZLE = (0, np.int32), (1, np.uint32), (2, np.int32), (3, np.uint32), (4, np.uint32)
STAGES, CLUSTER = (6, np.uint32), (8, np.uint16)
CAN_SPLIT, CAN_REDUCE, CAN_SWIZZLE, CAN_BATCH = (0, np.int32), (1, np.uint32), (2, np.uint32), (3, np.int32)
TILES, STAGE_IDS, ALIGNMENTS = (6, np.uint32), (13, np.uint32), tuple((attribute, np.uint32) for attribute in (16, 17, 18, 19))
RESULT = np.dtype([("algo", np.uint64, 8), ("workspace_bytes", np.uint64), ("state", np.int32), ("waves", np.float32), ("reserved", np.int32, 4)])
# cublasLtMatmulHeuristicResult_t
WORDS: Final = {
    1: "not initialized", 3: "allocation failed", 7: "invalid value", 8: "architecture mismatch", 13: "execution failed", 14: "internal error",
    15: "not supported",
}  # fmt: skip
# cublasStatus_t
NOT_SUPPORTED: Final = 15
REFUSALS: Final = (7, 8, NOT_SUPPORTED)
# what is said of a product or configuration that the library doesn't have, not of a fault


class Kind(NamedTuple):
    """How cuBLASLt is to read and multiply one dtype. alpha and beta are fp32."""

    inputs: int
    output: int
    compute: int


KINDS: Final = {
    "fp32": Kind(FP32, FP32, COMPUTE_32F),
    "tf32": Kind(FP32, FP32, COMPUTE_32F_FAST_TF32),
    "fp16": Kind(FP16, FP16, COMPUTE_32F),
    "bf16": Kind(BF16, BF16, COMPUTE_32F),
    "fp8_e4m3": Kind(E4M3, BF16, COMPUTE_32F),
}


class Matrix(NamedTuple):
    """Column-major as it lies in memory; the leading dimension is `rows`."""

    rows: int
    columns: int
    transposed: bool = False

    @property
    def size(self) -> int:
        return self.rows * self.columns


def matrices(gemm: Gemm) -> tuple[Matrix, Matrix, Matrix]:
    """The library's A (our B), B (our A) and C (our C, transposed)."""
    ours_a, ours_b = gemm.layout[0], gemm.layout[1]
    a = Matrix(gemm.k, gemm.n, True) if ours_b == "t" else Matrix(gemm.n, gemm.k)
    b = Matrix(gemm.m, gemm.k, True) if ours_a == "t" else Matrix(gemm.k, gemm.m)
    return a, b, Matrix(gemm.n, gemm.m)


def row_alignment(gemm: Gemm, alignment: tuple[int, int, int]) -> tuple[int, int, int]:
    """Bytes that every column of every matrix of the batch is aligned to, given the buffers' alignment."""
    t = DTYPES[gemm.dtype]
    a, b, c = (
        gcd(buffer, matrix.rows * size, matrix.size * size if gemm.batch > 1 else 0)
        for buffer, matrix, size in zip(alignment, matrices(gemm), (t.in_bytes, t.in_bytes, t.out_bytes), strict=True)
    )
    return a, b, c


def failed(error: Any, what: str) -> MeasurementError:
    """Of the library's exception."""
    status = int(error.status)
    return MeasurementError(
        "unsupported" if status in REFUSALS else "cuda_error", f"{what}: cublasStatus_t {status} ({WORDS.get(status, 'unknown')})"
    )


@dataclass(frozen=True, slots=True)
class Configured:
    """An algorithm that the library accepts for a problem."""

    ids: Ids
    blob: Blob
    workspace_bytes: int


class Problem:
    """The descriptors of one product. They are freed with the last reference, a kernel's that is still in use included."""

    def __init__(self, lt: Any, handle: int, gemm: Gemm, alignment: tuple[int, int, int]) -> None:
        self._lt, self._handle, self._alignment = lt, handle, alignment
        self.batched, self.row_alignment = gemm.batch > 1, row_alignment(gemm, alignment)
        self._made: list[tuple[Callable[[int], None], int]] = []
        weakref.finalize(self, _free, self._made).atexit = False
        self._kind = KINDS[gemm.dtype]
        try:
            self._describe(gemm)
        except lt.cuBLASLtError as error:
            raise failed(error, f"descriptors of {gemm}") from None

    def _describe(self, gemm: Gemm) -> None:
        lt, kind = self._lt, self._kind
        a, b, c = matrices(gemm)
        self.operation = self._own(lt.matmul_desc_create(kind.compute, FP32), lt.matmul_desc_destroy)
        _put(lt.matmul_desc_set_attribute, self.operation, TRANSA, int(a.transposed))
        _put(lt.matmul_desc_set_attribute, self.operation, TRANSB, int(b.transposed))
        self.a, self.b, self.c = (self._layout(matrix, of, gemm.batch) for matrix, of in ((a, kind.inputs), (b, kind.inputs), (c, kind.output)))

    def _layout(self, matrix: Matrix, of: int, batch: int) -> int:
        lt = self._lt
        layout = self._own(lt.matrix_layout_create(of, matrix.rows, matrix.columns, matrix.rows), lt.matrix_layout_destroy)
        _put(lt.matrix_layout_set_attribute, layout, BATCH_COUNT, batch)
        _put(lt.matrix_layout_set_attribute, layout, BATCH_OFFSET, matrix.size if batch > 1 else 0)
        return layout

    def _own(self, made: int, destroy: Callable[[int], None]) -> int:
        self._made.append((destroy, made))
        return made

    @property
    def _described(self) -> tuple[int, ...]:
        """As every query takes it: C is read and written in place."""
        return self._handle, self.operation, self.a, self.b, self.c, self.c

    def heuristic(self) -> list[Configured]:
        """The library's own list, best first; empty where it has none."""
        lt = self._lt
        preference = lt.matmul_preference_create()
        results, count = np.zeros(LISTED, RESULT), np.zeros(1, np.int32)
        a, b, c = self._alignment
        try:
            _put(lt.matmul_preference_set_attribute, preference, MAX_WORKSPACE, WORKSPACE_BYTES)
            for attribute, alignment in zip(MIN_ALIGNMENTS, (a, b, c, c), strict=True):
                _put(lt.matmul_preference_set_attribute, preference, attribute, alignment)
            lt.matmul_algo_get_heuristic(*self._described, preference, LISTED, results.ctypes.data, count.ctypes.data)
        except lt.cuBLASLtError as error:
            if int(error.status) == NOT_SUPPORTED:
                return []
            raise failed(error, "cublasLtMatmulAlgoGetHeuristic") from None
        finally:
            lt.matmul_preference_destroy(preference)
        good = [result for result in results[: int(count[0])] if not result["state"]]
        return [Configured(read(lt, blob := result["algo"].copy()), blob, int(result["workspace_bytes"])) for result in good]

    def configured(self, ids: Ids, reduction: int) -> Configured | None:
        """The algorithm set up so, where the library accepts it and the workspace holds it. Only what differs from its default is set."""
        lt, blob, result = self._lt, np.zeros(8, np.uint64), np.zeros(1, RESULT)
        address = blob.ctypes.data
        try:
            lt.matmul_algo_init(self._handle, *_types(self._kind), ids.algo, address)
            for attribute, value in ((TILE, ids.tile), (STAGES, ids.stages), (SWIZZLE, ids.swizzle), (CLUSTER, ids.cluster)):
                if value:
                    _put(lt.matmul_algo_config_set_attribute, address, attribute, value)
            if ids.split > 1:
                _put(lt.matmul_algo_config_set_attribute, address, SPLIT, ids.split)
                _put(lt.matmul_algo_config_set_attribute, address, SCHEME, reduction)
            lt.matmul_algo_check(*self._described, address, result.ctypes.data)
        except lt.cuBLASLtError as error:
            if int(error.status) in REFUSALS:
                return None
            raise failed(error, f"cublasLtMatmulAlgoCheck of {ids}") from None
        needed = int(result["workspace_bytes"][0])
        return Configured(ids, blob, needed) if not result["state"][0] and needed <= WORKSPACE_BYTES else None


def algorithms(lt: Any, handle: int, dtype: str) -> list[Algorithm]:
    """Every algorithm that the library has for the dtype; one that it refuses to describe is left out."""
    types, found = _types(KINDS[dtype]), []
    try:
        ids = sorted(int(one) for one in lt.matmul_algo_get_ids(handle, *types, MAX_ALGORITHMS))
    except lt.cuBLASLtError as error:
        raise failed(error, f"cublasLtMatmulAlgoGetIds of {dtype}") from None
    for algo in ids:
        try:
            found.append(_algorithm(lt, handle, types, algo))
        except lt.cuBLASLtError as error:
            if int(error.status) not in REFUSALS:
                raise failed(error, f"capabilities of algorithm {algo} of {dtype}") from None
    return found


def _algorithm(lt: Any, handle: int, types: tuple[int, ...], algo: int) -> Algorithm:
    blob = np.zeros(8, np.uint64)
    lt.matmul_algo_init(handle, *types, algo, blob.ctypes.data)

    def can(attribute: tuple[int, Any]) -> int:
        return _get(lt.matmul_algo_cap_get_attribute, blob, attribute)

    a, b, c, d = (can(attribute) for attribute in ALIGNMENTS)
    return Algorithm(
        algo=algo, tiles=_get_all(lt, blob, TILES), stages=_get_all(lt, blob, STAGE_IDS), scheme=scheme(can(CAN_REDUCE)) if can(CAN_SPLIT) else 0,
        swizzles=can(CAN_SWIZZLE), batched=bool(can(CAN_BATCH)), alignment=(a, b, max(c, d)),
    )  # fmt: skip


def read(lt: Any, blob: Blob) -> Ids:
    """How an algorithm is set up."""
    return Ids(*(_get(lt.matmul_algo_config_get_attribute, blob, attribute) for attribute in (ID, TILE, STAGES, SPLIT, SWIZZLE, CLUSTER)))


def _types(kind: Kind) -> tuple[int, ...]:
    """Compute, scale, A, B, C and D."""
    return kind.compute, FP32, kind.inputs, kind.inputs, kind.output, kind.output


def _put(call: Callable[..., None], target: int, attribute: tuple[int, Any], value: int) -> None:
    buffer, address = _constant(value, attribute[1])
    call(target, attribute[0], address, buffer.nbytes)


@lru_cache(maxsize=1024)
def _constant(value: int, of: Any) -> tuple[NDArray[Any], int]:
    """To be read by the library, and where it lies: the same few are set thousands of times."""
    buffer = np.array([value], of)
    return buffer, buffer.ctypes.data


def _get(call: Callable[..., None], blob: Blob, attribute: tuple[int, Any]) -> int:
    buffer, written = np.zeros(1, attribute[1]), np.zeros(1, np.uint64)
    call(blob.ctypes.data, attribute[0], buffer.ctypes.data, buffer.nbytes, written.ctypes.data)
    return int(buffer[0])


def _get_all(lt: Any, blob: Blob, attribute: tuple[int, Any]) -> tuple[int, ...]:
    """A list's length is asked for first. An empty one means the id 0, "undefined"."""
    written = np.zeros(1, np.uint64)
    lt.matmul_algo_cap_get_attribute(blob.ctypes.data, attribute[0], 0, 0, written.ctypes.data)
    buffer = np.zeros(int(written[0]) // np.dtype(attribute[1]).itemsize, attribute[1])
    if not len(buffer):
        return (0,)
    lt.matmul_algo_cap_get_attribute(blob.ctypes.data, attribute[0], buffer.ctypes.data, buffer.nbytes, written.ctypes.data)
    return tuple(int(one) for one in buffer)


def _free(made: list[tuple[Callable[[int], None], int]]) -> None:
    while made:
        destroy, one = made.pop()
        destroy(one)
