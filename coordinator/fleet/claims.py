"""What an agent claims of its device and of the cells of its rows, held against what it was given.

A row repeats the problem, the family and the cache state of its cell; its knobs may differ, because
a cell may leave them open. It names the agent and the device. Does not know what a reading may be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Final

import numpy as np
import pyarrow as pa

from coordinator.samples.batch_rules import LONGEST_OTHER_TEXT, LOOK, Broken, Flags
from gemmcast.arrow import SCHEMA
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError

REPEATED: Final = ("m", "n", "k", "batch", "alpha", "beta", "dtype", "layout", "family", "cache")
"""Columns in which a row is equal to its cell."""


def of_other_cells(rows: pa.RecordBatch, cells: Sequence[Cell | None]) -> Iterator[Broken]:
    """Rows of cells that the agent was not given, or that say something else than their cell.

    Args:
        cells: of each row; None: the agent was not given it.
    """
    # By identity: cells compare field by field.
    is_unknown = [cell is None for cell in cells]
    if any(is_unknown):
        ids = rows.column("cell_id").to_pylist()
        yield _broken("cell_id", ids, np.array(is_unknown), "was not leased to the agent")
    columns = [rows.column(place).to_pylist() for place in _PLACES]
    claims = list(zip(*columns, strict=True))
    wanted = [None if cell is None else _CLAIM(cell) for cell in cells]
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
_OF_GEMM: Final = [f"gemm.{name}" for name in REPEATED[:-2]]
_CLAIM: Final = attrgetter(*_OF_GEMM, "config.family", "cache")
"""REPEATED of a cell."""
