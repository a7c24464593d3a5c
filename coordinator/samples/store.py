"""The sample store: a Delta Lake table in which every cell has one answer of a board.

One writer, under the lock of the store, drops every row whose cell is already answered in the table
or earlier in the same commit; cells that are to be measured on several boards have an answer of
each. One commit holds all rows of a call, so a crash leaves all or none. A row is thus sent again
without harm: by an agent, after a restart, or from the same file. A row `contended` is no answer
(answers.py): it stays until there is one.
A commit counts when it survives a power cut; a damaged store opens at its last whole version.
Tables of an older schema are read as they are. The first writer rewrites such a table in one
commit; programs older than its schema must not write to it afterwards.
Does not know Ray, plans or models. `python -m coordinator status` reads while a writer writes.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, KeysView, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

import pyarrow as pa

from coordinator.holder import Holder
from coordinator.samples.answers import Answer, Answers, answers_in, is_news, without_replaced
from coordinator.samples.data_files import encoded, is_data_file, read_answers, read_files
from coordinator.samples.describing import measured_devices
from coordinator.samples.lock import store_lock
from coordinator.samples.log import DamagedLogError, DataFile, DeltaLog, OvertakenError
from coordinator.samples.place import FolderPlace, StorePlace, store_place
from coordinator.samples.recovery import mend_log, put_aside
from coordinator.samples.snapshot import Snapshot, settled
from gemmcast.arrow import SCHEMA
from gemmcast.device import Device
from gemmcast.errors import InputError, UnavailableError, WorkspaceError

log = logging.getLogger(__name__)

COMPACT_FILES: Final = 50
"""Small data files that become one. Without that, a commit of 100 rows takes 30 ms at first and
over 100 ms after 400 commits."""
FULL_ROWS: Final = 50_000
"""A data file of so many rows is not small, and stays as it is. Small ones become one, too, as soon
as they have that many together: a fleet of a thousand GPUs fills three files with them."""
RETENTION_S: Final = 24 * 3600
"""How long replaced files and old log entries are kept, and with them earlier versions of the
table. A sweep of one day would otherwise leave a hundred thousand files."""


class MissingStoreError(UnavailableError):
    """A store that was opened is not there any more."""


class SampleStore:
    """The samples at a path or URI; use `writing` or `open`."""

    def __init__(self, place: StorePlace, opened: DeltaLog) -> None:
        self._place = place
        self._log = opened
        self._id = uuid.uuid4().hex
        self._attempts: dict[str, pa.Table] = {}
        self._tidy_at = 0
        """The version from which on log and folder may be tidied."""
        self.answers, self._damaged = read_answers(place, _names(opened))
        """What the table says of each cell."""
        self.each_board: set[str] = set()
        """Ids of the cells that may have an answer of each board. Whoever writes names them."""

    @staticmethod
    @contextmanager
    def writing(uri: Path | str, workspace: Path) -> Iterator[SampleStore]:
        """The store at `uri`, for its one writer.

        Args:
            workspace: the workspace of this process; the refusal of a second writer names it.

        Raises:
            WorkspaceError: another process writes there.
        """
        place = store_place(uri)
        with store_lock(place, Holder.here(workspace)):
            yield SampleStore.open(uri, create=True)

    @staticmethod
    def open(uri: Path | str, *, create: bool) -> SampleStore:
        """The store at `uri`.

        Args:
            create: for the one writer, who holds the lock: make the table if there is none, and
                bring one of an older schema to the present schema. False: for readers; changes
                nothing but a damaged store, which is mended.

        Raises:
            InputError: there is no table and `create` is false, or the table has unknown columns or
                rows of a newer schema.
            UnavailableError: the store does not answer.
        """
        place = store_place(uri)
        try:
            store = SampleStore._whole(place)
        except DamagedLogError:
            if not isinstance(place, FolderPlace):
                raise
            store = _mended(place, is_writer=create)
        if store is None and not create:
            way_out = "run a plan first: python -m coordinator run PLAN.toml"
            raise InputError("samples", place.shown, "no sample store there", way_out)
        if store is None:
            return SampleStore(place, _new_table(place))
        if store._damaged:
            store = _without_damaged_files(store, is_writer=create)
        if create:
            store._migrate()
        return store

    @staticmethod
    def _whole(place: StorePlace) -> SampleStore | None:
        """The store with the newest version of its log; None where there is no table."""
        opened = DeltaLog.load(place) if place.exists() else None
        if opened is None:
            return None
        opened.check()
        return SampleStore(place, opened)

    @staticmethod
    def exists(uri: Path | str) -> bool:
        """Whether there is a store at `uri`."""
        place = store_place(uri)
        try:
            return place.exists() and DeltaLog.load(place) is not None
        except DamagedLogError:
            return True

    @property
    def version(self) -> int:
        """The number of the last commit; 0 for a new table."""
        return self._log.version

    @property
    def committed(self) -> KeysView[str]:
        """The ids of all cells that have an answer in the table. It grows."""
        return self.answers.committed

    def append(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Commit the rows whose cells are not answered yet, in one commit; the first row wins.

        Args:
            tables: samples with the columns of SCHEMA.

        Returns:
            The rows that were committed. Nothing new is no commit.

        Raises:
            UnavailableError: the store does not answer; the same rows may be sent again.
            OvertakenError: another process has written there.
        """
        landed = self._settle()
        # In one piece: each of a thousand pieces would be filtered and written by itself.
        rows = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
        rows = rows.filter(self._is_new(rows))
        if len(rows) > 0:
            self._commit(rows)
        small = [file for file in self._log.files() if file.rows < FULL_ROWS]
        if len(small) >= COMPACT_FILES or _is_enough(small):
            self._try_to_compact(small)
        return pa.concat_tables([landed, rows])

    def read(self, *, version: int | None = None) -> pa.Table:
        """Every sample, with the columns of SCHEMA, sorted by cell; one description a device.

        Rows of a data file that has changed on its disk are left out, and counted in a warning.

        Args:
            version: of the table, as `version` gave it; None: the newest.
        """
        return settled(self._rows()) if version is None else self._read_earlier(version)

    def snapshot(self) -> Snapshot:
        """The newest version, for another thread to read."""
        return Snapshot(place=self._place, version=self.version, names=tuple(_names(self._log)))

    def measured_devices(self) -> list[Device]:
        """What the samples say of the devices that were measured, each once."""
        return measured_devices(self.read())

    def _rows(self) -> pa.Table:
        """As they were committed, without replaced records and without those of damaged files."""
        rows, damaged = read_files(self._place, _names(self._log))
        if damaged:
            # Where all is gone for a while, nothing is damaged.
            self._newest_log()
            self._note_damage(rows, damaged)
        return without_replaced(rows)

    def counts(self) -> dict[str, int]:
        """Status -> number of rows."""
        return {status: rows for status, rows in self.answers.statuses.items() if rows}

    def _read_earlier(self, version: int) -> pa.Table:
        with suppress(DamagedLogError):
            earlier = DeltaLog.load(self._place, version)
            rows, damaged = read_files(self._place, _names(earlier) if earlier else [])
            if earlier and not damaged:
                return settled(rows)
        hours = RETENTION_S // 3600
        rule = f"its files are gone: they are kept for {hours} h"
        raise InputError("version", version, rule, f"name one up to {self.version}")

    def columns(self, *names: str) -> pa.Table:
        """Some columns of every sample, in no order."""
        return self._rows().select(list(names))

    @property
    def committed_ms(self) -> int | None:
        """When the last commit was made, in Unix time; None if the log does not say. [ms]"""
        return self._log.committed_ms

    def _is_new(self, rows: pa.Table) -> pa.Array:
        """For each row: whether neither the table nor a row before it says the same."""
        earlier: dict[str, tuple[Answer, ...]] = {}
        flags: list[bool] = []
        for cell_id, answer in answers_in(rows):
            known = self.answers.of(cell_id) + earlier.get(cell_id, ())
            is_new = not known or is_news(answer, known, each_board=cell_id in self.each_board)
            flags.append(is_new)
            if is_new:
                earlier[cell_id] = (*earlier.get(cell_id, ()), answer)
        return pa.array(flags, pa.bool_())

    def _commit(self, rows: pa.Table) -> None:
        file = self._written(rows)
        self._attempts[file.name] = rows
        try:
            self._log.commit(file, [], self._id)
        except OvertakenError as error:
            self._go_to_own_newest(error)
            raise UnavailableError(f"{error}; it was this one, with a late answer") from None
        self._attempts.clear()
        self.answers.add(rows)

    def _written(self, rows: pa.Table) -> DataFile:
        """A data file of these rows, not committed yet."""
        name, data = encoded(rows)
        self._place.write(name, data)
        return DataFile(name=name, size=len(data), rows=len(rows))

    def _settle(self) -> pa.Table:
        """The rows of failed commits that came through after all: the answer was lost."""
        landed = SCHEMA.empty_table()
        if not self._attempts:
            return landed
        self._go_to_own_newest()
        names = set(_names(self._log))
        for name, rows in self._attempts.items():
            if name in names:
                landed = rows
                self.answers.add(rows)
        self._attempts.clear()
        return landed

    def _go_to_own_newest(self, overtaken: OvertakenError | None = None) -> None:
        """Take over the newest version, if this writer committed it. Raises OvertakenError."""
        newest = self._newest_log()
        if newest.version != self.version and newest.writer() != self._id:
            raise overtaken or OvertakenError(
                f"another process has written to the sample store {self._place.shown}: "
                "start this one again when that one has ended"
            )
        self._log = newest

    def _newest_log(self) -> DeltaLog:
        newest = DeltaLog.load(self._place)
        if newest is None:
            rule = "is not there any more: it was deleted, or its disk is not mounted"
            raise MissingStoreError(f"sample store {self._place.shown} {rule}")
        return newest

    def _migrate(self) -> None:
        """Rewrite a table of an older schema: the same rows in the present columns, in one commit.

        Versions before that commit can still be read: `read` brings them to the present schema.
        """
        if self._log.columns == set(SCHEMA.names):
            return
        self._log.commit(self._written(self._rows()), [], self._id, whole=True)

    def mend(self, place: FolderPlace, lost: str) -> None:
        """Take damaged files out, and all rows in that lie in other files; says so in one line.

        Args:
            lost: of the log.
        """
        damaged = self._damaged
        parts = [lost] if lost else []
        if damaged:
            parts.append(self._shown_damage())
        self._migrate()
        beside = self._rows_beside_the_table(place)
        # They were in the table before, those of second boards too.
        self.each_board = set(beside["cell_id"].to_pylist())
        rescued = len(self.append([beside]))
        self.each_board = set()
        if set(damaged) & set(_names(self._log)):
            self._compact(self._log.files())
        for name in damaged:
            put_aside(place, place.path / name)
        self._damaged = []
        if parts:
            losses = " and ".join(parts)
            left = f"{rescued} rows rescued, {sum(self.counts().values())} rows in all"
            log.warning("sample store %s was damaged: lost %s; %s", place.shown, losses, left)

    def _rows_beside_the_table(self, place: FolderPlace) -> pa.Table:
        """Rows of whole data files that are not in the table, or no longer."""
        names = set(_names(self._log))
        others = [name for name in place.data_files() if name not in names and is_data_file(name)]
        return read_files(place, others)[0]

    def _try_to_compact(self, files: Sequence[DataFile]) -> None:
        """What was committed stays committed if this fails; the next commit tries again."""
        try:
            self._compact(files)
        except UnavailableError as error:
            log.warning("not compacted: %s", error)

    def _compact(self, files: Sequence[DataFile]) -> None:
        """One data file in place of several; the old ones are kept for RETENTION_S."""
        rows, damaged = read_files(self._place, sorted(file.name for file in files))
        if damaged:
            # It says so, and takes back what they answered.
            self._rows()
        new = self._written(without_replaced(rows))
        replaced = [file for file in files if file.name != new.name]
        added = None if len(replaced) < len(files) else new
        try:
            self._log.commit(added, replaced, self._id)
        except OvertakenError as error:
            self._go_to_own_newest(error)
            return
        self._place.retire([file.name for file in replaced])
        if self.version >= self._tidy_at:
            # Seldom: both look at all files of the last day.
            self._tidy_at = self.version + COMPACT_FILES - 1
            self._log.checkpoint()
            self._log.sweep(RETENTION_S)

    def _note_damage(self, rows: pa.Table, damaged: list[str]) -> None:
        """Some files have changed since the store was opened: their cells are to be measured."""
        is_news = damaged != self._damaged
        self._damaged = damaged
        self.answers = Answers(rows)
        if is_news:
            self._report_damage()

    def _report_damage(self) -> None:
        log.warning("sample store %s: left out %s", self._place.shown, self._shown_damage())

    def _shown_damage(self) -> str:
        files = self._log.files()
        rows = sum(file.rows for file in files if file.name in self._damaged)
        named = ", ".join(self._damaged)
        return f"{len(self._damaged)} of {len(files)} data files ({rows} rows): {named}"


def _is_enough(small: Sequence[DataFile]) -> bool:
    """Whether these data files together fill one."""
    return len(small) > 1 and sum(file.rows for file in small) >= FULL_ROWS


def _names(opened: DeltaLog) -> list[str]:
    return sorted(file.name for file in opened.files())


def _new_table(place: StorePlace) -> DeltaLog:
    place.make()
    return DeltaLog.create(place, RETENTION_S, uuid.uuid4().hex)


def _without_damaged_files(store: SampleStore, *, is_writer: bool) -> SampleStore:
    """The store, mended where that is possible now."""
    place = store._place
    if isinstance(place, FolderPlace):
        try:
            return _mended(place, is_writer=is_writer)
        except WorkspaceError as error:
            log.info("not mended: %s", error)
    store._report_damage()
    return store


def _mended(place: FolderPlace, *, is_writer: bool) -> SampleStore:
    """Mend a store; a reader takes the lock for that, which a writer has."""
    lock = nullcontext() if is_writer else store_lock(place, Holder.here())
    with lock:
        opened, lost = mend_log(place)
        store = SampleStore(place, opened or _new_table(place))
        store.mend(place, lost)
    return store
