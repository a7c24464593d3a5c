"""MLflow's tables of a registry in a directory, read as SQLite holds them.

MLflow's import and its first look at a database take two seconds of CPU; a look here takes a
millisecond, so commands answer at once and a run may look every two seconds. Reads only: what
changes a registry goes through MLflow (registry/backend.py). The columns are those of MLflow 2.3
and later; tests/registry/test_registry_database.py compares both ways of reading.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from gemmcast.errors import WorkspaceError
from registry.records import RegistrySnapshot, RegistryState, VersionRecord

BUSY_S = 20.0
"""How long SQLite waits for another writer. [s]"""
_TABLES = "SELECT count(*) FROM sqlite_master WHERE name IN ('registered_models', 'model_versions')"
_MODEL = "SELECT count(*) FROM registered_models WHERE name = ?"
_MODEL_TAGS = "SELECT key, value FROM registered_model_tags WHERE name = ?"
_ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"
_VERSION_TAGS = "SELECT version, key, value FROM model_version_tags WHERE name = ?"
# A version that was deleted stays as a row of that stage.
_VERSIONS = """
SELECT version, run_id, creation_time FROM model_versions
WHERE name = ? AND status = 'READY' AND current_stage IS NOT 'Deleted_Internal'
"""
_MODELS = "SELECT name FROM registered_models WHERE substr(name, 1, length(:prefix)) = :prefix"


class RegistryView:
    """A registry's database as it was at one moment.

    Args:
        connection: in a transaction, so that all answers belong together.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def is_registry(self) -> bool:
        """Whether the database has MLflow's tables."""
        return bool(self._execute(_TABLES).fetchone() == (2,))

    def names(self, prefix: str) -> list[str]:
        """The registered models whose names start so."""
        return [name for (name,) in self._execute(_MODELS, {"prefix": prefix})]

    def holds(self, name: str) -> bool:
        """Whether there is a registered model of this name."""
        return bool(self._execute(_MODEL, (name,)).fetchone() == (1,))

    def state(self, name: str) -> RegistryState:
        """Aliases and tags of a registered model."""
        aliases = {alias: str(number) for alias, number in self._execute(_ALIASES, (name,))}
        return RegistryState(aliases=aliases, tags=dict(self._execute(_MODEL_TAGS, (name,))))

    def snapshot(self, name: str) -> RegistrySnapshot:
        """All versions, aliases and tags of a registered model."""
        state = self.state(name)
        records = tuple(self._records(name))
        return RegistrySnapshot(records=records, aliases=state.aliases, tags=state.tags)

    def _records(self, name: str) -> Iterator[VersionRecord]:
        tags = self._version_tags(name)
        for number, run_id, created_ms in self._execute(_VERSIONS, (name,)):
            yield VersionRecord(
                number=str(number),
                run_id=run_id or "",
                created_ms=int(created_ms),
                tags=tags.get(number, {}),
            )

    def _version_tags(self, name: str) -> Mapping[int, dict[str, str]]:
        tags: dict[int, dict[str, str]] = defaultdict(dict)
        for number, key, value in self._execute(_VERSION_TAGS, (name,)):
            tags[number][key] = value
        return tags


@contextmanager
def viewed(database: Path) -> Iterator[RegistryView]:
    """Look into a database; creates nothing. Raises WorkspaceError when SQLite refuses it."""
    uri = f"{database.as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as connection:
            connection.execute("BEGIN")
            yield RegistryView(connection)
    except sqlite3.Error as error:
        message = f"registry {database} can't be read ({error}): {_way_out(error)}"
        raise WorkspaceError(message) from None


def _way_out(error: sqlite3.Error) -> str:
    """What to do about a database that SQLite refuses."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another program holds it: wait, or end that program"
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY):
        return "run as a user who may read and write it"
    return "restore it from a copy, or publish into another directory"
