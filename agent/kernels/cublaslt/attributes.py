"""cuBLASLt's numbers, and how attributes pass to it and back: through buffers.

Numbers and types: cublasLt.h and library_types.h; docs.nvidia.com/cuda/cublas, "Using the cuBLASLt
API". In this package `lt` is nvmath.bindings.cublasLt, or a fake with the same functions;
its handles and addresses are integers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gemmcast.errors import MeasurementError

AlgorithmBlob = NDArray[np.uint64]
"""cublasLtMatmulAlgo_t: blob[8]."""
Buffer = NDArray[np.integer]


class Attribute(NamedTuple):
    """One attribute of a descriptor or of an algorithm."""

    number: int
    dtype: str
    """NumPy's code of its type: `i4` is an int32."""


# cublasLtMatmulDescAttributes_t
TRANSA: Final = Attribute(3, "i4")
TRANSB: Final = Attribute(4, "i4")

# cublasLtMatrixLayoutAttribute_t
BATCH_COUNT: Final = Attribute(5, "i4")
BATCH_OFFSET: Final = Attribute(6, "i8")

# cublasLtMatmulPreferenceAttributes_t
MAX_WORKSPACE: Final = Attribute(1, "u8")
MIN_ALIGNMENTS: Final = tuple(Attribute(number, "u4") for number in (5, 6, 7, 8))
"""Of A, B, C and D."""

# cublasLtMatmulAlgoConfigAttributes_t
ID: Final = Attribute(0, "i4")
TILE: Final = Attribute(1, "u4")
SPLIT: Final = Attribute(2, "i4")
SCHEME: Final = Attribute(3, "u4")
SWIZZLE: Final = Attribute(4, "u4")
STAGES: Final = Attribute(6, "u4")
CLUSTER: Final = Attribute(8, "u2")
CONFIGURATION: Final = (ID, TILE, STAGES, SPLIT, SWIZZLE, CLUSTER)
"""In the order of Ids."""

# cublasLtMatmulAlgoCapAttributes_t
CAN_SPLIT: Final = Attribute(0, "i4")
CAN_REDUCE: Final = Attribute(1, "u4")
CAN_SWIZZLE: Final = Attribute(2, "u4")
CAN_BATCH: Final = Attribute(3, "i4")
TILE_IDS: Final = Attribute(6, "u4")
STAGE_IDS: Final = Attribute(13, "u4")
ALIGNMENTS: Final = tuple(Attribute(number, "u4") for number in (16, 17, 18, 19))
"""Of A, B, C and D."""

HEURISTIC_RESULT: Final = np.dtype(
    [
        ("algo", np.uint64, 8),
        ("workspace_bytes", np.uint64),
        ("state", np.int32),
        ("waves", np.float32),
        ("reserved", np.int32, 4),
    ]
)
"""cublasLtMatmulHeuristicResult_t."""
NOT_SUPPORTED: Final = 15
CUBLAS_STATUSES: Final = {
    1: "not initialized",
    3: "allocation failed",
    7: "invalid value",
    8: "architecture mismatch",
    13: "execution failed",
    14: "internal error",
    NOT_SUPPORTED: "not supported",
}
"""cublasStatus_t."""
REFUSALS: Final = (7, 8, NOT_SUPPORTED)
"""The product or configuration is not in the library; every other status is a fault."""


class CublasLtError(Protocol):
    """The library's exception."""

    status: int


def failed(error: CublasLtError, call: str) -> MeasurementError:
    """The library's exception as a failed measurement."""
    status = int(error.status)
    words = CUBLAS_STATUSES.get(status, "unknown")
    kind = "unsupported" if status in REFUSALS else "cuda_error"
    return MeasurementError(kind, f"{call}: cublasStatus_t {status} ({words})")


def put(
    set_attribute: Callable[[int, int, int, int], None],
    target: int,
    attribute: Attribute,
    value: int,
) -> None:
    """Set an attribute of a descriptor, or of the algorithm at an address."""
    buffer, address = _constant(value, attribute.dtype)
    set_attribute(target, attribute.number, address, buffer.nbytes)


@lru_cache(maxsize=1024)
def _constant(value: int, dtype: str) -> tuple[Buffer, int]:
    """A buffer for the library to read, and its address; the same few are set again and again."""
    buffer = np.array([value], dtype)
    return buffer, buffer.ctypes.data


def get(
    get_attribute: Callable[[int, int, int, int, int], None],
    blob: AlgorithmBlob,
    attribute: Attribute,
) -> int:
    """One number of an algorithm."""
    buffer = np.zeros(1, attribute.dtype)
    written = np.zeros(1, np.uint64)
    get_attribute(
        blob.ctypes.data, attribute.number, buffer.ctypes.data, buffer.nbytes, written.ctypes.data
    )
    return int(buffer[0])


def get_list(lt: ModuleType, blob: AlgorithmBlob, attribute: Attribute) -> tuple[int, ...]:
    """A list among an algorithm's capabilities. An empty one means the id 0, "undefined"."""
    written = np.zeros(1, np.uint64)
    address = blob.ctypes.data
    # The first call gives the length in bytes.
    lt.matmul_algo_cap_get_attribute(address, attribute.number, 0, 0, written.ctypes.data)
    buffer = np.zeros(int(written[0]) // np.dtype(attribute.dtype).itemsize, attribute.dtype)
    if not len(buffer):
        return (0,)
    lt.matmul_algo_cap_get_attribute(
        address, attribute.number, buffer.ctypes.data, buffer.nbytes, written.ctypes.data
    )
    return tuple(int(value) for value in buffer)
