"""Kinds of cells that users ask for and sweeps rarely contain: how many rows each has, by dtype.

A kind is filled when each of its dtypes has NEEDED rows. fp64 is in none: no sweep has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple, TypedDict

import numpy as np

from coordinator.samples.columns import BOARD, Columns, Mask
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
SHORT_US: Final = (5.0, 50.0)
"""Runtimes of short launches."""


class Kind(NamedTuple):
    """Cells of one kind."""

    name: str
    dtypes: tuple[str, ...]
    """That need rows."""
    rows: Mask


class Hole(TypedDict):
    """How far a kind is filled."""

    rows: dict[str, int]
    """dtype -> rows; a dtype that needs rows is there with 0."""
    missing: list[str]
    """Dtypes with fewer rows than NEEDED."""
    layers: int
    """Different (n, k)."""
    boards: int


def holes(measured: Columns, cutlass_kernels: Collection[str]) -> dict[str, Hole]:
    """Name of a kind -> how far it is filled.

    Args:
        measured: rows of one type of device.
        cutlass_kernels: names of the kernels of the first sets; the others are `between` them.
    """
    dtypes = measured.words("dtype")
    layers = measured.codes("n", "k")
    boards = measured.codes(*BOARD)
    filled: dict[str, Hole] = {}
    for kind in _kinds(measured, cutlass_kernels):
        of_kind = dtypes[kind.rows].tolist()
        rows = {dtype: of_kind.count(dtype) for dtype in (*kind.dtypes, *sorted(set(of_kind)))}
        filled[kind.name] = Hole(
            rows=rows,
            missing=[dtype for dtype in kind.dtypes if rows[dtype] < NEEDED],
            layers=len(set(layers[kind.rows].tolist())),
            boards=len(set(boards[kind.rows].tolist())),
        )
    return filled


def _kinds(measured: Columns, cutlass_kernels: Collection[str]) -> Iterator[Kind]:
    yield from _kinds_of_kernels(measured, cutlass_kernels)
    yield from _kinds_of_problems(measured)
    runtime_us = measured.numbers("runtime_us")
    shortest_us, longest_us = SHORT_US
    is_short = (shortest_us <= runtime_us) & (runtime_us <= longest_us)
    has_power = ~np.isnan(measured.numbers("power_w"))
    yield Kind("power of launches of 5 to 50 us", DTYPES, is_short & has_power)
    yield Kind("warm cache", DTYPES, measured.words("cache") == "warm")


def _kinds_of_kernels(measured: Columns, cutlass_kernels: Collection[str]) -> Iterator[Kind]:
    families = measured.words("family")
    is_cutlass = families == "cutlass"
    is_cublaslt = families == "cublaslt"
    split_k = measured.numbers("split_k")
    kernels = measured.words("kernel").astype(str)
    is_split = (split_k >= 2) & (split_k <= 16)
    is_between = ~np.isin(kernels, list(cutlass_kernels))
    is_enumerated = np.char.startswith(kernels, "enumerated-")
    yield Kind("cutlass, split_k 2 to 16", CUTLASS, is_cutlass & is_split)
    yield Kind("cutlass, kernels between the sets", CUTLASS, is_cutlass & is_between)
    yield Kind("cublaslt, fp32", ("fp32",), is_cublaslt & (measured.words("dtype") == "fp32"))
    yield Kind("cublaslt, int8", ("int8",), is_cublaslt & (measured.words("dtype") == "int8"))
    yield Kind("cublaslt, beyond the heuristic's list", CUBLASLT, is_cublaslt & is_enumerated)


def _kinds_of_problems(measured: Columns) -> Iterator[Kind]:
    m, n, k = (measured.numbers(name) for name in ("m", "n", "k"))
    batch = measured.numbers("batch")
    layouts = measured.words("layout")
    is_half = np.isin(measured.words("dtype").astype(str), HALF)
    longest = np.maximum(n, k)
    is_head = (longest > LARGEST_LAYER) & (longest <= LARGEST_HEAD)
    yield Kind("m 1 to 8", DTYPES, m <= 8)
    yield Kind("beta 1", DTYPES, measured.numbers("beta") == 1)
    yield Kind("batch 2 to 1024", DTYPES, (batch >= 2) & (batch <= 1024))
    yield Kind(f"n or k {LARGEST_LAYER + 1:,} to {LARGEST_HEAD:,}", HALF, is_head)
    for layout in ("nn", "tn", "tt"):
        yield Kind(f"half precision, {layout}", HALF, is_half & (layouts == layout))
