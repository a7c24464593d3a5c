"""The log of a sample store: which data files a version of the Delta table consists of.

Every commit names its version, a digest of all files of the version, and its writer, in Delta's
commit metadata. A data file is named by the SHA-256 of its bytes. So one digest covers all rows: a
log that was cut, or in which a bit has flipped, no longer gives it (docs/decisions/0016).
Two writers never commit the same version: each commit continues a Delta transaction id, and Delta
Lake refuses it when another commit came between, in folders and in object stores alike.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa
from deltalake import DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import (
    AddAction,
    CommitProperties,
    PostCommitHookProperties,
    RemoveAction,
)

from coordinator.samples.place import LOG_FOLDER, FolderPlace, StorePlace, translated
from gemmcast.arrow import SCHEMA
from gemmcast.errors import InputError, UnavailableError, WorkspaceError

COMMIT_KEY: Final = "gemmcast"
"""Of our part of Delta's commit metadata, and of our transaction id."""
INDEXED_COLUMNS: Final = 4
"""Columns of which other programs should keep statistics."""
_BY_HAND: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""Checkpoints are made by `checkpoint`, which synchronises them."""


class DamagedLogError(WorkspaceError):
    """A version that a power cut or a flipped bit has damaged."""


class OvertakenError(WorkspaceError):
    """Another process committed to the same store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One Parquet file of the table."""

    name: str
    """Relative to the store."""
    size: int
    """Bytes."""
    rows: int
    """0 where the log does not tell."""


class DeltaLog:
    """One version of the table, and the way to the next."""

    def __init__(self, place: StorePlace, table: DeltaTable) -> None:
        self.place = place
        self._table = table

    @staticmethod
    def create(place: StorePlace, retention_s: int, writer: str) -> DeltaLog:
        """A new table without rows. Replaced files are kept for `retention_s`."""
        retention = f"interval {retention_s} seconds"
        configuration = {
            "delta.dataSkippingNumIndexedCols": str(INDEXED_COLUMNS),
            "delta.deletedFileRetentionDuration": retention,
            "delta.logRetentionDuration": retention,
        }
        columns = Schema.from_arrow(SCHEMA)
        properties = _properties(0, [], columns, writer)
        with translated(place.shown):
            table = DeltaTable.create(
                place.uri,
                schema=columns,
                configuration=configuration,
                storage_options=place.options,
                commit_properties=properties,
            )
        place.sync_log()
        return DeltaLog(place, table)

    @staticmethod
    def load(place: StorePlace, version: int | None = None) -> DeltaLog | None:
        """A version, or the newest; None where there is no table.

        Raises:
            DamagedLogError: Delta Lake can't read it.
            UnavailableError: the store does not answer.
        """
        try:
            with translated(place.shown):
                return DeltaLog(place, _opened(place, version))
        except (TableNotFoundError, FileNotFoundError):
            return None

    @property
    def version(self) -> int:
        """The number of the last commit; 0 for a new table."""
        return self._table.version()

    @property
    def columns(self) -> set[str]:
        """Names of the table's columns."""
        return {field.name for field in self._table.schema().fields}

    def files(self) -> list[DataFile]:
        """The data files, in no order."""
        actions = pa.table(self._table.get_add_actions(flatten=True))
        files = []
        for action in actions.to_pylist():
            size, rows = action["size_bytes"], action.get("num_records") or 0
            name = _own(action["path"], self.place)
            files.append(DataFile(name=name, size=size, rows=rows))
        return files

    def check(self) -> None:
        """Compare the version with the digest that its commit names.

        Raises:
            DamagedLogError: they differ. A version that another program committed has none.
        """
        record = self._record()
        if record is None:
            return
        names = [file.name for file in self.files()]
        expected = _record(self.version, names, self._table.schema(), record.get("writer", ""))
        if record != expected:
            raise _damaged(self.place, f"version {self.version} is not what was committed")

    def writer(self) -> str | None:
        """Who committed this version."""
        return (self._record() or {}).get("writer")

    def next_versions(self) -> None:
        """Go to the newest version."""
        with translated(self.place.shown):
            self._table.update_incremental()

    def commit(
        self,
        new: DataFile | None,
        replaced: Sequence[DataFile],
        writer: str,
        *,
        whole: bool = False,
    ) -> None:
        """Add a file, take others away, in one commit which then survives a power cut.

        Args:
            whole: in place of all other files, and with the present columns.

        Raises:
            OvertakenError: another process has committed since this version was read.
        """
        kept = {file.name for file in self.files()} - {file.name for file in replaced}
        if whole:
            kept = set()
        names = [*kept, *([new.name] if new else [])]
        columns = Schema.from_arrow(SCHEMA)
        actions: list[AddAction | RemoveAction] = [_remove(file) for file in replaced]
        if new is not None:
            actions.append(_add(new))
        try:
            with translated(self.place.shown):
                self._table.create_write_transaction(
                    actions,
                    "overwrite" if whole else "append",
                    columns,
                    [],
                    commit_properties=_properties(self.version + 1, names, columns, writer),
                    post_commithook_properties=_BY_HAND,
                )
        except CommitFailedError as error:
            raise self._overtaken(error) from None
        self.place.sync_log(_entry(self.version + 1))
        self.next_versions()

    def checkpoint(self) -> None:
        """Write the log up to here as one file; only then remove what it replaces."""
        with translated(self.place.shown):
            self._table.create_checkpoint()
            self.place.sync_log()
            if isinstance(self.place, FolderPlace):
                self.place.note_checkpoint()
            self._table.cleanup_metadata()

    def sweep(self, older_than_s: float) -> None:
        """Delete data files that left the table longer ago than that."""
        with translated(self.place.shown):
            if isinstance(self.place, FolderPlace):
                self.place.sweep({file.name for file in self.files()}, older_than_s)
                return
            self._table.vacuum(dry_run=False)
        self.next_versions()

    def _overtaken(self, error: CommitFailedError) -> WorkspaceError:
        newest = DeltaLog.load(self.place)
        if newest is None or newest.version == self.version:
            return UnavailableError(f"sample store {self.place.shown}: {error}")
        rule = f"another process has written to the sample store {self.place.shown}"
        return OvertakenError(f"{rule}: start this one again when that one has ended")

    @property
    def committed_ms(self) -> int | None:
        """When this version was committed, in Unix time; None if the log does not say. [ms]"""
        moment: int | None = self._commit_info().get("timestamp")
        return moment

    def _record(self) -> dict[str, Any] | None:
        """Our part of the version's commit metadata; None if another program committed it."""
        record: dict[str, Any] | None = self._commit_info().get(COMMIT_KEY)
        return record

    def _commit_info(self) -> dict[str, Any]:
        """Delta's commit metadata of the version."""
        name = f"{LOG_FOLDER}/{_entry(self.version)}"
        try:
            lines = self.place.read(name).splitlines()
            actions = [json.loads(line) for line in lines]
        except FileNotFoundError:
            raise _damaged(self.place, f"{name} is missing") from None
        except ValueError:
            raise _damaged(self.place, f"{name} is no JSON") from None
        if not actions:
            raise _damaged(self.place, f"{name} is empty")
        for action in actions:
            if "commitInfo" in action:
                information: dict[str, Any] = action["commitInfo"]
                return information
        return {}


