"""The newest tuned table of a node's model directory, for one type of device and one objective.

Of the node's tables the one is used that is not stale here. A push that is stale or damaged is
logged, and the table in use stays (gemmcast/follower.py). Does not know how tables get there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from gemmcast import modeldir, tabledir
from gemmcast.errors import InputError
from gemmcast.follower import Follower
from gemmcast.gemm import Gemm
from gemmcast.local_gpus import local_keys
from gemmcast.table_key import TableKey, check_one_of, key_here
from gemmcast.tuned_table import Looked, TunedTable

if TYPE_CHECKING:
    from gemmcast.predictor import Predictor

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3


class Placed(NamedTuple):
    """A table of the directory."""

    table: TunedTable
    version: str
    """In the registry."""


class TableFollower(Follower):
    """`table` is the newest table that a directory has for this machine.

    Args:
        directory: a node's model directory (gemmcast/tabledir.py).
        here: keys of the devices here; empty for those that agents have described in the directory,
            or else the NVIDIA GPUs of this machine. Where nothing is known, nothing is compared.
        objective: of the table.
        allow_stale: take a table of other versions, or of another device where there is one only.
        predictor: answers for layers without an entry.
        refresh_s: time between two looks.

    Raises:
        InputError: no table, none of this objective, or a damaged one.
        StaleTableError: the tables are of other devices or versions.
    """

    def __init__(
        self,
        directory: Path,
        here: Sequence[TableKey],
        objective: str,
        *,
        allow_stale: bool = False,
        predictor: Predictor | None = None,
        refresh_s: float = 0.2,
    ) -> None:
        super().__init__(directory / tabledir.CURRENT, refresh_s)
        self._directory = directory
        self._here = here or _described(directory) or local_keys()
        self._objective = objective
        self._allow_stale = allow_stale
        self._predictor = predictor
        self._placed = self._newest()
        self.start()

    @property
    def table(self) -> TunedTable:
        """The newest table that could be used."""
        self._keep_looking()
        return self._placed.table

    @property
    def is_compared(self) -> bool:
        """Whether something is known of the devices here."""
        return bool(self._here)

    @property
    def version(self) -> str:
        """Its version in the registry."""
        self._keep_looking()
        return self._placed.version

    def lookup(self, gemm: Gemm, operation: str | None = None) -> Looked:
        """What to run for a GEMM, by the newest table: `TunedTable.lookup`."""
        return self.table.lookup(gemm, operation)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _in_use(self) -> str:
        return f"tuned table {self._placed.version}"

    def _take_newest(self) -> None:
        placed = self._newest()
        if placed == self._placed:
            return
        self._placed = placed
        log.info("tuned table %s from %s", placed.version, self._directory)

    def _newest(self) -> Placed:
        """The table for this machine."""
        tables = read_all(self._directory)
        own = [one for one in tables if one.table.key.objective == self._objective]
        if not own:
            objectives = sorted({one.table.key.objective for one in tables})
            rule = f"no table in {self._directory} has it"
            way_out = f"name one of {', '.join(objectives) or 'none'}"
            raise InputError("objective", self._objective, rule, way_out)
        chosen = self._chosen(own)
        return Placed(chosen.table.with_model(self._predictor), chosen.version)

    def _chosen(self, tables: Sequence[Placed]) -> Placed:
        """The one that can be used here; one of this type of device before others."""
        usable = [one for one in tables if self._allow_stale or self._fits(one.table.key)]
        own = [one for one in usable if self._is_of_here(one.table.key)] or usable
        if len(own) == 1:
            return own[0]
        if not own:
            # A stale table of this device explains more than one of another device.
            of_here = [one for one in tables if self._is_of_here(one.table.key)]
            stale = (of_here or tables)[0].table.key
            check_one_of(stale, self._here, f"the table in {self._directory}")
        names = ", ".join(sorted({one.table.key.device for one in own}))
        rule = f"{self._directory} has tables for several devices"
        raise InputError("here", None, rule, f"give the device that runs the kernels: {names}")

    def _is_of_here(self, key: TableKey) -> bool:
        return not self._here or any(key.is_of(here) for here in self._here)

    def _fits(self, key: TableKey) -> bool:
        return not self._here or any(key.difference(here) is None for here in self._here)


def _described(directory: Path) -> list[TableKey]:
    """The devices that agents have described in the directory."""
    return [key_here(device) for device in modeldir.devices(directory)]


def read_all(directory: Path) -> list[Placed]:
    """The current tables of a directory; a set that is displaced meanwhile is read again.

    Raises:
        InputError: there are none, or a damaged one.
    """
    for _ in range(_ATTEMPTS):
        current = tabledir.read_current(directory)
        try:
            return [_read(directory, placed) for placed in current.tables]
        except FileNotFoundError:
            continue
    raise InputError("table", str(directory), "a file is missing", "push the tables again")


def _read(directory: Path, placed: tabledir.PlacedTable) -> Placed:
    data = tabledir.read_table(directory, placed)
    return Placed(TunedTable.from_json(data, str(directory / placed.file)), placed.version)
