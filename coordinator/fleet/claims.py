"""What an agent claims of its device and of the cells of its rows, held against what it was given.

A row repeats the problem, the family and the cache state of its cell; its knobs may differ, because
a cell may leave them open. It names the agent and the device. Does not know what a reading may be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from coordinator.samples.batch_rules import LONGEST_OTHER_TEXT, LOOK, Broken, Flags
from gemmcast.arrow import SCHEMA
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError

REPEATED: Final = ("m", "n", "k", "batch", "alpha", "beta", "dtype", "layout", "family", "cache")
"""Columns in which a row is equal to its cell."""


class Expected(NamedTuple):
    """A cell that was leased to an agent, and what its row must say."""

    cell: Cell
    claim: tuple[object, ...]
    """REPEATED of the cell."""


def expected(cell: Cell) -> Expected:
    """What the row of a cell must say."""
    gemm = cell.gemm
    sizes = (gemm.m, gemm.n, gemm.k, gemm.batch, gemm.alpha, gemm.beta)
    words = (gemm.dtype, gemm.layout, cell.config.family, cell.cache)
    return Expected(cell, (*sizes, *words))


def of_other_cells(rows: pa.RecordBatch, cells: Sequence[Expected | None]) -> Iterator[Broken]:
    """Rows of cells that the agent was not given, or that say something else than their cell.

    Args:
        cells: of each row; None: the agent was not given it.
    """
    if None in cells:
        ids = rows.column("cell_id").to_pylist()
        is_unknown = np.array([one is None for one in cells])
        yield _broken("cell_id", ids, is_unknown, "was not leased to the agent")
    columns = [rows.column(place).to_pylist() for place in _PLACES]
    claims = list(zip(*columns, strict=True))
    wanted = [one.claim if one else None for one in cells]
    if claims != wanted:
        differs = [claim != cell for claim, cell in zip(claims, wanted, strict=True)]
        yield _broken(", ".join(REPEATED), claims, np.array(differs), "are not those of its cell")


def of_others(rows: pa.RecordBatch, own: Mapping[str, Collection[str]]) -> Iterator[Broken]:
    """Rows that say that they are of another agent, or of another device.

    Args:
        own: column -> the values that it may have.
    """
    for name, allowed in own.items():
        values = rows.column(name).to_pylist()
        if not set(values).issubset(allowed):
            is_others = np.array([value not in allowed for value in values])
            yield _broken(name, values, is_others, "is not that of the agent")


def check_device(device: Device) -> None:
    """Refuse what no device is: unpickling makes one without the checks of its constructor.

    Raises:
        InputError: a number that is none, or a text that is too long or can't be shown.
    """
    replace(device)
    texts = (device.name, device.uuid, device.arch, device.driver, device.cuda, device.library)
    for text in (*texts, *device.peak_tflops):
        if text is None:
            continue
        if not isinstance(text, str) or len(text.encode(errors="replace")) > LONGEST_OTHER_TEXT:
            rule = f"must be text of up to {LONGEST_OTHER_TEXT} bytes"
            raise InputError("device", text, rule, LOOK)
        if not text.isprintable():
            raise InputError("device", text, "has characters that can't be shown", LOOK)


def _broken(name: str, values: Sequence[object], is_broken: Flags, rule: str) -> Broken:
    first = values[int(is_broken.argmax())]
    return Broken(is_broken, InputError(name, first, rule, LOOK))


_PLACES: Final = list(map(SCHEMA.get_field_index, REPEATED))
