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
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from gemmcast.errors import InputError, ModelFileError
from gemmcast.modeldir import sha256
from registry.backend import RegistryBackend
from registry.records import RegistrySnapshot, VersionRecord
from registry.signatures import SIGNATURE_TAG, SIGNED_TAG, Files, Signatures
from registry.versions import (
    CHALLENGER,
    CHAMPION,
    HISTORY_TAG,
    PROMOTED_TAG,
    SHA256_TAG,
    Version,
    champion_stamp,
    earlier_champions,
    find,
    names,
    published,
    to_version,
)
from signing.keys import SIGNING_KEY
from signing.signature import Signed
from signing.statement import Role

log = logging.getLogger(__name__)

HISTORY_KEPT = 100
NEVER: Final = datetime.min.replace(tzinfo=UTC)
_PROMOTE: Final = "promote it, or roll back to it, with the signing key"
_NOT_SIGNED_ANEW: Final = (
    "version %s is not signed anew, so nodes with a public key may refuse it: "
    "set %s, then `python -m registry sign champion`"
)
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
        return to_version(find(CHAMPION, snapshot), snapshot)

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
            record = find(ref, snapshot)
            is_champion = snapshot.aliases.get(CHAMPION) == record.number
            role: Role = "champion" if is_champion else "candidate"
            self._sign(record, self._whole(record), role, snapshot)
            return self.resolve(record.number)

    @property
    def objection(self) -> str | None:
        """Why no version can be made champion here: its signature would be missing."""
        return self._signatures.objection

    def promote(self, ref: str) -> Version:
        """Verify a version and make it the champion. `rollback` returns to the one before."""
        self._refuse_without_key("promote")
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            record = find(ref, snapshot)
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
        self._refuse_without_key("rollback")
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            earlier = earlier_champions(snapshot)
            if not earlier:
                champion = snapshot.aliases.get(CHAMPION)
                state = f"champion is {champion}" if champion else "there is no champion"
                way_out = f"promote a version ({names(snapshot)})"
                raise InputError("rollback", state, "no champion came before", way_out)
            record = find(earlier[-1], snapshot)
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
            record = find(ref, snapshot)
            if snapshot.aliases.get(CHAMPION) == record.number:
                way_out = f"name another version ({names(snapshot)})"
                raise InputError("challenger", ref, "is the champion already", way_out)
            self._whole(record)
            self._backend.set_alias(CHALLENGER, record.number)
            return self.resolve(record.number)

    def list(self) -> Versions:
        """Every version, newest first. Their files are not read."""
        snapshot = self._backend.snapshot()
        return [to_version(record, snapshot) for record in published(snapshot)]

    def _add(self, files: Files, tags: Mapping[str, str]) -> Version:
        """Publish a version, which no alias can have yet."""
        # Before anything is written: a signing key that can't be used is refused.
        signer = self._signatures.signer
        record = self._backend.add(files, tags)
        if signer is not None:
            record = self._sign(record, files, "candidate")
        digest = record.tags[SHA256_TAG][:12]
        log.info("published version %s (SHA-256 %s) to %s", record.number, digest, self._shown)
        return to_version(record, RegistrySnapshot(records=(), aliases={}, tags={}))

    def _source(self, record: VersionRecord) -> str:
        """A version, for messages."""
        return f"version {record.number} in {self._backend.shown}"

    def _refuse_without_key(self, command: str) -> None:
        if self.objection:
            way_out = f"set {SIGNING_KEY}, or do it where the signing key is"
            raise InputError(command, "champion", self.objection, way_out)

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
        record = find(ref, snapshot)
        return record, to_version(record, snapshot)

    def _make_champion(
        self, record: VersionRecord, snapshot: RegistrySnapshot, champion: str | None
    ) -> None:
        """The alias moves last."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._backend.set_tag(PROMOTED_TAG, now, number=record.number)
        earlier = earlier_champions(snapshot)
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