def _own(name: str, place: StorePlace) -> str:
    """A data file of this store. Raises InputError for one that a log names elsewhere."""
    if PurePosixPath(name).name == name and name not in ("", ".", ".."):
        return name
    rule = f"the log of sample store {place.shown} names a file outside of it"
    raise InputError("path", name, rule, "name another --store: nothing was read or moved")


def _entry(version: int) -> str:
    """The file of the log that a version is."""
    return f"{version:020}.json"


def _opened(place: StorePlace, version: int | None) -> DeltaTable:
    if isinstance(place, FolderPlace) and not place.is_checkpoint_whole():
        raise _damaged(place, "its newest checkpoint has changed")
    try:
        return DeltaTable(place.uri, version=version, storage_options=place.options)
    except TableNotFoundError:
        raise
    except DeltaError as error:
        if not isinstance(place, FolderPlace):
            raise
        raise _damaged(place, str(error)) from None


def _damaged(place: StorePlace, rule: str) -> DamagedLogError:
    way_out = "restore an earlier state of it, or name another --store"
    return DamagedLogError(f"sample store {place.shown} is damaged ({rule}): {way_out}")


def _record(version: int, names: Sequence[str], columns: Schema, writer: str) -> dict[str, Any]:
    content = "\n".join([columns.to_json(), *sorted(names)])
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"version": version, "digest": digest, "writer": writer}


def _properties(
    version: int, names: Sequence[str], columns: Schema, writer: str
) -> CommitProperties:
    record = _record(version, names, columns, writer)
    transaction = Transaction(COMMIT_KEY, version, _now_ms())
    return CommitProperties(
        custom_metadata={COMMIT_KEY: record},
        # One try: a commit that another one came before must not be repeated on top of it.
        max_commit_retries=1,
        app_transactions=[transaction],
    )


def _add(file: DataFile) -> AddAction:
    statistics = json.dumps({"numRecords": file.rows})
    return AddAction(file.name, file.size, {}, _now_ms(), True, statistics)


def _remove(file: DataFile) -> RemoveAction:
    return RemoveAction(file.name, False, _now_ms(), file.size, {})


def _now_ms() -> int:
    return int(1000 * time.time())
