"""Versions of one thing, one of which is the champion: resolve, promote, roll back, verify.

A version never changes; the aliases `champion` and `challenger` do, each in one write. The order of
the writes makes every crash harmless: a version appears when its files are whole, an alias moves
last, and one entry too many in the list of earlier champions is dropped when it is read. A version
that gemmcast did not publish is not listed. Where a key is set, versions are signed, and none is
promoted whose signature does not hold (registry/signatures.py). Does not know what is in a version.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from gemmcast.errors import InputError, ModelFileError
from gemmcast.modeldir import sha256
from registry.backend import RegistryBackend
from registry.records import RegistrySnapshot, RegistryState, VersionRecord
from registry.signatures import SIGNATURE_TAG, SIGNED_TAG, Files, Signatures, role_of
from signing.keys import SIGNING_KEY
from signing.signature import Signed
from signing.statement import Role

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
SHA256_TAG: Final = "gemmcast.sha256"
ROWS_TAG: Final = "gemmcast.rows"
HISTORY_TAG = "gemmcast.champions"
"""JSON list of the champions before this one, oldest first."""
PROMOTED_TAG = "gemmcast.promoted_at"
HISTORY_KEPT = 100
NEVER: Final = datetime.min.replace(tzinfo=UTC)
_PROMOTE: Final = "promote it, or roll back to it, with the signing key"
_SHOWN_NUMBERS = 10
_NOT_SIGNED_ANEW: Final = (
    "version %s is not signed anew, so nodes with a public key may refuse it: "
    "set %s, then `python -m registry sign champion`"
)
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
    signed: Role | None = None
    """What its signature says that it is; `verify` checks it. None: no signature."""


Versions = list[Version]
"""Inside Lineage, `list` is the method."""
_Numbers = list[str]


class Lineage(ABC):
    """The versions of one thing in a registry.

    Before the first version exists, `champion` and `champion_number` return None and any other call
    raises InputError. Many processes may use one registry at once.
    """

    def __init__(self, backend: RegistryBackend, signatures: Signatures | None = None) -> None:
        self._backend = backend
        self._signatures = signatures or Signatures()

    @abstractmethod
    def _whole(self, record: VersionRecord) -> Files:
        """The files of a version. Raises InputError when one is damaged or foreign."""

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
        state = self._backend.state()
        return state.aliases.get(CHAMPION) if state else None

    def champion_stamp(self) -> str | None:
        """Changes with the champion, and when it is signed anew; as cheap as its number."""
        return champion_stamp(self._backend.state())

    def resolve(self, ref: str) -> Version:
        """The version of `champion`, `challenger` or a number. Raises InputError without one."""
        return self._found(ref)[1]

    def verify(self, ref: str) -> Version:
        """Read a version whole. Raises InputError when it is damaged, foreign or, with a key, not
        signed."""
        record, version = self._found(ref)
        self._checked(record)
        return version

    def signed(self, ref: str) -> Signed | None:
        """What is signed of a version, and with which key; None where no key is set.

        Raises:
            ModelFileError: a key is set, and the signature does not hold.
        """
        record, _ = self._found(ref)
        return self._signature_of(record, self._whole(record))

    def sign(self, ref: str) -> Version:
        """Sign a version as what it is, whatever its signature was: the caller trusts it.

        Raises:
            InputError: there is no signing key, or the version is damaged.
        """
        if self._signatures.signer is None:
            way_out = "make a pair: python -m registry keys new DIR"
            raise InputError(SIGNING_KEY, None, "is not set", way_out)
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            record = _find(ref, snapshot)
            is_champion = snapshot.aliases.get(CHAMPION) == record.number
            role: Role = "champion" if is_champion else "candidate"
            self._sign(record, self._whole(record), role, snapshot)
            return self.resolve(record.number)

    def promote(self, ref: str) -> Version:
        """Verify a version and make it the champion. `rollback` returns to the one before."""
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            record = _find(ref, snapshot)
            self._sign(record, self._checked(record), "champion", snapshot)
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
            self._sign(record, self._checked(record), "champion", snapshot)
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
            self._whole(record)
            self._backend.set_alias(CHALLENGER, record.number)
            return self.resolve(record.number)

    def list(self) -> Versions:
        """Every version, newest first. Their files are not read."""
        snapshot = self._backend.snapshot()
        return [_version(record, snapshot) for record in _published(snapshot)]

    def _add(self, files: Files, tags: Mapping[str, str]) -> Version:
        """Publish a version, which no alias can have yet."""
        # Before anything is written: a signing key that can't be used is refused.
        signer = self._signatures.signer
        record = self._backend.add(files, tags)
        if signer is not None:
            record = self._sign(record, files, "candidate")
        digest = record.tags[SHA256_TAG][:12]
        log.info("published version %s (SHA-256 %s) to %s", record.number, digest, self._shown)
        return _version(record, RegistrySnapshot(records=(), aliases={}, tags={}))

    def _source(self, record: VersionRecord) -> str:
        """A version, for messages."""
        return f"version {record.number} in {self._backend.shown}"

    def _checked(self, record: VersionRecord, role: Role | None = None) -> Files:
        """The files of a version that is whole and, with a key, signed: as `role`, if given."""
        files = self._whole(record)
        signed = self._signature_of(record, files)
        if signed and role not in (None, signed.statement.role):
            rule = f"says {signed.statement.role}, not {role}"
            raise ModelFileError("signature", self._source(record), rule, _PROMOTE)
        return files

    def _signature_of(self, record: VersionRecord, files: Files) -> Signed | None:
        source = self._source(record)
        signed = self._signatures.check(record, files, source)
        if signed is None:
            return None
        said = (signed.statement.lineage, signed.statement.version)
        if said != (self._backend.name, record.number):
            rule = f"was signed for version {said[1]} of {said[0]}"
            raise ModelFileError("signature", source, rule, "name that version")
        return signed

    def _sign(
        self,
        record: VersionRecord,
        files: Files,
        role: Role,
        snapshot: RegistrySnapshot | None = None,
    ) -> VersionRecord:
        """Sign a version, where there is a key; later than the champion of the snapshot."""
        if self._signatures.signer is None:
            if SIGNATURE_TAG in record.tags:
                log.warning(_NOT_SIGNED_ANEW, record.number, SIGNING_KEY)
            return record
        after = self._champion_signed_at(snapshot) if snapshot else NEVER
        lineage, number = self._backend.name, record.number
        text = self._signatures.sign(lineage, number, files, role, after)
        self._backend.set_tag(SIGNATURE_TAG, text, number=number)
        if role == "champion":
            self._backend.set_tag(SIGNED_TAG, sha256(text.encode())[:12])
        return replace(record, tags={**record.tags, SIGNATURE_TAG: text})

    def _champion_signed_at(self, snapshot: RegistrySnapshot) -> datetime:
        """When the champion was signed; NEVER where that is not known for sure."""
        number = snapshot.aliases.get(CHAMPION)
        for record in snapshot.records:
            if record.number == number:
                with suppress(ModelFileError):
                    signed = self._signatures.check(record, {}, "champion")
                    return signed.statement.moment if signed else NEVER
        return NEVER

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


def champion_stamp(state: RegistryState | None) -> str | None:
    """The champion's number, and a mark of its signature where it was signed."""
    number = state.aliases.get(CHAMPION) if state else None
    if state is None or number is None or SIGNED_TAG not in state.tags:
        return number
    return f"{number} {state.tags[SIGNED_TAG]}"


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
        signed=role_of(record),
    )


def _status(record: VersionRecord, aliases: list[str]) -> VersionStatus:
    if CHAMPION in aliases:
        return "champion"
    if CHALLENGER in aliases:
        return "challenger"
    return "retired" if PROMOTED_TAG in record.tags else "candidate"
