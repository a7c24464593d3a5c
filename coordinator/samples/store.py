"""The sample store: a Delta Lake table in which every cell is committed exactly once.

Delta records application transactions but refuses nothing, so exactly once is made here: one writer (under the workspace's lock)
skips a batch whose number is not above the last committed one of its sender, and drops rows whose cell is already in the table, in
this commit or an earlier one. Rows and transaction numbers go into the same commit: a crash leaves both or neither.
Knows nothing of Ray; `python -m coordinator status` reads it while a writer writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Transaction, write_deltalake

from gemmcast.arrow import SCHEMA, conform
from gemmcast.errors import InputError

COMPACT_EVERY = 50
# commits; a 100-row commit otherwise grows from 30 to over 100 ms within 400
INDEXED_COLUMNS = 4
# column statistics that Delta keeps: few, they cost more than they save here
KEPT = "interval 1 day"
# files that compaction has replaced, and the log of how they came: a sweep of a day would otherwise leave a hundred thousand


@dataclass(frozen=True, slots=True)
class Batch:
    """What one sender sent at once."""

    sender: str
    # unique for every life of an agent
    number: int
    # grows by one with every batch of that sender
    table: pa.Table


class SampleStore:
    """The table at a path or URI. Create it with `open`, which makes it where there is none."""

    def __init__(self, table: DeltaTable) -> None:
        self._table = table
        self._commits = 0
        self.committed: set[str] = set(_query(self._table, "select cell_id from samples")["cell_id"].to_pylist())

    @staticmethod
    def open(uri: Path | str, *, create: bool) -> SampleStore:
        text = str(uri)
        if DeltaTable.is_deltatable(text):
            return SampleStore(DeltaTable(text))
        if not create:
            raise InputError("samples", text, "no sample store there", "run a plan first: python -m coordinator run PLAN.toml")
        properties = {
            "delta.dataSkippingNumIndexedCols": str(INDEXED_COLUMNS),
            "delta.deletedFileRetentionDuration": KEPT,
            "delta.logRetentionDuration": KEPT,
        }
        return SampleStore(DeltaTable.create(text, schema=SCHEMA, configuration=properties))

    @property
    def version(self) -> int:
        return self._table.version()

    def append(self, batches: Sequence[Batch]) -> pa.Table:
        """Commit what is new in these batches, all of it or nothing; the rows that were committed."""
        last: dict[str, int] = {}
        fresh: list[pa.Table] = []
        ids: set[str] = set()
        for batch in batches:
            seen = last.get(batch.sender, self._last_number(batch.sender))
            if batch.number <= seen:
                continue
            last[batch.sender] = batch.number
            keep = []
            for cell_id in batch.table["cell_id"].to_pylist():
                keep.append(cell_id not in self.committed and cell_id not in ids)
                ids.add(cell_id)
            fresh.append(batch.table.filter(pa.array(keep, pa.bool_())))
        rows = pa.concat_tables(fresh) if fresh else SCHEMA.empty_table()
        if not len(rows):
            return rows
        transactions = [Transaction(sender, number) for sender, number in last.items()]
        write_deltalake(self._table, rows, mode="append", schema_mode="merge", commit_properties=CommitProperties(app_transactions=transactions))
        self.committed |= set(rows["cell_id"].to_pylist())
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            self._table.optimize.compact()
            self._table.vacuum(dry_run=False)
            self._table.create_checkpoint()
            self._table.cleanup_metadata()
        return rows

    def read(self, *, version: int | None = None) -> pa.Table:
        """Every sample (as of a version of the table), with the columns of SCHEMA, in an order that does not depend on how they were committed."""
        table = self._table if version is None else DeltaTable(self._table.table_uri, version=version)
        return conform(_query(table, "select * from samples"), str(table.table_uri)).sort_by("cell_id")

    def counts(self) -> dict[str, int]:
        """Rows by status."""
        table = _query(self._table, "select status from samples")
        return {entry["values"]: entry["counts"] for entry in pc.value_counts(table["status"].combine_chunks()).to_pylist()}

    def _last_number(self, sender: str) -> int:
        number = self._table.transaction_version(sender)
        return -1 if number is None else number


def _query(table: DeltaTable, sql: str) -> pa.Table:
    # to_pyarrow_table() aborts the process at exit in half of the runs (deltalake 1.6 with pyarrow 25); this way does not
    return pa.table(QueryBuilder().register("samples", table).execute(sql).read_all())
