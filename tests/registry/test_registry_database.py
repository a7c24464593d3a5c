"""What is read from SQLite is what MLflow reads, and it is read without MLflow."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from registry.backend import DirectoryBackend, RegistryBackend
from registry.records import RegistrySnapshot, RegistryState

# Inside MLflow 3.17 with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def both_ways(directory: Path) -> tuple[RegistrySnapshot, RegistrySnapshot]:
    """Read from SQLite, and through MLflow as a server's registry is."""
    backend = DirectoryBackend(directory)
    return backend.snapshot(), RegistryBackend.snapshot(backend)


def by_number(snapshot: RegistrySnapshot) -> RegistrySnapshot:
    records = sorted(snapshot.records, key=lambda record: int(record.number))
    return RegistrySnapshot(records=tuple(records), aliases=snapshot.aliases, tags=snapshot.tags)


def test_versions_aliases_and_tags_are_mlflows(directory: Path) -> None:
    read, through_mlflow = both_ways(directory)
    assert by_number(read) == by_number(through_mlflow)
    assert len(read.records) == 3
    assert read.aliases == {"champion": "2", "challenger": "3"}


def test_what_is_deleted_or_not_ready_is_not_there(directory: Path) -> None:
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).delete_model_version("gemmcast", "1")
    with closing(sqlite3.connect(directory / "mlflow.db")) as database:
        database.execute("UPDATE model_versions SET status = 'FAILED_REGISTRATION' WHERE version=3")
        database.commit()
    read, through_mlflow = both_ways(directory)
    assert read == through_mlflow
    assert [record.number for record in read.records] == ["2"]


def test_states_of_models_whose_names_start_so(directory: Path) -> None:
    backend = DirectoryBackend(directory)
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for name in ("gemmcast-table-a", "gemmcast_table_b", "GEMMCAST-table-c"):
        client.create_registered_model(name)
    client.create_model_version("gemmcast-table-a", source="file:///nowhere")
    client.set_registered_model_alias("gemmcast-table-a", "champion", "1")
    for prefix in ("gemmcast-table-", "gemmcast"):
        assert backend.states_of(prefix) == RegistryBackend.states_of(backend, prefix)
    (state,) = backend.states_of("gemmcast-table-").values()
    assert state == RegistryState(aliases={"champion": "1"}, tags={})


def test_reading_imports_no_mlflow(directory: Path, python_env: dict[str, str]) -> None:
    code = """
import json, sys
from registry.registry import Registry
registry = Registry(sys.argv[1])
read = [registry.champion_number(), registry.champion().number, len(registry.list())]
registry.load("champion")
print(json.dumps([read, sorted({"mlflow", "sqlalchemy", "pandas"} & set(sys.modules))]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        env=python_env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout) == [["2", "2", 3], []]
