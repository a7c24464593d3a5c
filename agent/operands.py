"""Operand sets: what a kernel multiplies, as it lies in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gemmcast.gemm import Gemm

ALIGNMENT = 256
# elements
Array = Any
# numpy.ndarray or cupy.ndarray; a[batch, m, k] or, stored transposed, a[batch, k, m]; likewise b; c[batch, m, n]


@dataclass(frozen=True, slots=True)
class Operands:
    """One set: A and B as they are stored (layout applied), and C."""

    a: Array
    b: Array
    c: Array


def input_elements(gemm: Gemm) -> int:
    """Of an arena, for A and B of one set."""
    return _padded(gemm.batch * gemm.m * gemm.k) + _padded(gemm.batch * gemm.k * gemm.n)


def output_elements(gemm: Gemm) -> int:
    """Of an arena, for C of one set."""
    return _padded(gemm.batch * gemm.m * gemm.n)


class Carved(Sequence[Operands]):
    """Operand sets as evenly spaced windows of two flat arenas: A and B from `inputs`, C from `outputs`.

    Each starts on a boundary of 256 elements, as a matrix of its own would: libraries choose their kernels by the alignment too.
    A window is made when it is first asked for: there are hundreds, and a GPU's kernels need no more of them than the address.

    Raises:
        ValueError: an arena is too small.
    """

    def __init__(self, gemm: Gemm, inputs: Array, outputs: Array, sets: int) -> None:
        for arena, of_set in ((inputs, input_elements(gemm)), (outputs, output_elements(gemm))):
            if arena.size < sets * of_set:
                raise ValueError(f"an arena of {arena.size} elements is too small for {sets} sets of {of_set}")
        self._gemm, self._inputs, self._outputs = gemm, inputs, outputs
        self._made: list[Operands | None] = [None] * sets

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, i: int) -> Operands: ...
    @overload
    def __getitem__(self, i: slice) -> list[Operands]: ...
    def __getitem__(self, i: int | slice) -> Operands | list[Operands]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if (made := self._made[i]) is None:
            made = self._made[i] = self._window(i % len(self))
        return made

    @property
    def addresses(self) -> NDArray[np.uint64]:
        gemm, inputs, outputs = self._gemm, self._inputs, self._outputs
        start = address_of(inputs)
        first = (start, start + _padded(gemm.batch * gemm.m * gemm.k) * inputs.itemsize, address_of(outputs))
        of_set = input_elements(gemm) * inputs.itemsize
        apart = (of_set, of_set, output_elements(gemm) * outputs.itemsize)
        return np.array(first, np.uint64) + np.arange(len(self), dtype=np.uint64)[:, None] * np.array(apart, np.uint64)

    def _window(self, i: int) -> Operands:
        gemm = self._gemm
        a_size, b_size, c_size = (gemm.batch * size for size in (gemm.m * gemm.k, gemm.k * gemm.n, gemm.m * gemm.n))
        a_at, c_at = i * input_elements(gemm), i * output_elements(gemm)
        b_at = a_at + _padded(a_size)
        return Operands(
            self._inputs[a_at : a_at + a_size].reshape((gemm.batch, *_stored(gemm.m, gemm.k, gemm.layout[0]))),
            self._inputs[b_at : b_at + b_size].reshape((gemm.batch, *_stored(gemm.k, gemm.n, gemm.layout[1]))),
            self._outputs[c_at : c_at + c_size].reshape((gemm.batch, gemm.m, gemm.n)),
        )


def addresses(sets: Sequence[Operands]) -> NDArray[np.uint64]:
    """Of A, B and C, uint64[sets, 3]."""
    if isinstance(sets, Carved):
        return sets.addresses
    return np.array([[address_of(one.a), address_of(one.b), address_of(one.c)] for one in sets], np.uint64)


def address_of(array: Array) -> int:
    """Of the first element, in the device's memory or, for NumPy's arrays, in the host's."""
    return int(getattr(array.data, "ptr", None) or array.ctypes.data)


def _stored(rows: int, columns: int, layout: str) -> tuple[int, int]:
    return (columns, rows) if layout == "t" else (rows, columns)


def _padded(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT
