"""Model versions: publish, resolve, promote, roll back, verify.

A version never changes; what changes is which one the aliases `champion` and `challenger` point at, and an alias moves in one write.
Order makes every crash harmless: a version appears when its files are whole, an alias moves last, and the list of earlier
champions is read so that one entry too many says nothing. What is not ours, or not whole, is not listed.
Knows nothing of training, of gates, or of agents.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from gemmcast.card import ModelCard
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically
from registry import artifact
from registry.backend import Backend, Record, Snapshot

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
HISTORY_TAG = "gemmcast.champions"
# JSON list of the champions before this one, oldest first
PROMOTED_TAG = "gemmcast.promoted_at"
HISTORY_KEPT = 100
Status = Literal["champion", "challenger", "retired", "candidate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One published model."""

    number: str
    # "1", "2", ...: in the order of publishing
    sha256: str
    # of the .onnx file
    created_at: str
    # UTC, ISO 8601
    aliases: tuple[str, ...]
    # champion: what agents run; challenger: what may become it
    status: Status
    # retired: was champion once; candidate: never was
    rows: int
    # it was trained and tested on


Versions = list[Version]
Numbers = list[str]


class Registry:
    """The versions of the model in a directory, or on an MLflow tracking server.

    Opened at the first call, created by the first `publish`; on nothing, `champion` gives None and any other call raises InputError.
    One directory may be used by many processes at once.

    Args:
        uri: a directory, or the http(s):// URI of a tracking server.
    """

    def __init__(self, uri: str | Path) -> None:
        self._backend = Backend(uri)

    def publish(self, model: bytes, card: ModelCard) -> Version:
        """A new version, which no alias points at. Raises ModelFileError, before anything is written, on a model that is not ours."""
        packed = artifact.pack(model, card)
        record = self._backend.add(packed.files, packed.tags)
        log.info("published version %s (SHA-256 %s) to %s", record.number, packed.card.sha256[:12], self._backend.shown)
        return _version(record, Snapshot(records=(), aliases={}, tags={}))

    def champion(self) -> Version | None:
        """The champion, or None where nothing was published or promoted yet."""
        if not self._backend.exists():
            return None
        snapshot = self._backend.snapshot()
        return self._version(CHAMPION, snapshot) if CHAMPION in snapshot.aliases else None

    def resolve(self, ref: str) -> Version:
        """The version that `champion`, `challenger` or a number means. Raises InputError, with what exists, when there is none."""
        return self._version(ref, self._backend.snapshot())

    def load(self, ref: str) -> tuple[bytes, ModelCard, Version]:
        """A version's model and card. Raises ModelFileError when either is damaged or not ours."""
        snapshot = self._backend.snapshot()
        return *self._read(_find(ref, snapshot)), self._version(ref, snapshot)

    def verify(self, ref: str) -> Version:
        """Read a version whole, as `load` does."""
        return self.load(ref)[2]

    def export(self, ref: str, path: str | Path) -> Version:
        """Write a version's .onnx file, whole or not at all."""
        model, _, version = self.load(ref)
        try:
            write_atomically(Path(path), model)
        except OSError as error:
            raise InputError("path", str(path), f"can't be written ({error.strerror})", "name a file in a directory of yours") from None
        return version

    def promote(self, ref: str) -> Version:
        """Make a version the champion, once it is verified. The one before it can be rolled back to."""
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            record = _find(ref, snapshot)
            self._read(record)
            champion = snapshot.aliases.get(CHAMPION)
            if champion != record.number:
                self._backend.set_tag(PROMOTED_TAG, datetime.now(UTC).isoformat(timespec="seconds"), number=record.number)
                self._remember([*_earlier(snapshot), *([champion] if champion else [])])
                self._backend.set_alias(CHAMPION, record.number)
                log.info("champion: version %s, before it %s", record.number, champion or "none")
            self._drop_challenger(record, snapshot)
            return self.resolve(record.number)

    def rollback(self) -> Version:
        """Make the champion before this one the champion again, once it is verified. Repeated, it goes further back."""
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            earlier = _earlier(snapshot)
            if not earlier:
                now = f"champion is {snapshot.aliases[CHAMPION]}" if CHAMPION in snapshot.aliases else "there is no champion"
                raise InputError("rollback", now, "no champion came before", f"promote a version ({_known(snapshot)})")
            record = _find(earlier[-1], snapshot)
            self._read(record)
            self._backend.set_alias(CHAMPION, record.number)
            self._remember(earlier[:-1])
            log.info("champion: version %s again", record.number)
            self._drop_challenger(record, snapshot)
            return self.resolve(record.number)

    def challenge(self, ref: str) -> Version:
        """Make a version the challenger, once it is verified."""
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            record = _find(ref, snapshot)
            if snapshot.aliases.get(CHAMPION) == record.number:
                raise InputError("challenger", ref, "is the champion already", f"name another version ({_known(snapshot)})")
            self._read(record)
            self._backend.set_alias(CHALLENGER, record.number)
            return self.resolve(record.number)

    def list(self) -> Versions:
        """Every version, newest first. Not verified: that reads each file."""
        snapshot = self._backend.snapshot()
        return [_version(record, snapshot) for record in _ours(snapshot)]

    def _version(self, ref: str, snapshot: Snapshot) -> Version:
        return _version(_find(ref, snapshot), snapshot)

    def _read(self, record: Record) -> tuple[bytes, ModelCard]:
        model, card = self._backend.read(record, artifact.MODEL), self._backend.read(record, artifact.CARD)
        source = f"version {record.number} in {self._backend.shown}"
        return model, artifact.unpack(model, card, record.tags[artifact.SHA256_TAG], source)

    def _remember(self, champions: Numbers) -> None:
        self._backend.set_tag(HISTORY_TAG, json.dumps(champions[-HISTORY_KEPT:]))

    def _drop_challenger(self, record: Record, snapshot: Snapshot) -> None:
        if snapshot.aliases.get(CHALLENGER) == record.number:
            self._backend.set_alias(CHALLENGER, None)


