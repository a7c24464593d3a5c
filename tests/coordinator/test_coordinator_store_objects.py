"""A store in an object store: its lock, its outages (the contract: test_coordinator_store.py)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from coordinator.holder import Holder
from coordinator.samples import lock as lock_module
from coordinator.samples import place as place_module
from coordinator.samples import store as store_module
from coordinator.samples.lock import LOCK_S, ExpiringLock
from coordinator.samples.place import ObjectPlace
from coordinator.samples.store import SampleStore
from gemmcast.errors import UnavailableError, WorkspaceError

Become = Callable[[str], None]
SHORT = {"connect_timeout": "1s", "timeout": "1s", "max_retries": "0", "retry_timeout": "1s"}


@pytest.fixture
def uri(s3: Become, tmp_path: Path) -> str:
    return f"s3://bucket/{tmp_path.name}/samples"


@pytest.fixture
def clock() -> list[float]:
    return [1e9]


@pytest.fixture
def lock_of(uri: str, clock: list[float]) -> Callable[..., ExpiringLock]:
    """A lock of the store for a process on another host, on a made-up clock."""

    def make(pid: int, host: str = "node1") -> ExpiringLock:
        holder = Holder(host=host, pid=pid, workspace=f"/data/{pid}")
        return ExpiringLock(ObjectPlace(uri), holder, lambda: clock[0])

    return make


def test_a_second_writer_is_refused_with_the_name_of_the_first(
    lock_of: Callable[..., ExpiringLock], uri: str
) -> None:
    lock_of(1).take()
    holder = "process 1 on node1 \\(workspace /data/1\\)"
    way_out = "wait for it, stop it, or take another --store"
    with pytest.raises(WorkspaceError, match=f"store {uri} is in use by {holder}: {way_out}"):
        lock_of(2).take()


def test_a_lock_ends_with_its_writer(lock_of: Callable[..., ExpiringLock]) -> None:
    first = lock_of(1)
    first.take()
    first.end()
    lock_of(2).take()


def test_a_lock_of_a_killed_writer_ends_by_itself(
    lock_of: Callable[..., ExpiringLock], clock: list[float]
) -> None:
    first = lock_of(1)
    first.take()
    clock[0] += LOCK_S - 1
    first.renew()
    clock[0] += LOCK_S - 1
    with pytest.raises(WorkspaceError, match="in use by process 1"):
        lock_of(2).take()
    clock[0] += 2
    lock_of(2).take()
    with pytest.raises(WorkspaceError, match="another process has written"):
        first.renew()


def test_a_writer_that_died_on_this_host_is_not_waited_for(
    lock_of: Callable[..., ExpiringLock],
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    here = Holder.here().host
    lock_of(ended.pid, here).take()
    lock_of(os.getpid(), here).take()
    with pytest.raises(WorkspaceError, match=f"in use by process {os.getpid()}"):
        lock_of(2).take()


def test_a_writer_renews_its_lock_while_it_lives(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_samples: pa.Table
) -> None:
    monkeypatch.setattr(lock_module, "RENEW_S", 0.01)
    monkeypatch.setattr(lock_module, "CLEAN_EVERY", 2)
    with SampleStore.writing(uri, tmp_path / "one") as store:
        store.append([cpu_samples])
        table = ObjectPlace(f"{uri}/_lock")
        while lock_module.DeltaLog.load(table).version < 6:  # type: ignore[union-attr]
            pass
        with (
            pytest.raises(WorkspaceError, match=f"workspace {tmp_path / 'one'}"),
            SampleStore.writing(uri, tmp_path / "two"),
        ):
            pass
    with SampleStore.writing(uri, tmp_path / "two") as store:
        assert len(store.read()) == len(cpu_samples)


def test_compaction_keeps_the_rows(
    uri: str, cpu_samples: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "COMPACT_FILES", 3)
    store = SampleStore.open(uri, create=True)
    for start in range(0, 20, 4):
        store.append([cpu_samples.slice(start, 4)])
    read = SampleStore.open(uri, create=False).read()
    assert read.equals(cpu_samples.slice(0, 20).sort_by("cell_id"))


@pytest.mark.parametrize("mode", ["failing", "silent"])
def test_a_store_that_does_not_answer_is_one_line_and_nothing_is_lost(
    uri: str, s3: Become, cpu_samples: pa.Table, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(place_module, "CLIENT_OPTIONS", SHORT)
    store = SampleStore.open(uri, create=True)
    store.append([cpu_samples.slice(0, 4)])
    s3(mode)
    with pytest.raises(UnavailableError, match=f"sample store {uri}: ") as caught:
        store.append([cpu_samples.slice(0, 8)])
    assert len(str(caught.value).splitlines()) == 1
    s3("up")
    assert len(store.append([cpu_samples.slice(0, 8)])) == 4
    assert len(store.read()) == 8


def test_a_command_on_a_store_that_is_down_ends_with_one_line(
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    coordinator: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    monkeypatch.setattr(place_module, "CLIENT_OPTIONS", SHORT)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:1")
    table = Path(__file__).parents[1] / "before" / "kernels.parquet"
    for command in (["status"], ["train"], ["import", table]):
        ended = coordinator(*command, "--workspace", tmp_path, "--store", uri)
        assert (ended.returncode, ended.stdout) == (2, "")
        (line,) = ended.stderr.strip().splitlines()
        assert line.startswith(f"error: sample store {uri}: ")
        assert "secret" not in line
