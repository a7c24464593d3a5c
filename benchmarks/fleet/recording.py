"""A recorded device that answers a whole batch at once: for each cell its recorded row.

agent/devices/replay.py answers row by row, which takes the processor longer than the coordinator
needs to store the row. All columns but OWN are as they were recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import time
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.fleet.messages import Pace
from gemmcast.arrow import SCHEMA, read_samples, to_bytes
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.rows import config_of, gemm_of

OWN: Final = ("cell_id", "sample_id", "device_uuid", "agent", "measured_at")
"""Columns that are an agent's own."""
Problem = tuple[Gemm, KernelConfig]


class Recording:
    """The rows of a file of samples that are ok, cold, and the first of their problem.

    Args:
        path: Parquet.
    """

    def __init__(self, path: Path) -> None:
        table = read_samples(path)
        is_used = pc.and_(pc.equal(table["status"], "ok"), pc.equal(table["cache"], "cold"))
        self._rows = table.filter(is_used).combine_chunks().to_batches()[0]
        self._places: dict[Problem, int] = {}
        for place, row in enumerate(self._rows.to_pylist()):
            self._places.setdefault((gemm_of(row), config_of(row)), place)

    @property
    def problems(self) -> list[Problem]:
        """What cells can be made of."""
        return list(self._places)

    def batch(
        self,
        cells: Sequence[Cell],
        agent: str,
        device: Device,
        sample_ids: Iterator[str],
        pace: Pace,
    ) -> bytes:
        """The rows of cells that an agent has measured one after the other, the last just now."""
        count = len(cells)
        places = [self._places[cell.gemm, cell.config] for cell in cells]
        own = (
            [cell.cell_id for cell in cells],
            list(islice(sample_ids, count)),
            [device.uuid] * count,
            [agent] * count,
            _moments(count, pace),
        )
        columns = self._rows.take(pa.array(places)).columns
        for name, values in zip(OWN, own, strict=True):
            columns[SCHEMA.get_field_index(name)] = pa.array(values, pa.string())
        return to_bytes(pa.Table.from_arrays(columns, schema=SCHEMA))


def _moments(count: int, pace: Pace) -> list[str]:
    """UTC, ISO 8601, to the millisecond."""
    before_s = np.arange(count - 1, -1, -1) / pace.rows_per_s
    moments_ms = (1e3 * (time() - before_s)).astype("datetime64[ms]")
    return [f"{moment}+00:00" for moment in np.datetime_as_string(moments_ms)]
