"""A process on a node gets the tuned table that was pushed last, unless it is stale or damaged."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gemmcast import TunedTable, modeldir, tabledir
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.table_following import TableFollower
from gemmcast.table_key import StaleTableError, TableKey
from gemmcast.tabledir import Shipped
from tests.small_tables import KEY, gemm, table

REFRESH_S = 0.02
H200 = replace(KEY, device="NVIDIA H200")


def put(directory: Path, *tables: TunedTable, version: str = "1") -> tabledir.PlacedTables:
    shipped = [Shipped(data=one.to_json().encode(), version=version) for one in tables]
    return tabledir.put_tables(directory, shipped)


def wait(condition: Callable[[], bool], limit_s: float = 30.0) -> bool:
    end_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.005)
    return condition()


def follow(directory: Path, *here: TableKey, objective: str = "time") -> TableFollower:
    return TableFollower(directory, here or [KEY], objective, refresh_s=REFRESH_S)


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[TableFollower]:
    put(tmp_path, table(1, 16))
    with follow(tmp_path) as made:
        yield made


def test_a_set_is_replaced_as_a_whole(tmp_path: Path) -> None:
    first = put(tmp_path, table(1), table(2, key=H200))
    assert tabledir.read_current(tmp_path) == first
    second = put(tmp_path, table(3))
    current = tabledir.read_current(tmp_path)
    assert current == second != first
    (placed,) = current.tables
    assert TunedTable.from_json(tabledir.read_table(tmp_path, placed)) == table(3)


def test_equal_sets_have_one_version(tmp_path: Path) -> None:
    first = put(tmp_path, table(1), table(2))
    assert put(tmp_path, table(2), table(1)).version == first.version
    assert put(tmp_path, table(2), table(1), version="2").version != first.version


def test_displaced_tables_are_deleted_after_a_while(tmp_path: Path) -> None:
    put(tmp_path, table(1))
    (old,) = tmp_path.glob(tabledir.TABLES)
    (tmp_path / "table-mine.json").write_text("a user's file")
    put(tmp_path, table(2))
    assert old.exists()
    long_ago_s = time.time() - 100
    os.utime(old, (long_ago_s, long_ago_s))
    put(tmp_path, table(3))
    assert not old.exists()
    assert (tmp_path / "table-mine.json").exists()


def test_it_follows_a_push(follower: TableFollower, tmp_path: Path) -> None:
    assert follower.version == "1"
    assert follower.lookup(gemm(16)).source == "entry"
    put(tmp_path, table(1, 64), version="2")
    assert wait(lambda: follower.version == "2")
    assert follower.lookup(gemm(64)).source == "entry"
    assert follower.lookup(gemm(16)).source == "nearest"


@pytest.mark.parametrize("bad", ["stale", "damaged", "no table", "foreign", "none"])
def test_a_bad_push_keeps_the_table(
    bad: str, follower: TableFollower, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gemmcast.follower")
    if bad == "stale":
        put(tmp_path, table(64, key=replace(KEY, driver="590.1")), version="2")
    elif bad == "damaged":
        # Written before tables.json names it, as by a disk that lies.
        digest = modeldir.sha256(table(64).to_json().encode())
        (tmp_path / f"table-{digest[:12]}.json").write_text(table(65).to_json())
        placed = {"file": f"table-{digest[:12]}.json", "sha256": digest, "version": "2"}
        values = {"version": "x", "tables": [placed]}
        modeldir.write_atomically(tmp_path / tabledir.CURRENT, json.dumps(values).encode())
    elif bad == "no table":
        tabledir.put_tables(tmp_path, [Shipped(data=b"[]", version="2")])
    elif bad == "foreign":
        modeldir.write_atomically(tmp_path / tabledir.CURRENT, b"[1, 2]")
    else:
        put(tmp_path)
    assert wait(lambda: bool(caplog.messages))
    assert "keeping tuned table 1: " in caplog.messages[0]
    assert follower.version == "1"
    assert follower.lookup(gemm(16)).source == "entry"
    put(tmp_path, table(1, 64), version="3")
    assert wait(lambda: follower.version == "3")


def test_the_table_of_the_device_here_is_taken(tmp_path: Path) -> None:
    put(tmp_path, table(1), table(2, key=H200), table(3, key=replace(KEY, objective="energy")))
    for here, objective, own in (
        (KEY, "time", table(1)),
        (H200, "time", table(2, key=H200)),
        (KEY, "energy", table(3, key=replace(KEY, objective="energy"))),
    ):
        with follow(tmp_path, here, objective=objective) as follower:
            assert follower.table == own
    with pytest.raises(InputError, match=r"here = None: .* NVIDIA H100 80GB HBM3, NVIDIA H200"):
        follow(tmp_path, KEY, H200)


def test_a_stale_table_of_this_device_says_what_differs(tmp_path: Path) -> None:
    put(tmp_path, table(2, key=H200), table(1))
    with pytest.raises(StaleTableError, match=r"^driver = '580.1': .* here is '590.1'"):
        follow(tmp_path, replace(KEY, driver="590.1"))
    with pytest.raises(StaleTableError, match=r"^device = .* here is 'NVIDIA B200'"):
        follow(tmp_path, replace(KEY, device="NVIDIA B200"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no tuned tables \(tables.json\)"):
        follow(tmp_path)
    put(tmp_path, table(1))
    with pytest.raises(InputError, match=r"objective = 'edp': no table .* name one of time"):
        follow(tmp_path, objective="edp")


def test_the_devices_of_the_node_are_those_that_agents_described(
    tmp_path: Path, gpu: Device
) -> None:
    modeldir.put_device(tmp_path, gpu)
    own = table(1, key=TableKey.of(gpu))
    put(tmp_path, own, table(2, key=H200))
    with TunedTable.following(tmp_path) as follower:
        assert follower.table == own
    put(tmp_path, table(2, key=H200))
    with pytest.raises(StaleTableError, match=r"here is 'GPU A'"):
        TunedTable.following(tmp_path)
    with TunedTable.following(tmp_path, allow_stale=True) as follower:
        assert follower.table == table(2, key=H200)


def test_a_forked_process_follows_by_itself(follower: TableFollower, tmp_path: Path) -> None:
    put(tmp_path, table(1, 64), version="2")
    child = os.fork()
    if not child:
        taken = wait(lambda: follower.version == "2" and follower.table == table(1, 64))
        os._exit(0 if taken else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
