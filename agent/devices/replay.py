"""A device that answers from a recorded dataset, row for row.

What was recorded is returned as it was (readings, device, conditions, time); only cell, agent and
sample id are this run's. A cell that the file does not hold is a row "not_recorded".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from agent.messages import Event, Outcome
from gemmcast.arrow import read_samples
from gemmcast.cell import Cell
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.descriptions import device_of
from gemmcast.device_names import chosen
from gemmcast.errors import InputError
from gemmcast.rows import ReadRow, Row, config_of, failed
from gemmcast.sample import digest

KEY_COLUMNS = (
    "m",
    "n",
    "k",
    "batch",
    "dtype",
    "layout",
    "alpha",
    "beta",
    "family",
    "cache",
)
"""Columns in which a row and a cell must be equal; knobs may be left open by the cell."""


class ReplayInstrument:
    """A dataset that answers like a device.

    Args:
        path: a Parquet file of samples.
        name: which device, where it holds several.

    Raises:
        InputError: the file is missing, not one of samples, or has no such device.
    """

    def __init__(self, path: Path, agent: str, name: str | None = None) -> None:
        table = _read(path)
        chosen = _choose_device(table, path, name)
        rows: list[Row] = [row for row in table.to_pylist() if row["device"] == chosen]
        self.device = device_of(rows)
        self._source = path.name
        self._agent = agent
        self._rows: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            self._rows[_key(row)].append(row)

    def measure_all(
        self,
        cells: Sequence[Cell],
        *,
        depth: int | None = None,
        begun: Callable[[Cell], None] = lambda _: None,
    ) -> Iterator[Event]:
        """See `Instrument`; the answers come in the order of the cells."""
        for cell in cells:
            begun(cell)
            yield self.measure(cell)

    def measure(self, cell: Cell) -> Outcome:
        """The recorded row of one cell."""
        rows = self._recorded(cell)
        if cell.repeat >= len(rows):
            reason = f"{self._source} has no such cell"
            return Outcome(failed(cell, self.device, self._agent, "not_recorded", reason))
        # Rows with power first for a cell with power, the others first for one without.
        rows.sort(key=lambda row: cell.power != (row["power_w"] is not None))
        row = dict(rows[cell.repeat])
        row["cell_id"] = cell.cell_id
        row["agent"] = self._agent
        row["sample_id"] = uuid4().hex
        return Outcome(row)

    def _recorded(self, cell: Cell) -> list[Row]:
        """The rows of the configuration that fits a cell best, its repeats among them.

        A cell may leave knobs open, so several configurations may fit: a successful row is
        better, then one that fills fewer open knobs.
        """
        key = _key({**asdict(cell.gemm), "family": cell.config.family, "cache": cell.cache})
        rows = [row for row in self._rows.get(key, []) if _fits(row, cell.config)]
        if not rows:
            return []
        best = min(rows, key=lambda row: (row["status"] != "ok", _open_knobs(row, cell.config)))
        rows.sort(key=lambda row: row["status"] != "ok")
        return [row for row in rows if config_of(row) == config_of(best)]


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError("dataset", str(path), "no such file", "name a Parquet file of samples")
    try:
        return read_samples(path)
    except pa.ArrowInvalid as error:
        rule = f"not a Parquet file ({error})"
        raise InputError("dataset", str(path), rule, "name a Parquet file of samples") from None


def _choose_device(table: pa.Table, path: Path, name: str | None) -> str:
    names: list[str] = sorted(set(table["device"].to_pylist()))
    if not names:
        raise InputError("dataset", str(path), "holds no samples", "name a Parquet file of samples")
    if name is None:
        if len(names) > 1:
            rule = f"{path} holds several devices: {', '.join(names)}"
            raise InputError("device_name", name, rule, "name one")
        return names[0]
    return chosen("device_name", name, names, f"those are the devices of {path}")


def _fits(row: ReadRow, config: KernelConfig) -> bool:
    """Whether a row can answer for a configuration, some of whose knobs may be open (0).

    A row has every knob that the kernel turned out to have, and for a custom kernel the hash of
    its content after an @.
    """
    kernel: str = row["kernel"]
    if config.kernel not in ("", kernel, kernel.partition("@")[0]):
        return False
    return all(getattr(config, knob) in (0, row[knob]) for knob in KNOBS)


def _open_knobs(row: ReadRow, config: KernelConfig) -> int:
    """Knobs that the row has and the cell leaves open."""
    return sum(getattr(config, knob) != row[knob] for knob in KNOBS)


def _key(values: ReadRow) -> str:
    return digest({name: values[name] for name in KEY_COLUMNS})
