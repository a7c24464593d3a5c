"""cuBLASLt's calls: the descriptors of one product, its heuristic, and what algorithms can do.

Numbers and buffers are in attributes.py, the column-major reading of a product in matrices.py.
Knows nothing of a KernelConfig, nor of the order in which configurations are tried.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import numpy as np

from agent.kernels.cublaslt.attributes import (
    ALIGNMENTS,
    BATCH_COUNT,
    BATCH_OFFSET,
    CAN_BATCH,
    CAN_REDUCE,
    CAN_SPLIT,
    CAN_SWIZZLE,
    CLUSTER,
    CONFIGURATION,
    HEURISTIC_RESULT,
    MAX_WORKSPACE,
    MIN_ALIGNMENTS,
    NOT_SUPPORTED,
    REFUSALS,
    SCHEME,
    SPLIT,
    STAGE_IDS,
    STAGES,
    SWIZZLE,
    TILE,
    TILE_IDS,
    TRANSA,
    TRANSB,
    AlgorithmBlob,
    Attribute,
    failed,
    get,
    get_list,
    put,
)
from agent.kernels.cublaslt.matrices import (
    MATMUL_TYPES,
    Alignment,
    MatmulTypes,
    Matrix,
    matrices,
    row_alignment,
)
from agent.kernels.cublaslt.names import Capabilities, Ids, reduction_scheme
from gemmcast.gemm import Gemm

WORKSPACE_BYTES: Final = 32 * 2**20
MAX_LISTED: Final = 8
"""Length of the heuristic's list; it gave no more whatever the limit."""
MAX_ALGORITHMS: Final = 256

Destroy = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ConfiguredAlgorithm:
    """An algorithm that the library accepts for a problem."""

    ids: Ids
    blob: AlgorithmBlob
    workspace_bytes: int


class Problem:
    """The descriptors of one product.

    They are freed with the last reference to it, that of a kernel that is still in use included.

    Args:
        lt: nvmath.bindings.cublasLt, or a fake.
        alignment: bytes, of the library's buffers A, B and C.
    """

    def __init__(self, lt: ModuleType, handle: int, gemm: Gemm, alignment: Alignment) -> None:
        self.batched = gemm.batch > 1
        self.row_alignment = row_alignment(gemm, alignment)
        self._lt = lt
        self._handle = handle
        self._alignment = alignment
        self._types = MATMUL_TYPES[gemm.dtype]
        self._descriptors: list[tuple[Destroy, int]] = []
        weakref.finalize(self, _destroy_all, self._descriptors).atexit = False
        try:
            self._describe(gemm)
        except lt.cuBLASLtError as error:
            raise failed(error, f"descriptors of {gemm}") from None

    def _describe(self, gemm: Gemm) -> None:
        lt = self._lt
        types = self._types
        a, b, c = matrices(gemm)
        operation = lt.matmul_desc_create(types.compute, types.scale)
        self._descriptors.append((lt.matmul_desc_destroy, operation))
        put(lt.matmul_desc_set_attribute, operation, TRANSA, int(a.transposed))
        put(lt.matmul_desc_set_attribute, operation, TRANSB, int(b.transposed))
        self.operation: int = operation
        self.a = self._layout(a, types.inputs, gemm.batch)
        self.b = self._layout(b, types.inputs, gemm.batch)
        self.c = self._layout(c, types.output, gemm.batch)

    def _layout(self, matrix: Matrix, data_type: int, batch: int) -> int:
        lt = self._lt
        layout: int = lt.matrix_layout_create(data_type, matrix.rows, matrix.columns, matrix.rows)
        self._descriptors.append((lt.matrix_layout_destroy, layout))
        stride = matrix.size if batch > 1 else 0
        put(lt.matrix_layout_set_attribute, layout, BATCH_COUNT, batch)
        put(lt.matrix_layout_set_attribute, layout, BATCH_OFFSET, stride)
        return layout

    @property
    def _arguments(self) -> tuple[int, ...]:
        """As every query takes the problem: C is read and written in place."""
        return self._handle, self.operation, self.a, self.b, self.c, self.c

    def heuristic(self) -> list[ConfiguredAlgorithm]:
        """The library's own list, best first; empty where it has none."""
        lt = self._lt
        results = np.zeros(MAX_LISTED, HEURISTIC_RESULT)
        count = np.zeros(1, np.int32)
        preference: int = lt.matmul_preference_create()
        try:
            self._set_preference(preference)
            lt.matmul_algo_get_heuristic(
                *self._arguments, preference, MAX_LISTED, results.ctypes.data, count.ctypes.data
            )
        except lt.cuBLASLtError as error:
            if int(error.status) == NOT_SUPPORTED:
                return []
            raise failed(error, "cublasLtMatmulAlgoGetHeuristic") from None
        finally:
            lt.matmul_preference_destroy(preference)
        listed = []
        for result in results[: int(count[0])]:
            if result["state"]:
                continue
            blob = result["algo"].copy()
            workspace_bytes = int(result["workspace_bytes"])
            listed.append(ConfiguredAlgorithm(_read_ids(lt, blob), blob, workspace_bytes))
        return listed

    def _set_preference(self, preference: int) -> None:
        set_attribute = self._lt.matmul_preference_set_attribute
        put(set_attribute, preference, MAX_WORKSPACE, WORKSPACE_BYTES)
        a, b, c = self._alignment
        for attribute, alignment in zip(MIN_ALIGNMENTS, (a, b, c, c), strict=True):
            put(set_attribute, preference, attribute, alignment)

    def configure(self, ids: Ids, scheme: int) -> ConfiguredAlgorithm | None:
        """The algorithm with these ids; None where the library refuses it, or where it needs more
        than the workspace.

        Args:
            scheme: the reduction scheme, where k is split.
        """
        lt = self._lt
        blob = np.zeros(8, np.uint64)
        result = np.zeros(1, HEURISTIC_RESULT)
        try:
            lt.matmul_algo_init(self._handle, *self._types.arguments, ids.algo, blob.ctypes.data)
            _write_ids(lt, blob, ids, scheme)
            lt.matmul_algo_check(*self._arguments, blob.ctypes.data, result.ctypes.data)
        except lt.cuBLASLtError as error:
            if int(error.status) in REFUSALS:
                return None
            raise failed(error, f"cublasLtMatmulAlgoCheck of {ids}") from None
        workspace_bytes = int(result["workspace_bytes"][0])
        if result["state"][0] or workspace_bytes > WORKSPACE_BYTES:
            return None
        return ConfiguredAlgorithm(ids, blob, workspace_bytes)


def _read_ids(lt: ModuleType, blob: AlgorithmBlob) -> Ids:
    """How an algorithm is set up."""
    get_attribute = lt.matmul_algo_config_get_attribute
    return Ids(*(get(get_attribute, blob, attribute) for attribute in CONFIGURATION))


def _write_ids(lt: ModuleType, blob: AlgorithmBlob, ids: Ids, scheme: int) -> None:
    """Set an algorithm up; only what differs from its default is written."""
    set_attribute = lt.matmul_algo_config_set_attribute
    address = blob.ctypes.data
    values = (
        (TILE, ids.tile),
        (STAGES, ids.stages),
        (SWIZZLE, ids.swizzle),
        (CLUSTER, ids.cluster),
    )
    for attribute, value in values:
        if value:
            put(set_attribute, address, attribute, value)
    if ids.split > 1:
        put(set_attribute, address, SPLIT, ids.split)
        put(set_attribute, address, SCHEME, scheme)


def capabilities(lt: ModuleType, handle: int, dtype: str) -> list[Capabilities]:
    """Of every algorithm that the library has for the dtype.

    One that the library refuses to describe is left out.

    Raises:
        MeasurementError: a call failed for another reason.
    """
    types = MATMUL_TYPES[dtype]
    try:
        algorithm_ids = lt.matmul_algo_get_ids(handle, *types.arguments, MAX_ALGORITHMS)
    except lt.cuBLASLtError as error:
        raise failed(error, f"cublasLtMatmulAlgoGetIds of {dtype}") from None
    described = []
    for algo in sorted(int(algorithm_id) for algorithm_id in algorithm_ids):
        try:
            described.append(_capabilities_of(lt, handle, types, algo))
        except lt.cuBLASLtError as error:
            if int(error.status) not in REFUSALS:
                raise failed(error, f"capabilities of algorithm {algo} of {dtype}") from None
    return described


def _capabilities_of(lt: ModuleType, handle: int, types: MatmulTypes, algo: int) -> Capabilities:
    blob = np.zeros(8, np.uint64)
    lt.matmul_algo_init(handle, *types.arguments, algo, blob.ctypes.data)

    def number(attribute: Attribute) -> int:
        """One capability."""
        return get(lt.matmul_algo_cap_get_attribute, blob, attribute)

    a, b, c, d = (number(attribute) for attribute in ALIGNMENTS)
    return Capabilities(
        algo=algo,
        tiles=get_list(lt, blob, TILE_IDS),
        stages=get_list(lt, blob, STAGE_IDS),
        scheme=reduction_scheme(number(CAN_REDUCE)) if number(CAN_SPLIT) else 0,
        swizzles=number(CAN_SWIZZLE),
        batched=bool(number(CAN_BATCH)),
        alignment=(a, b, max(c, d)),
    )


def _destroy_all(descriptors: list[tuple[Destroy, int]]) -> None:
    while descriptors:
        destroy, descriptor = descriptors.pop()
        destroy(descriptor)
