"""A device that answers from a recorded dataset, row for row, and is honest about cells that it does not have.

What was recorded is returned as it was (readings, device, conditions, when); only cell, agent and sample id are this run's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from agent.instrument import Event, Outcome
from gemmcast.arrow import conform
from gemmcast.cell import Cell
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.errors import InputError
from gemmcast.rows import config_of, device_of, failed
from gemmcast.sample import digest

_KEY = ("m", "n", "k", "batch", "dtype", "layout", "alpha", "beta", "family", "cache")


class ReplayInstrument:
    """A dataset with the manners of a device.

    Args:
        path: a Parquet file of the sample schema.
        name: which device, where it holds several.
    """

    def __init__(self, path: Path, agent: str, name: str | None = None) -> None:
        if not path.is_file():
            raise InputError("dataset", str(path), "no such file", "name a Parquet file of samples")
        table = conform(_read(path), str(path))
        names = sorted(set(table["device"].to_pylist()))
        if not names:
            raise InputError("dataset", str(path), "holds no samples", "name a Parquet file of samples")
        if name is None and len(names) > 1:
            raise InputError("device_name", name, f"{path} holds several devices: {', '.join(names)}", "name one")
        if name is not None and name not in names:
            raise InputError("device_name", name, f"{path} holds other devices: {', '.join(names)}", "name one of them")
        rows = [row for row in table.to_pylist() if row["device"] == (name or names[0])]
        self._source, self._agent = path.name, agent
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            self._rows[_key(row)].append(row)
        self.device = device_of(rows)

    def measure_all(self, cells: Sequence[Cell], *, depth: int | None = None, begun: Callable[[Cell], None] = lambda _: None) -> Iterator[Event]:
        for cell in cells:
            begun(cell)
            yield self.measure(cell)

    def measure(self, cell: Cell) -> Outcome:
        asked = {**cell.to_dict()["gemm"], **cell.to_dict()["config"], "cache": cell.cache}
        found = [row for row in self._rows.get(_key(asked), []) if _is(row, cell.config)]
        # an open question may fit several configurations: the closest one that is good, and its repeats
        found.sort(key=lambda row: (row["status"] != "ok", _left_open(row, cell.config)))
        found = [row for row in found if config_of(row) == config_of(found[0])]
        if cell.repeat >= len(found):
            return Outcome(failed(cell, self.device, self._agent, "not_recorded", f"{self._source} has no such cell"))
        # metered rows first where power is asked for, the others first where it is not
        ranked = sorted(found, key=lambda row: cell.power != (row["power_w"] is not None))
        return Outcome({**ranked[cell.repeat], "cell_id": cell.cell_id, "agent": self._agent, "sample_id": uuid4().hex})


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise InputError("dataset", str(path), f"not a Parquet file ({error})", "name a Parquet file of samples") from None


def _is(row: dict[str, Any], asked: KernelConfig) -> bool:
    """A row tells every knob that the kernel turned out to have, and an own kernel's content; a cell may leave them open."""
    kernel = row["kernel"]
    return asked.kernel in ("", kernel, kernel.partition("@")[0]) and all(getattr(asked, knob) in (0, row[knob]) for knob in KNOBS)


def _left_open(row: dict[str, Any], asked: KernelConfig) -> int:
    """Knobs that the row tells and the cell did not ask for."""
    return sum(getattr(asked, knob) != row[knob] for knob in KNOBS)


def _key(values: Any) -> str:
    return digest({name: values[name] for name in _KEY})
