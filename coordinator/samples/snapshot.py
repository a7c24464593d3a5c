"""One version of a sample store, which any thread or process may read while its writer goes on.

Data files never change, and those that a later version replaces are kept for a day (RETENTION_S of
store.py), so a list of their names is enough. Knows nothing of the log, nor of what comes later.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from coordinator.samples.answers import without_replaced
from coordinator.samples.data_files import read_files
from coordinator.samples.describing import with_one_description
from coordinator.samples.place import StorePlace
from gemmcast.errors import UnavailableError

log = logging.getLogger(__name__)

IN_ORDER: Final = [("cell_id", "ascending"), ("device_uuid", "ascending")]
"""How rows are sorted when they are read: the same way for every order of commits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """See the head of this file."""

    place: StorePlace
    version: int
    """Of the table."""
    names: tuple[str, ...]
    """Its data files."""

    def read(self) -> pa.Table:
        """Every sample of the version, as `SampleStore.read` gives them.

        Rows of a data file that has changed on its disk are left out, with a warning.

        Raises:
            UnavailableError: the store does not answer, or is not there any more.
        """
        rows, damaged = read_files(self.place, self.names)
        if damaged and not self.place.exists():
            raise UnavailableError(f"sample store {self.place.shown} is not there any more")
        if damaged:
            text = "sample store %s: left out %d of %d data files, which are damaged"
            log.warning(text, self.place.shown, len(damaged), len(self.names))
        return settled(rows)


def settled(rows: pa.Table) -> pa.Table:
    """Rows as they were committed, as they are read: see `SampleStore.read`."""
    return with_one_description(without_replaced(rows)).sort_by(IN_ORDER)
