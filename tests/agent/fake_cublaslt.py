"""A cuBLASLt on paper: nvmath.bindings.cublasLt and cupy.cuda as the family uses them.

Descriptors are dicts of attributes. float32 is really multiplied, column-major, in the host's
memory. What algorithms can do, and which configurations are accepted, is made up.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from agent.kernels.cublaslt import CublasLt
from agent.kernels.cublaslt.attributes import HEURISTIC_RESULT
from agent.kernels.cublaslt.library import WORKSPACE_BYTES
from agent.kernels.cublaslt.names import IdDecoder, Ids
from agent.operands import Carved, Operands, input_elements, output_elements
from gemmcast.gemm import Gemm

Tile = IntEnum(
    "Tile", {"TILE_UNDEFINED": 0, "TILE_64x64": 15, "TILE_128x64": 18, "TILE_128x256": 23}
)
Stages = IntEnum(
    "Stages",
    {
        "STAGES_UNDEFINED": 0,
        "STAGES_32x3": 9,
        "STAGES_32x4": 10,
        "STAGES_8x3": 31,
        "STAGES_64xAUTO": 35,
    },
)
Cluster = IntEnum(
    "Cluster",
    {
        "SHAPE_AUTO": 0,
        "SHAPE_1x1x1": 2,
        "SHAPE_2x1x1": 3,
        "SHAPE_1x2x1": 5,
        "SHAPE_3x1x1": 17,
        "SHAPE_16x1x1": 15,
    },
)
DECODER = IdDecoder(Tile, Stages, Cluster)
CAPABILITIES = {
    0: {0: 1, 1: 3, 2: 1, 3: 1, 6: [15, 18], 13: [9, 10], 16: 4, 17: 4, 18: 4, 19: 4},
    66: {0: 0, 1: 0, 2: 0, 3: 1, 6: [18, 23], 13: [35], 16: 4, 17: 4, 18: 4, 19: 4},
    70: {0: 0, 1: 0, 2: 0, 3: 0, 6: [], 13: [], 16: 64, 17: 4, 18: 4, 19: 4},
}
"""Algorithm id -> attribute -> value; cublasLtMatmulAlgoCapAttributes_t."""
WORD_OF_ATTRIBUTE = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 8: 6}
"""Attribute of a configuration -> which of the algorithm's eight words holds it."""
IDS_ATTRIBUTES = (0, 1, 6, 2, 4, 8)
"""The attributes in the order of Ids."""
STREAM = 99
WORKSPACE_AT = 4096
HANDLE = 7
FIRST = Ids(algo=66, tile=18, stages=35, split=1, swizzle=0, cluster=3)
SECOND = Ids(algo=0, tile=15, stages=9, split=2, swizzle=1, cluster=0)
"""The heuristic's list."""


class FakeError(Exception):
    """cuBLASLtError."""

    def __init__(self, status: int) -> None:
        self.status = status


def memory(address: int, dtype: Any, length: int = 1) -> Any:
    """The memory there, as an array."""
    size = np.dtype(dtype).itemsize * length
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)


