"""Operand sets: what a kernel multiplies, as it lies in memory.

    a[batch, m, k], or a[batch, k, m] where it is stored transposed; likewise b; c[batch, m, n]

Many sets are windows of two large arenas, so that a set costs neither allocation nor filling.
Knows nothing of devices: arrays are NumPy's or CuPy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gemmcast.gemm import Gemm

ALIGNMENT = 256
"""Elements; every matrix begins at a multiple of it."""
Array = Any
"""numpy.ndarray or cupy.ndarray."""
ArrayModule = ModuleType
"""numpy or cupy."""
Addresses = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Operands:
    """One set."""

    a: Array
    """As stored: the layout is applied."""
    b: Array
    """As stored."""
    c: Array


def input_elements(gemm: Gemm) -> int:
    """Elements of the input arena that A and B of one set take."""
    return _padded(gemm.batch * gemm.m * gemm.k) + _padded(gemm.batch * gemm.k * gemm.n)


def output_elements(gemm: Gemm) -> int:
    """Elements of the output arena that C of one set takes."""
    return _padded(gemm.batch * gemm.m * gemm.n)


class Carved(Sequence[Operands]):
    """Operand sets as evenly spaced windows of two flat arenas.

    A and B lie in `inputs`, C in `outputs`. Each starts at a multiple of 256 elements, as a matrix
    that is allocated alone would: libraries choose kernels by alignment too. A window is made at
    its first use: there are hundreds, and a GPU's kernels need only the address of most.

    Raises:
        ValueError: an arena is too small.
    """

    def __init__(self, gemm: Gemm, inputs: Array, outputs: Array, sets: int) -> None:
        _check_size(inputs, sets, input_elements(gemm))
        _check_size(outputs, sets, output_elements(gemm))
        self._gemm = gemm
        self._inputs = inputs
        self._outputs = outputs
        self._windows: list[Operands | None] = [None] * sets

    def __len__(self) -> int:
        return len(self._windows)

    @overload
    def __getitem__(self, i: int) -> Operands: ...
    @overload
    def __getitem__(self, i: slice) -> list[Operands]: ...
    def __getitem__(self, i: int | slice) -> Operands | list[Operands]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        window = self._windows[i]
        if window is None:
            window = self._window(i % len(self))
            self._windows[i] = window
        return window

    @property
    def addresses(self) -> Addresses:
        """Of A, B and C: uint64[sets, 3]."""
        gemm, inputs, outputs = self._gemm, self._inputs, self._outputs
        a_bytes = _padded(gemm.batch * gemm.m * gemm.k) * inputs.itemsize
        a_at = address_of(inputs)
        first = np.array([a_at, a_at + a_bytes, address_of(outputs)], np.uint64)
        input_bytes = input_elements(gemm) * inputs.itemsize
        output_bytes = output_elements(gemm) * outputs.itemsize
        spacing = np.array([input_bytes, input_bytes, output_bytes], np.uint64)
        index = np.arange(len(self), dtype=np.uint64)
        return first + index[:, None] * spacing

    def _window(self, i: int) -> Operands:
        gemm = self._gemm
        a_shape = (gemm.batch, *_stored(gemm.m, gemm.k, gemm.layout[0]))
        b_shape = (gemm.batch, *_stored(gemm.k, gemm.n, gemm.layout[1]))
        c_shape = (gemm.batch, gemm.m, gemm.n)
        a_at = i * input_elements(gemm)
        b_at = a_at + _padded(gemm.batch * gemm.m * gemm.k)
        c_at = i * output_elements(gemm)
        return Operands(
            _view(self._inputs, a_at, a_shape),
            _view(self._inputs, b_at, b_shape),
            _view(self._outputs, c_at, c_shape),
        )


def addresses(sets: Sequence[Operands]) -> Addresses:
    """Of A, B and C: uint64[sets, 3]."""
    if isinstance(sets, Carved):
        return sets.addresses
    rows = [[address_of(one.a), address_of(one.b), address_of(one.c)] for one in sets]
    return np.array(rows, np.uint64)


def address_of(array: Array) -> int:
    """Of the first element: in the device's memory, or for NumPy's arrays in the host's."""
    pointer = getattr(array.data, "ptr", None)
    return int(pointer or array.ctypes.data)


def _check_size(arena: Array, sets: int, set_elements: int) -> None:
    if arena.size < sets * set_elements:
        raise ValueError(
            f"an arena of {arena.size} elements is too small for {sets} sets of {set_elements}"
        )


def _view(arena: Array, start: int, shape: tuple[int, int, int]) -> Array:
    batch, rows, columns = shape
    return arena[start : start + batch * rows * columns].reshape(shape)


def _stored(rows: int, columns: int, layout: str) -> tuple[int, int]:
    return (columns, rows) if layout == "t" else (rows, columns)


def _padded(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT
