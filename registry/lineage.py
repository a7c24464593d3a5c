"""Versions of one thing, one of which is the champion: resolve, promote, roll back, verify.

A version never changes; the aliases `champion` and `challenger` do, each in one write. The order of
the writes makes every crash harmless: a version appears when its files are whole, an alias moves
last, and one entry too many in the list of earlier champions is dropped when it is read. A version
that gemmcast did not publish is not listed. Does not know what is in a version.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from gemmcast.errors import InputError
from registry.backend import RegistryBackend
from registry.records import RegistrySnapshot, VersionRecord

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
SHA256_TAG: Final = "gemmcast.sha256"
ROWS_TAG: Final = "gemmcast.rows"
HISTORY_TAG = "gemmcast.champions"
"""JSON list of the champions before this one, oldest first."""
PROMOTED_TAG = "gemmcast.promoted_at"
HISTORY_KEPT = 100
_SHOWN_NUMBERS = 10
VersionStatus = Literal["champion", "challenger", "retired", "candidate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One published version."""

    number: str
    """"1", "2", ...: in the order of publishing."""
    sha256: str
    """SHA-256 of its content."""
    created_at: str
    """UTC, ISO 8601."""
    aliases: tuple[str, ...]
    """`champion`: the version that agents run; `challenger`: the one that may become it."""
    status: VersionStatus
    """The alias, or `retired` if it was champion once, or `candidate` if it never was."""
    rows: int
    """Rows that a model was trained and tested on; entries of a table."""


Versions = list[Version]
"""Inside Lineage, `list` is the method."""
_Numbers = list[str]


class Lineage(ABC):
    """The versions of one thing in a registry.

    Before the first version exists, `champion` and `champion_number` return None and any other call
    raises InputError. Many processes may use one registry at once.
    """

    def __init__(self, backend: RegistryBackend) -> None:
        self._backend = backend

    @abstractmethod
    def _check_whole(self, record: VersionRecord) -> None:
        """Read the files of a version. Raises InputError when one is damaged or foreign."""

    def champion(self) -> Version | None:
        """The champion, or None where nothing was published or promoted yet."""
        if not self._backend.exists():
            return None
        snapshot = self._backend.snapshot()
        if CHAMPION not in snapshot.aliases:
            return None
        return _version(_find(CHAMPION, snapshot), snapshot)

    def champion_number(self) -> str | None:
        """The champion's number, for a caller that asks every few seconds."""
        return self._backend.alias(CHAMPION)

    def resolve(self, ref: str) -> Version:
        """The version of `champion`, `challenger` or a number. Raises InputError without one."""
        return self._found(ref)[1]

    def verify(self, ref: str) -> Version:
        """Read a version whole. Raises InputError when it is damaged or foreign."""
        record, version = self._found(ref)
        self._check_whole(record)
        return version

    def promote(self, ref: str) -> Version:
        """Verify a version and make it the champion. `rollback` returns to the one before."""
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            record = _find(ref, snapshot)
            self._check_whole(record)
            champion = snapshot.aliases.get(CHAMPION)
            if champion != record.number:
                self._make_champion(record, snapshot, champion)
            self._drop_challenger(record, snapshot)
            return self.resolve(record.number)

    def rollback(self) -> Version:
        """Verify the champion before this one and make it the champion again.

        Repeated, it goes further back.
        """
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            earlier = _earlier(snapshot)
            if not earlier:
                champion = snapshot.aliases.get(CHAMPION)
                state = f"champion is {champion}" if champion else "there is no champion"
                way_out = f"promote a version ({_names(snapshot)})"
                raise InputError("rollback", state, "no champion came before", way_out)
            record = _find(earlier[-1], snapshot)
            self._check_whole(record)
            self._backend.set_alias(CHAMPION, record.number)
            self._remember(earlier[:-1])
            log.info("champion: version %s again", record.number)
            self._drop_challenger(record, snapshot)
            return self.resolve(record.number)

    def challenge(self, ref: str) -> Version:
        """Verify a version and make it the challenger."""
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            record = _find(ref, snapshot)
            if snapshot.aliases.get(CHAMPION) == record.number:
                way_out = f"name another version ({_names(snapshot)})"
                raise InputError("challenger", ref, "is the champion already", way_out)
            self._check_whole(record)
            self._backend.set_alias(CHALLENGER, record.number)
            return self.resolve(record.number)

    def list(self) -> Versions:
        """Every version, newest first. Their files are not read."""
        snapshot = self._backend.snapshot()
        return [_version(record, snapshot) for record in _published(snapshot)]

    def _added(self, record: VersionRecord) -> Version:
        """A version that was just published, which no alias can have."""
        digest = record.tags[SHA256_TAG][:12]
        log.info("published version %s (SHA-256 %s) to %s", record.number, digest, self._shown)
        return _version(record, RegistrySnapshot(records=(), aliases={}, tags={}))

    @property
    def _shown(self) -> str:
        return self._backend.shown

    def _found(self, ref: str) -> tuple[VersionRecord, Version]:
        """A version as the backend has it, and as it is shown."""
        snapshot = self._backend.snapshot()
        record = _find(ref, snapshot)
        return record, _version(record, snapshot)

    def _make_champion(
        self, record: VersionRecord, snapshot: RegistrySnapshot, champion: str | None
    ) -> None:
        """The alias moves last."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._backend.set_tag(PROMOTED_TAG, now, number=record.number)
        earlier = _earlier(snapshot)
        if champion:
            earlier.append(champion)
        self._remember(earlier)
        self._backend.set_alias(CHAMPION, record.number)
        log.info("champion: version %s, before it %s", record.number, champion or "none")

    def _remember(self, champions: _Numbers) -> None:
        self._backend.set_tag(HISTORY_TAG, json.dumps(champions[-HISTORY_KEPT:]))

    def _drop_challenger(self, record: VersionRecord, snapshot: RegistrySnapshot) -> None:
        if snapshot.aliases.get(CHALLENGER) == record.number:
            self._backend.set_alias(CHALLENGER, None)


def _published(snapshot: RegistrySnapshot) -> list[VersionRecord]:
    """The versions that gemmcast published to the end, newest first: those with its hash."""
    records = [record for record in snapshot.records if SHA256_TAG in record.tags]
    return sorted(records, key=_number, reverse=True)


def _number(record: VersionRecord) -> int:
    return int(record.number)


def _find(ref: str, snapshot: RegistrySnapshot) -> VersionRecord:
    number = snapshot.aliases.get(ref, ref)
    for record in _published(snapshot):
        if record.number == number:
            return record
    if ref not in (CHAMPION, CHALLENGER):
        rule = "no such version"
    elif ref in snapshot.aliases:
        rule = f"points at version {number}, which gemmcast did not publish"
    else:
        rule = "no version has this alias"
    raise InputError("version", ref, rule, f"name one of: {_names(snapshot)}")


def _names(snapshot: RegistrySnapshot) -> str:
    """What a user can name, for messages."""
    numbers = [record.number for record in _published(snapshot)]
    aliases = [name for name in (CHAMPION, CHALLENGER) if snapshot.aliases.get(name) in numbers]
    shown = aliases + numbers[:_SHOWN_NUMBERS]
    if len(numbers) > _SHOWN_NUMBERS:
        shown.append("...")
    return ", ".join(shown) or "none was published yet"


def _earlier(snapshot: RegistrySnapshot) -> list[str]:
    """The champions before this one, oldest first, without deleted versions.

    A crash in `promote` or `rollback` leaves the champion itself at the end; it is dropped.
    """
    numbers = {record.number for record in _published(snapshot)}
    history = json.loads(snapshot.tags.get(HISTORY_TAG, "[]"))
    champions = [number for number in history if number in numbers]
    while champions and champions[-1] == snapshot.aliases.get(CHAMPION):
        champions.pop()
    return champions


def _version(record: VersionRecord, snapshot: RegistrySnapshot) -> Version:
    aliases = [name for name, number in snapshot.aliases.items() if number == record.number]
    created = datetime.fromtimestamp(record.created_ms / 1000, UTC)
    return Version(
        number=record.number,
        sha256=record.tags[SHA256_TAG],
        created_at=created.isoformat(timespec="milliseconds"),
        aliases=tuple(sorted(aliases)),
        status=_status(record, aliases),
        rows=int(record.tags.get(ROWS_TAG, 0)),
    )


def _status(record: VersionRecord, aliases: list[str]) -> VersionStatus:
    if CHAMPION in aliases:
        return "champion"
    if CHALLENGER in aliases:
        return "challenger"
    return "retired" if PROMOTED_TAG in record.tags else "candidate"
