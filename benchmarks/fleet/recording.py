"""Batches of recorded rows, made beforehand: an agent's own columns are written over their bytes.

To make a batch anew takes the processor longer than the coordinator needs to store it. All columns
but those of WIDTHS are as they were recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from time import time
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.fleet.messages import Pace
from gemmcast.arrow import SCHEMA, read_samples, to_bytes
from gemmcast.cell import Cell
from gemmcast.device import Device

WIDTHS: Final = {
    "cell_id": 16,
    "sample_id": 32,
    "device_uuid": 12,
    "agent": 16,
    "measured_at": 29,
}
"""Columns that are an agent's own, and how many characters each value of them has."""
WINDOWS: Final = 64
"""Places of the recording that batches begin at."""
_MARKS: Final = "abcdefgh"


def own_columns(
    cells: Sequence[Cell], agent: str, device: Device, sample_ids: Iterator[str], pace: Pace
) -> list[list[str]]:
    """The values of each column of WIDTHS: the cells were measured one after the other, the last
    one just now."""
    count = len(cells)
    now_s = time()
    moments_s = [now_s - (count - 1 - place) / pace.rows_per_s for place in range(count)]
    moments = [datetime.fromtimestamp(moment_s, UTC) for moment_s in moments_s]
    return [
        [cell.cell_id for cell in cells],
        list(islice(sample_ids, count)),
        [device.uuid] * count,
        [agent] * count,
        [moment.isoformat(timespec="milliseconds") for moment in moments],
    ]


class Recording:
    """The batches of a file of samples.

    Args:
        path: Parquet; only rows that are ok are used.
    """

    def __init__(self, path: Path) -> None:
        table = read_samples(path)
        self._rows = table.filter(pc.equal(table["status"], "ok")).combine_chunks()
        self._made = cache(self._make)
        self._window = 0

    def batch(self, own: Sequence[Sequence[str]]) -> bytes:
        """One batch, as an agent sends it.

        Args:
            own: the values of each column of WIDTHS, in that order.
        """
        rows = len(own[0])
        self._window = (self._window + 1) % WINDOWS
        data, offsets = self._made(rows, self._window)
        changed = bytearray(data)
        for offset, values, width in zip(offsets, own, WIDTHS.values(), strict=True):
            text = "".join(values).encode()
            assert len(text) == width * rows
            changed[offset : offset + len(text)] = text
        return bytes(changed)

    def _make(self, rows: int, window: int) -> tuple[bytes, list[int]]:
        """A batch with marks in the columns of WIDTHS, and where each of them begins."""
        start = window * (len(self._rows) - rows) // WINDOWS
        table = self._rows.slice(start, rows)
        marks = []
        for mark, (name, width) in zip(_MARKS, WIDTHS.items(), strict=False):
            text = mark * width
            column = pa.array([text] * rows, pa.string())
            table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
            marks.append((text * rows).encode())
        data = to_bytes(table)
        return data, [data.index(mark) for mark in marks]
