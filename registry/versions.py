"""The versions of a lineage as they are listed, named and ordered, from what MLflow holds of them.

A version that gemmcast did not publish to the end has no hash among its tags, and is not listed.
Knows nothing of what is in a version, and changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from gemmcast.errors import InputError
from registry.records import RegistrySnapshot, RegistryState, VersionRecord
from registry.signatures import SIGNED_TAG, role_of
from signing.statement import Role

CHAMPION, CHALLENGER = "champion", "challenger"
SHA256_TAG: Final = "gemmcast.sha256"
ROWS_TAG: Final = "gemmcast.rows"
HISTORY_TAG = "gemmcast.champions"
"""JSON list of the champions before this one, oldest first."""
PROMOTED_TAG = "gemmcast.promoted_at"
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
    signed: Role | None = None
    """What its signature says that it is; `verify` checks it. None: no signature."""


def champion_stamp(state: RegistryState | None) -> str | None:
    """The champion's number, and a mark of its signature where it was signed."""
    number = state.aliases.get(CHAMPION) if state else None
    if state is None or number is None or SIGNED_TAG not in state.tags:
        return number
    return f"{number} {state.tags[SIGNED_TAG]}"


def published(snapshot: RegistrySnapshot) -> list[VersionRecord]:
    """The versions that gemmcast published to the end, newest first: those with its hash."""
    records = [record for record in snapshot.records if SHA256_TAG in record.tags]
    return sorted(records, key=_number, reverse=True)


def _number(record: VersionRecord) -> int:
    return int(record.number)


def find(ref: str, snapshot: RegistrySnapshot) -> VersionRecord:
    """The version of an alias or a number. Raises InputError without one."""
    number = snapshot.aliases.get(ref, ref)
    for record in published(snapshot):
        if record.number == number:
            return record
    if ref not in (CHAMPION, CHALLENGER):
        rule = "no such version"
    elif ref in snapshot.aliases:
        rule = f"points at version {number}, which gemmcast did not publish"
    else:
        rule = "no version has this alias"
    raise InputError("version", ref, rule, f"name one of: {names(snapshot)}")


def names(snapshot: RegistrySnapshot) -> str:
    """What a user can name, for messages."""
    numbers = [record.number for record in published(snapshot)]
    aliases = [name for name in (CHAMPION, CHALLENGER) if snapshot.aliases.get(name) in numbers]
    shown = aliases + numbers[:_SHOWN_NUMBERS]
    if len(numbers) > _SHOWN_NUMBERS:
        shown.append("...")
    return ", ".join(shown) or "none was published yet"


def earlier_champions(snapshot: RegistrySnapshot) -> list[str]:
    """The champions before this one, oldest first, without deleted versions.

    A crash in `promote` or `rollback` leaves the champion itself at the end; it is dropped.
    """
    numbers = {record.number for record in published(snapshot)}
    history = json.loads(snapshot.tags.get(HISTORY_TAG, "[]"))
    champions = [number for number in history if number in numbers]
    while champions and champions[-1] == snapshot.aliases.get(CHAMPION):
        champions.pop()
    return champions


def to_version(record: VersionRecord, snapshot: RegistrySnapshot) -> Version:
    """A version as it is shown."""
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
