"""Model versions: publish, resolve, promote, roll back, verify.

A version never changes; the aliases `champion` and `challenger` do, each in one write. The order of
the writes makes every crash harmless: a version appears when its files are whole, an alias moves
last, and one entry too many in the list of earlier champions is dropped when it is read. A version
that gemmcast did not publish is not listed. Knows nothing of training, of gates, or of agents.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from gemmcast.card import ModelCard
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically
from registry import artifact
from registry.backend import RegistrySnapshot, VersionRecord, open_backend

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
HISTORY_TAG = "gemmcast.champions"
"""JSON list of the champions before this one, oldest first."""
PROMOTED_TAG = "gemmcast.promoted_at"
HISTORY_KEPT = 100
_SHOWN_NUMBERS = 10
VersionStatus = Literal["champion", "challenger", "retired", "candidate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One published model."""

    number: str
    """"1", "2", ...: in the order of publishing."""
    sha256: str
    """SHA-256 of the .onnx file."""
    created_at: str
    """UTC, ISO 8601."""
    aliases: tuple[str, ...]
    """`champion`: the version that agents run; `challenger`: the one that may become it."""
    status: VersionStatus
    """The alias, or `retired` if it was champion once, or `candidate` if it never was."""
    rows: int
    """Rows that it was trained and tested on."""


class PublishedModel(NamedTuple):
    """A version with its content."""

    model: bytes
    """The .onnx file."""
    card: ModelCard
    """What the model is."""
    version: Version
    """Which version it is."""


Versions = list[Version]
"""Inside Registry, `list` is the method."""
_Numbers = list[str]


class Registry:
    """The versions of the model in a directory, or on an MLflow tracking server.

    It is opened at the first call and created by the first `publish`. Before that, `champion` and
    `champion_number` return None and any other call raises InputError. Many processes may use one
    directory at once.

    Args:
        uri: a directory, or the http(s):// URI of a tracking server.
    """

    def __init__(self, uri: str | Path) -> None:
        self._backend = open_backend(uri)

    def publish(self, model: bytes, card: ModelCard) -> Version:
        """Add a version without an alias.

        Raises:
            ModelFileError: the model is not a gemmcast model; nothing is written.
        """
        packed = artifact.pack(model, card)
        record = self._backend.add(packed.files, packed.tags)
        digest = packed.card.sha256[:12]
        log.info(
            "published version %s (SHA-256 %s) to %s", record.number, digest, self._backend.shown
        )
        return _version(record, RegistrySnapshot(records=(), aliases={}, tags={}))

    def check(self) -> None:
        """Before a model is trained: raise GemmcastError if it could not be published."""
        self._backend.check()

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
        snapshot = self._backend.snapshot()
        return _version(_find(ref, snapshot), snapshot)

    def load(self, ref: str) -> PublishedModel:
        """A version with its content. Raises ModelFileError when that is damaged or foreign."""
        snapshot = self._backend.snapshot()
        record = _find(ref, snapshot)
        model, card = self._read(record)
        return PublishedModel(model, card, _version(record, snapshot))

    def verify(self, ref: str) -> Version:
        """Read a version whole, as `load` does."""
        return self.load(ref).version

    def export(self, ref: str, path: str | Path) -> Version:
        """Write a version's .onnx file, whole or not at all."""
        published = self.load(ref)
        try:
            write_atomically(Path(path), published.model)
        except OSError as error:
            rule = f"can't be written ({error.strerror})"
            way_out = "name a file in a directory that you may write"
            raise InputError("path", str(path), rule, way_out) from None
        return published.version

    def promote(self, ref: str) -> Version:
        """Verify a version and make it the champion. `rollback` returns to the one before."""
        with self._backend.exclusive():
            snapshot = self._backend.snapshot()
            record = _find(ref, snapshot)
            self._read(record)
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
            self._read(record)
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
            self._read(record)
            self._backend.set_alias(CHALLENGER, record.number)
            return self.resolve(record.number)

    def list(self) -> Versions:
        """Every version, newest first. Their files are not read."""
        snapshot = self._backend.snapshot()
        return [_version(record, snapshot) for record in _published(snapshot)]

    def _read(self, record: VersionRecord) -> tuple[bytes, ModelCard]:
        model = self._backend.read(record, artifact.MODEL_FILE)
        card = self._backend.read(record, artifact.CARD_FILE)
        source = f"version {record.number} in {self._backend.shown}"
        return model, artifact.unpack(model, card, record.tags[artifact.SHA256_TAG], source)

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
    records = [record for record in snapshot.records if artifact.SHA256_TAG in record.tags]
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
        sha256=record.tags[artifact.SHA256_TAG],
        created_at=created.isoformat(timespec="milliseconds"),
        aliases=tuple(sorted(aliases)),
        status=_status(record, aliases),
        rows=int(record.tags.get(artifact.ROWS_TAG, 0)),
    )


def _status(record: VersionRecord, aliases: list[str]) -> VersionStatus:
    if CHAMPION in aliases:
        return "champion"
    if CHALLENGER in aliases:
        return "challenger"
    return "retired" if PROMOTED_TAG in record.tags else "candidate"