def _ours(snapshot: Snapshot) -> list[Record]:
    """Newest first. A version without our hash was not published by us, or not to its end."""
    return sorted((r for r in snapshot.records if artifact.SHA256_TAG in r.tags), key=lambda record: int(record.number), reverse=True)


def _find(ref: str, snapshot: Snapshot) -> Record:
    number = snapshot.aliases.get(ref, ref)
    for record in _ours(snapshot):
        if record.number == number:
            return record
    if ref in (CHAMPION, CHALLENGER):
        rule = f"points at version {number}, which gemmcast did not publish" if ref in snapshot.aliases else "no version has this alias"
    else:
        rule = "no such version"
    raise InputError("version", ref, rule, f"name one of: {_known(snapshot)}")


def _known(snapshot: Snapshot) -> str:
    """What a user can name, for messages."""
    numbers = [record.number for record in _ours(snapshot)]
    aliases = [alias for alias in (CHAMPION, CHALLENGER) if snapshot.aliases.get(alias) in numbers]
    shown = numbers if len(numbers) <= 10 else [*numbers[:10], "..."]
    return ", ".join(aliases + shown) or "none was published yet"


def _earlier(snapshot: Snapshot) -> list[str]:
    """The champions before this one, oldest first; those that are gone, and this one itself at the end (left by a crash), are dropped."""
    there = {record.number for record in _ours(snapshot)}
    champions = [number for number in json.loads(snapshot.tags.get(HISTORY_TAG, "[]")) if number in there]
    while champions and champions[-1] == snapshot.aliases.get(CHAMPION):
        champions.pop()
    return champions


def _version(record: Record, snapshot: Snapshot) -> Version:
    aliases = tuple(sorted(alias for alias, number in snapshot.aliases.items() if number == record.number))
    idle: Status = "retired" if PROMOTED_TAG in record.tags else "candidate"
    return Version(
        number=record.number,
        sha256=record.tags[artifact.SHA256_TAG],
        created_at=datetime.fromtimestamp(record.created_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        aliases=aliases,
        status="champion" if CHAMPION in aliases else "challenger" if CHALLENGER in aliases else idle,
        rows=int(record.tags.get("gemmcast.rows", 0)),
    )
