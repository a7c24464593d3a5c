"""The watches over a registry that changes, fails, or does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic, sleep
from typing import cast

import pytest

from coordinator.fleet.champion import ChampionWatch, TableWatch
from costmodel.train import TrainedModel
from gemmcast.card import ModelCard
from gemmcast.errors import WorkspaceError
from gemmcast.modeldir import ShippedModel
from gemmcast.tabledir import Shipped, version_of
from registry.registry import Registry
from registry.tables import TableRegistry

LIMIT_S = 60.0


class FakeRegistry:
    """One champion, which may change, fail or keep its readers waiting."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self.champion: str | None = None
        self.error: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.looks = 0

    def champion_stamp(self) -> str | None:
        self.looks += 1
        assert self.answers.wait(LIMIT_S)
        if self.error:
            raise self.error
        return self.champion

    def ship(self, ref: str) -> ShippedModel:
        shipped = shipped_model(ref)
        return replace(shipped, card=self._card.to_json().encode())


def shipped_model(number: str) -> ShippedModel:
    return ShippedModel(data=f"model {number}".encode())


def without_card(newest: tuple[ShippedModel, str] | None) -> tuple[ShippedModel, str]:
    assert newest is not None
    return replace(newest[0], card=b""), newest[1]


@pytest.fixture
def registry(candidate: TrainedModel) -> FakeRegistry:
    return FakeRegistry(candidate.card)


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def watch(registry: FakeRegistry, shown: list[str]) -> Iterator[ChampionWatch]:
    made = ChampionWatch(
        cast(Registry, registry), lambda _, version: shown.append(version), look_s=0.01
    )
    yield made
    registry.answers.set()
    made.close()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = monotonic() + LIMIT_S
    while not holds():
        assert monotonic() < deadline_s
        sleep(0.01)


def wait_for_newest(watch: ChampionWatch) -> tuple[ShippedModel, str]:
    pushed: list[tuple[ShippedModel, str]] = []

    def has_come() -> bool:
        newest = watch.newest()
        if newest:
            pushed.append(newest)
        return bool(pushed)

    wait_until(has_come)
    return without_card(pushed[0])


def test_each_champion_is_given_once(
    watch: ChampionWatch, registry: FakeRegistry, shown: list[str]
) -> None:
    watch.look()
    assert watch.newest() is None
    for number in ("1", "2", "1"):
        registry.champion = number
        watch.look()
        watch.look()
        assert without_card(watch.newest()) == (shipped_model(number), number)
        assert watch.newest() is None
    assert shown == ["1", "2", "1"]


def test_only_the_newest_is_given(watch: ChampionWatch, registry: FakeRegistry) -> None:
    for number in ("1", "2"):
        registry.champion = number
        watch.look()
    assert without_card(watch.newest()) == (shipped_model("2"), "2")
    assert watch.newest() is None


def test_a_champion_that_somebody_else_made_is_noticed(
    watch: ChampionWatch, registry: FakeRegistry
) -> None:
    watch.start()
    registry.champion = "3"
    assert wait_for_newest(watch) == (shipped_model("3"), "3")
    registry.champion = "2"
    assert wait_for_newest(watch) == (shipped_model("2"), "2")


def test_a_registry_that_does_not_answer_keeps_nobody_waiting(
    watch: ChampionWatch, registry: FakeRegistry
) -> None:
    registry.answers.clear()
    registry.champion = "1"
    watch.start()
    wait_until(lambda: registry.looks == 1)
    # The thread hangs in the registry; this one does not.
    assert watch.newest() is None
    registry.answers.set()
    assert wait_for_newest(watch) == (shipped_model("1"), "1")


@pytest.mark.parametrize("error", [WorkspaceError("it is down"), RuntimeError("a bug")])
def test_a_registry_that_fails_is_asked_again(
    watch: ChampionWatch,
    registry: FakeRegistry,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry.error = error
    registry.champion = "1"
    watch.start()
    wait_until(lambda: registry.looks > 3)
    warnings = [record.getMessage() for record in caplog.records]
    registry.error = None
    assert wait_for_newest(watch) == (shipped_model("1"), "1")
    if isinstance(error, WorkspaceError):
        assert warnings == ["the nodes keep their model, measuring continues: it is down"]


# tuned tables


class FakeTables:
    """Champions of tuned tables, which may change or fail."""

    def __init__(self) -> None:
        self.numbers: dict[str, str] = {}
        self.error: Exception | None = None
        self.is_damaged = False

    def champions(self) -> dict[str, str]:
        if self.error:
            raise self.error
        return dict(self.numbers)

    def shipped(self) -> list[Shipped]:
        if self.is_damaged:
            raise WorkspaceError("a champion is damaged")
        return [
            Shipped(data=f"table {name} {number}".encode(), version=number)
            for name, number in self.numbers.items()
        ]


@pytest.fixture
def tables() -> FakeTables:
    return FakeTables()


@pytest.fixture
def table_watch(tables: FakeTables) -> Iterator[TableWatch]:
    made = TableWatch(cast(TableRegistry, tables), look_s=0.01)
    yield made
    made.close()


def test_all_tables_are_given_once_after_each_change(
    table_watch: TableWatch, tables: FakeTables
) -> None:
    table_watch.look()
    assert table_watch.newest() is None
    for numbers in ({"h100": "1"}, {"h100": "1", "h200": "1"}, {"h100": "2", "h200": "1"}):
        tables.numbers = numbers
        table_watch.look()
        table_watch.look()
        newest = table_watch.newest()
        assert newest == (tables.shipped(), version_of(tables.shipped()))
        assert table_watch.newest() is None


def test_a_table_that_cannot_be_read_is_named_once_and_tried_again(
    table_watch: TableWatch, tables: FakeTables, caplog: pytest.LogCaptureFixture
) -> None:
    tables.numbers = {"h100": "1"}
    tables.is_damaged = True
    for _ in range(3):
        table_watch.look_or_warn()
    assert [record.getMessage() for record in caplog.records] == [
        "the nodes keep their tuned tables, measuring continues: a champion is damaged"
    ]
    assert table_watch.newest() is None
    tables.is_damaged = False
    table_watch.look_or_warn()
    assert table_watch.newest() is not None


def test_tables_that_somebody_else_promoted_are_noticed(
    table_watch: TableWatch, tables: FakeTables
) -> None:
    tables.error = RuntimeError("a bug")
    table_watch.start()
    tables.numbers = {"h100": "3"}
    tables.error = None
    given: list[str] = []

    def has_come() -> bool:
        newest = table_watch.newest()
        if newest:
            given.extend(shipped.version for shipped in newest[0])
        return bool(given)

    wait_until(has_come)
    assert given == ["3"]
