"""Kinds of cells that users ask for and sweeps rarely contain: how many rows each has, by dtype.

A kind is filled when each of its dtypes has NEEDED rows. fp64 is in none: no sweep has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple, TypedDict

import numpy as np

from coordinator.samples.columns import Columns, Mask, Numbers, Words
from costmodel.evaluate.overlap import BOARD, LAYER
from gemmcast.config import FAMILIES

NEEDED: Final = 150
"""Rows of one dtype that fill a kind."""
DTYPES: Final = ("fp32", "tf32", "fp16", "bf16", "fp8_e4m3")
HALF: Final = ("fp16", "bf16")
CUTLASS: Final = FAMILIES["cutlass"].dtypes
CUBLASLT: Final = FAMILIES["cublaslt"].dtypes
LARGEST_LAYER: Final = 73_728
"""The largest n or k of a layer without its vocabulary (Gemma-2 27B, gate and up)."""
LARGEST_HEAD: Final = 262_144
"""The largest vocabulary of well-known language models."""
Where = Mapping[str, str | tuple[float, float]]
"""Column -> its value, or the first and last of its values. Besides the columns of a sample there
are those of `_values`."""


class Kind(NamedTuple):
    """Cells of one kind."""

    name: str
    dtypes: tuple[str, ...]
    """That need rows."""
    where: Where


KINDS: Final = (
    Kind("cutlass, split_k 2 to 16", CUTLASS, {"family": "cutlass", "split_k": (2, 16)}),
    Kind("cutlass, kernels between the sets", CUTLASS, {"set": "between"}),
    Kind("cublaslt, fp32", ("fp32",), {"family": "cublaslt"}),
    Kind("cublaslt, int8", ("int8",), {"family": "cublaslt"}),
    Kind("cublaslt, beyond the heuristic's list", CUBLASLT, {"list": "enumerated"}),
    Kind("m 1 to 8", DTYPES, {"m": (1, 8)}),
    Kind("beta 1", DTYPES, {"beta": (1, 1)}),
    Kind("batch 2 to 1024", DTYPES, {"batch": (2, 1024)}),
    Kind("n or k 73,729 to 262,144", HALF, {"longest": (LARGEST_LAYER + 1, LARGEST_HEAD)}),
    Kind("half precision, nn", HALF, {"layout": "nn"}),
    Kind("half precision, tn", HALF, {"layout": "tn"}),
    Kind("half precision, tt", HALF, {"layout": "tt"}),
    Kind("warm cache", DTYPES, {"cache": "warm"}),
    Kind(
        "power of launches of 5 to 50 us", DTYPES, {"runtime_us": (5, 50), "power_w": (0, np.inf)}
    ),
)


class Hole(TypedDict):
    """How far a kind is filled."""

    rows: dict[str, int]
    """dtype that needs rows -> its rows."""
    missing: list[str]
    """Dtypes with fewer rows than NEEDED."""
    layers: int
    """Different (n, k)."""
    boards: int


def holes(measured: Columns, cutlass_kernels: Collection[str]) -> dict[str, Hole]:
    """Name of a kind -> how far it is filled.

    Args:
        measured: rows of one type of device.
        cutlass_kernels: names of the kernels of the first sets; the others are between them.
    """
    dtypes = measured.words("dtype").astype(str)
    layers = measured.codes(*LAYER)
    boards = measured.codes(*BOARD)
    values = _values(measured, cutlass_kernels)
    filled: dict[str, Hole] = {}
    for kind in KINDS:
        chosen = np.isin(dtypes, kind.dtypes)
        for column, wanted in kind.where.items():
            chosen &= _fits(values, measured, column, wanted)
        counted = Counter(dtypes[chosen].tolist())
        filled[kind.name] = Hole(
            rows={dtype: counted[dtype] for dtype in kind.dtypes},
            missing=[dtype for dtype in kind.dtypes if counted[dtype] < NEEDED],
            layers=len(np.unique(layers[chosen])),
            boards=len(np.unique(boards[chosen])),
        )
    return filled


def _values(measured: Columns, cutlass_kernels: Collection[str]) -> dict[str, Words | Numbers]:
    """What a kind asks for and no column has: `list`, `set` and `longest`."""
    kernels = measured.words("kernel").astype(str)
    is_cutlass = measured.words("family") == "cutlass"
    is_between = is_cutlass & ~np.isin(kernels, list(cutlass_kernels))
    is_enumerated = np.char.startswith(kernels, "enumerated-")
    return {
        "list": np.where(is_enumerated, "enumerated", "").astype(object),
        "set": np.where(is_between, "between", "").astype(object),
        "longest": np.maximum(measured.numbers("n"), measured.numbers("k")),
    }


def _fits(
    values: Mapping[str, Words | Numbers],
    measured: Columns,
    column: str,
    wanted: str | tuple[float, float],
) -> Mask:
    """[n_rows] Whether a column has the wanted value."""
    if isinstance(wanted, str):
        words = values[column] if column in values else measured.words(column)
        return np.asarray(words == wanted, dtype=bool)
    first, last = wanted
    numbers = values[column] if column in values else measured.numbers(column)
    return np.asarray((numbers >= first) & (numbers <= last), dtype=bool)