class FakeLt(ModuleType):
    """nvmath.bindings.cublasLt.

    Args:
        listed: the heuristic's list.
        failing: call -> the status that it fails with.
    """

    MatmulTile, MatmulStages, ClusterShape = Tile, Stages, Cluster
    cuBLASLtError = FakeError

    def __init__(self, listed: tuple[Ids, ...] = (), **failing: int) -> None:
        super().__init__("cublasLt")
        self.listed = listed
        self.failing = failing
        self.alive: dict[int, dict[int | str, int]] = {}
        """Descriptor -> its attributes."""
        self.log: list[str] = []
        self.preference: dict[int | str, int] = {}
        self._numbers = count(1000)
        destroy = self.alive.pop
        self.matmul_desc_destroy = destroy
        self.matrix_layout_destroy = destroy
        self.matmul_preference_destroy = destroy
        self.matmul_desc_set_attribute = self._set
        self.matrix_layout_set_attribute = self._set
        self.matmul_preference_set_attribute = self._set

    def _call(self, name: str) -> None:
        self.log.append(name)
        status = self.failing.get(name)
        if status:
            raise FakeError(status)

    def _new(self, **attributes: int) -> int:
        descriptor = next(self._numbers)
        self.alive[descriptor] = dict(attributes)
        return descriptor

    def _set(self, descriptor: int, attribute: int, buffer: int, size: int) -> None:
        self.alive[descriptor][attribute] = int(memory(buffer, f"i{size}")[0])

    def create(self) -> int:
        """A handle."""
        self._call("create")
        return HANDLE

    def get_version(self) -> int:
        """13.10.2."""
        return 131002

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        """A descriptor of an operation."""
        return self._new(compute=compute, scale=scale)

    def matrix_layout_create(self, dtype: int, rows: int, cols: int, ld: int) -> int:
        """A descriptor of a matrix."""
        return self._new(dtype=dtype, rows=rows, cols=cols, ld=ld)

    def matmul_preference_create(self) -> int:
        """A descriptor of a preference."""
        return self._new()

    def matmul_algo_get_heuristic(
        self,
        handle: int,
        op: int,
        a: int,
        b: int,
        c: int,
        d: int,
        preference: int,
        limit: int,
        results: int,
        returned: int,
    ) -> None:
        """Fill in the list."""
        self._call("heuristic")
        self.preference = self.alive[preference]
        places = memory(results, HEURISTIC_RESULT, limit)
        for ids, place in zip(self.listed, places, strict=False):
            for attribute, value in zip(IDS_ATTRIBUTES, ids, strict=True):
                place["algo"][WORD_OF_ATTRIBUTE[attribute]] = value
            place["workspace_bytes"] = 100 + ids.algo
        memory(returned, "i4")[0] = len(self.listed)

    def matmul_algo_get_ids(self, *types: int) -> tuple[int, ...]:
        """In no particular order."""
        self._call("ids")
        return tuple(reversed(CAPABILITIES))

    def matmul_algo_init(self, *arguments: int) -> None:
        """Handle, six types, algorithm, blob."""
        self._call("init")
        algo, blob = arguments[-2:]
        memory(blob, "u8", 8)[:] = (algo, 0, 1, 0, 0, 0, 0, 0)

    def matmul_algo_cap_get_attribute(
        self, blob: int, attribute: int, buffer: int, size: int, written: int
    ) -> None:
        """A number, or a list whose length the first call gives."""
        value = CAPABILITIES[int(memory(blob, "u8")[0])][attribute]
        values = value if isinstance(value, list) else [value]
        memory(written, "u8")[0] = 4 * len(values)
        if size:
            assert size == 4 * len(values)
            memory(buffer, "i4", len(values))[:] = values

    def matmul_algo_config_get_attribute(
        self, blob: int, attribute: int, buffer: int, size: int, written: int
    ) -> None:
        """Of a configuration."""
        memory(buffer, f"i{size}")[0] = memory(blob, "u8", 8)[WORD_OF_ATTRIBUTE[attribute]]

    def matmul_algo_config_set_attribute(
        self, blob: int, attribute: int, buffer: int, size: int
    ) -> None:
        """Of a configuration."""
        assert size == (2 if attribute == 8 else 4)
        memory(blob, "u8", 8)[WORD_OF_ATTRIBUTE[attribute]] = memory(buffer, f"i{size}")[0]

    def matmul_algo_check(
        self, handle: int, op: int, a: int, b: int, c: int, d: int, blob: int, result: int
    ) -> None:
        """Refuses a few; 16 slices need more than the workspace."""
        self._call("check")
        algo, tile, split, reduction, _, stages, cluster, _ = memory(blob, "u8", 8).tolist()
        assert (split > 1) == (reduction > 0)
        if (tile, stages) == (18, 10) or (algo == 66 and cluster == 5):
            raise FakeError(15)
        needed = WORKSPACE_BYTES + 1 if split == 16 else split * 1000
        memory(result, HEURISTIC_RESULT)[0]["workspace_bytes"] = needed

    def matmul(
        self,
        handle: int,
        op: int,
        alpha: int,
        a: int,
        la: int,
        b: int,
        lb: int,
        beta: int,
        c: int,
        lc: int,
        d: int,
        ld: int,
        blob: int,
        workspace: int,
        size: int,
        stream: int,
    ) -> None:
        """Multiply float32 matrices, column-major."""
        self._call("matmul")
        assert (handle, c, lc) == (HANDLE, d, ld)
        assert (workspace, size, stream) == (WORKSPACE_AT, WORKSPACE_BYTES, STREAM)
        scale, scale_c = memory(alpha, "f4")[0], memory(beta, "f4")[0]
        for i in range(self.alive[lc][5]):
            x = self._matrix(a, la, i)
            y = self._matrix(b, lb, i)
            z = self._matrix(c, lc, i)
            x = x.T if self.alive[op][3] else x
            y = y.T if self.alive[op][4] else y
            kept = scale_c * z if scale_c else 0
            z[:] = scale * (x @ y) + kept

    def _matrix(self, address: int, layout: int, i: int) -> Any:
        attributes = self.alive[layout]
        assert attributes["dtype"] == 0
        cols, ld = attributes["cols"], attributes["ld"]
        values = memory(address + 4 * i * attributes[6], "f4", ld * cols)
        return values.reshape(cols, ld).T[: attributes["rows"]]


def fake_cuda() -> ModuleType:
    """cupy.cuda: one stream, and memory that is not touched."""
    cuda = ModuleType("cuda")
    cuda.alloc = lambda size: SimpleNamespace(ptr=WORKSPACE_AT)
    cuda.get_current_stream = lambda: SimpleNamespace(ptr=STREAM)
    return cuda


def family(*listed: Ids, **failing: int) -> tuple[CublasLt, FakeLt]:
    """The family over the fake library, whose heuristic lists FIRST and SECOND."""
    lt = FakeLt(listed or (FIRST, SECOND), **failing)
    return CublasLt(lt, fake_cuda()), lt


def operand_sets(gemm: Gemm, sets: int = 2) -> list[Operands]:
    """float32, on a boundary of 256 bytes as CuPy's memory is: lists go by the alignment."""
    rng = np.random.default_rng(1)
    inputs = aligned_copy(rng.standard_normal(sets * input_elements(gemm)))
    outputs = aligned_copy(rng.standard_normal(sets * output_elements(gemm)))
    return list(Carved(gemm, inputs, outputs, sets))


def aligned_copy(values: Any) -> Any:
    """As float32, at a multiple of 256 bytes."""
    room = np.empty(len(values) + 64, np.float32)
    start = -(room.ctypes.data // 4) % 64
    copy = room[start : start + len(values)]
    copy[:] = values
    return copy
