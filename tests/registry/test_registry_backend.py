"""The contract of RegistryBackend, over every implementation: a directory and a server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from gemmcast.errors import InputError, ModelFileError
from registry.backend import DirectoryBackend, RegistryBackend, ServerBackend, open_backend

FILES = {"model.onnx": b"a model", "card.json": b"{}"}
TAGS = {"gemmcast.sha256": "12ab"}
BACKENDS = {"directory": DirectoryBackend, "server": ServerBackend}
# Inside MLflow 3.17 with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


class Server(Protocol):
    """conftest.py's."""

    uri: str


def test_every_implementation_is_tested() -> None:
    assert set(RegistryBackend.__subclasses__()) == set(BACKENDS.values())


@pytest.fixture(params=list(BACKENDS))
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty registry of each kind."""
    if request.param == "directory":
        return str(tmp_path / "registry")
    server: Server = request.getfixturevalue("server")
    return server.uri


@pytest.fixture
def backend(uri: str) -> RegistryBackend:
    return open_backend(uri)


class TestRegistryBackend:
    """What the registry may rely on."""

    def test_it_is_the_kind_that_the_uri_names(self, backend: RegistryBackend) -> None:
        assert type(backend) in BACKENDS.values()

    def test_before_the_first_version_there_is_nothing(
        self, backend: RegistryBackend, tmp_path: Path
    ) -> None:
        assert not backend.exists()
        with pytest.raises(InputError, match="holds no (registry|model)"):
            backend.snapshot()
        assert list(tmp_path.iterdir()) == [], "reading creates nothing"

    def test_a_version_is_what_was_added(self, backend: RegistryBackend) -> None:
        record = backend.add(FILES, TAGS)
        assert (record.number, record.tags) == ("1", TAGS)
        assert record.created_ms > 0
        assert {name: backend.read(record, name) for name in FILES} == FILES
        snapshot = backend.snapshot()
        assert snapshot.records == (record,)
        assert (snapshot.aliases, snapshot.tags) == ({}, {})
        assert backend.exists()

    def test_versions_are_numbered_in_their_order(self, backend: RegistryBackend) -> None:
        added = [backend.add({"model.onnx": bytes([seed])}, TAGS) for seed in range(3)]
        assert [record.number for record in added] == ["1", "2", "3"]
        by_number = {record.number: record for record in backend.snapshot().records}
        assert by_number == {record.number: record for record in added}
        assert [backend.read(record, "model.onnx") for record in added] == [b"\0", b"\1", b"\2"]

    def test_a_missing_file_is_named(self, backend: RegistryBackend) -> None:
        record = backend.add({"model.onnx": b"a model"}, TAGS)
        with pytest.raises(ModelFileError, match="its card.json is missing"):
            backend.read(record, "card.json")

    def test_an_alias_moves_and_goes(self, backend: RegistryBackend) -> None:
        for _ in range(2):
            backend.add(FILES, TAGS)
        backend.set_alias("champion", "1")
        backend.set_alias("challenger", "2")
        backend.set_alias("champion", "2")
        assert backend.snapshot().aliases == {"champion": "2", "challenger": "2"}
        backend.set_alias("challenger", None)
        assert backend.snapshot().aliases == {"champion": "2"}

    def test_tags_belong_to_the_model_or_to_a_version(self, backend: RegistryBackend) -> None:
        for _ in range(2):
            backend.add(FILES, TAGS)
        backend.set_tag("history", "[1]")
        backend.set_tag("history", "[1, 2]")
        backend.set_tag("promoted", "now", number="1")
        snapshot = backend.snapshot()
        assert snapshot.tags == {"history": "[1, 2]"}
        tags = {record.number: record.tags for record in snapshot.records}
        assert tags == {"1": {**TAGS, "promoted": "now"}, "2": TAGS}

    def test_another_process_sees_the_same(self, backend: RegistryBackend, uri: str) -> None:
        record = backend.add(FILES, TAGS)
        backend.set_alias("champion", "1")
        other = open_backend(uri)
        assert other.exists()
        assert other.snapshot() == backend.snapshot()
        assert other.read(record, "model.onnx") == FILES["model.onnx"]

    def test_reading_and_writing_are_possible_while_it_is_held(
        self, backend: RegistryBackend
    ) -> None:
        backend.add(FILES, TAGS)
        with backend.exclusive():
            assert len(backend.snapshot().records) == 1
            backend.set_alias("champion", "1")
        assert backend.snapshot().aliases == {"champion": "1"}

    def test_writers_at_once_make_versions_of_their_own(
        self, backend: RegistryBackend, uri: str
    ) -> None:
        backend.add(FILES, TAGS)

        def add(seed: int) -> str:
            return open_backend(uri).add({"model.onnx": bytes([seed])}, TAGS).number

        with ThreadPoolExecutor(3) as pool:
            numbers = list(pool.map(add, range(3)))
        assert sorted(numbers) == ["2", "3", "4"]
        records = {record.number: record for record in backend.snapshot().records}
        for seed, number in enumerate(numbers):
            assert backend.read(records[number], "model.onnx") == bytes([seed])
