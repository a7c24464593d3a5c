"""The sample store: a Delta Lake table in which every cell is committed exactly once.

One writer, under the workspace's lock, drops every row whose cell is already in the table or
earlier in the same commit. One commit holds all rows of a call, so a crash leaves all or none.
A row is thus sent again without harm: by an agent, after a restart, or from the same file.
Tables of schema 1 and 2 are read as they are. The first writer rewrites such a table in one
commit; programs older than schema 3 must not write to it afterwards.
Does not know Ray, plans or models. `python -m coordinator status` reads while a writer writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from gemmcast.arrow import SCHEMA, conform
from gemmcast.errors import InputError

COMPACT_EVERY: Final = 50
"""Commits between two compactions. Without any, a commit of 100 rows takes 30 ms at first and over
100 ms after 400 commits."""
INDEXED_COLUMNS: Final = 4
"""Columns of which Delta keeps statistics: few, because they cost more time than they save here."""
RETENTION: Final = "interval 1 day"
"""How long replaced files and old log entries are kept, and with them earlier versions of the
table. A sweep of one day would otherwise leave a hundred thousand files."""


class SampleStore:
    """The samples at a path or URI; use `open`."""

    def __init__(self, table: DeltaTable) -> None:
        self._table = table
        self._commits = 0
        cell_ids = _query(table, "select cell_id from samples")["cell_id"]
        self.committed: set[str] = set(cell_ids.to_pylist())
        """The ids of all cells in the table."""

    @staticmethod
    def open(uri: Path | str, *, create: bool) -> SampleStore:
        """The store at `uri`.

        Args:
            create: for the one writer: make the table if there is none, and bring one of an older
                schema to the present schema. False: for readers; changes nothing.

        Raises:
            InputError: there is no table and `create` is false, or the table has unknown columns.
        """
        text = str(uri)
        if DeltaTable.is_deltatable(text):
            table = DeltaTable(text)
            if create:
                _migrate(table)
            return SampleStore(table)
        if create:
            return SampleStore(_new_table(text))
        way_out = "run a plan first: python -m coordinator run PLAN.toml"
        raise InputError("samples", text, "no sample store there", way_out)

    @property
    def version(self) -> int:
        """The number of the last commit; 0 for a new table."""
        return self._table.version()

    def append(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Commit the rows whose cells are not in the store yet, in one commit; the first row wins.

        Args:
            tables: samples with the columns of SCHEMA.

        Returns:
            The rows that were committed. Nothing new is no commit.
        """
        rows = pa.concat_tables([SCHEMA.empty_table(), *tables])
        rows = rows.filter(self._is_new(rows["cell_id"].to_pylist()))
        if len(rows) == 0:
            return rows
        write_deltalake(self._table, rows, mode="append")
        self.committed.update(rows["cell_id"].to_pylist())
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            self._compact()
        return rows

    def read(self, *, version: int | None = None) -> pa.Table:
        """Every sample, with the columns of SCHEMA, sorted by cell.

        Args:
            version: of the table, as `version` gave it; None: the newest.
        """
        table = self._table
        if version is not None:
            table = DeltaTable(table.table_uri, version=version)
        rows = _query(table, "select * from samples")
        return conform(rows, table.table_uri).sort_by("cell_id")

    def counts(self) -> dict[str, int]:
        """Status -> number of rows."""
        statuses = _query(self._table, "select status from samples")["status"]
        counted = pc.value_counts(statuses.combine_chunks())
        return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}

    def columns(self, *names: str) -> pa.Table:
        """Some columns of every sample, in no order."""
        return _query(self._table, f"select {', '.join(names)} from samples")

    @property
    def committed_ms(self) -> int | None:
        """When the last commit was made, in Unix time; None if the log does not say. [ms]"""
        (newest,) = self._table.history(1)
        moment: int | None = newest.get("timestamp")
        return moment

    def _is_new(self, cell_ids: Sequence[str]) -> pa.Array:
        """For each row: whether its cell is neither in the table nor in a row before it."""
        earlier: set[str] = set()
        flags = []
        for cell_id in cell_ids:
            flags.append(cell_id not in self.committed and cell_id not in earlier)
            earlier.add(cell_id)
        return pa.array(flags, pa.bool_())

    def _compact(self) -> None:
        self._table.optimize.compact()
        self._table.vacuum(dry_run=False)
        self._table.create_checkpoint()
        self._table.cleanup_metadata()


def _new_table(uri: str) -> DeltaTable:
    configuration = {
        "delta.dataSkippingNumIndexedCols": str(INDEXED_COLUMNS),
        "delta.deletedFileRetentionDuration": RETENTION,
        "delta.logRetentionDuration": RETENTION,
    }
    return DeltaTable.create(uri, schema=SCHEMA, configuration=configuration)


def _migrate(table: DeltaTable) -> None:
    """Rewrite a table of an older schema: the same rows in the present columns, in one commit.

    Versions before that commit can still be read: `read` brings them to the present schema.
    """
    columns = {field.name for field in table.schema().fields}
    if columns == set(SCHEMA.names):
        return
    rows = conform(_query(table, "select * from samples"), table.table_uri)
    write_deltalake(table, rows, mode="overwrite", schema_mode="overwrite")


def _query(table: DeltaTable, sql: str) -> pa.Table:
    # to_pyarrow_table() aborts the process at exit in half of the runs (deltalake 1.6 with
    # pyarrow 25); a query does not.
    batches = QueryBuilder().register("samples", table).execute(sql).read_all()
    rows = pa.table(batches)

    # a query gives texts as views, which many of Arrow's functions do not take
    schema = rows.schema
    for i, field in enumerate(schema):
        if pa.types.is_string_view(field.type):
            schema = schema.set(i, field.with_type(pa.string()))
    return rows.cast(schema)
