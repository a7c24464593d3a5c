"""What the coordinator's tests share: a fake fleet, a store, and an object store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from coordinator.samples.store import SampleStore
from gemmcast.device import Device
from tests.coordinator.fake_fleet import FakeAgent, FakeFleet, Measure

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """Where fake_s3.py answers."""
    command = [sys.executable, str(FOLDER / "fake_s3.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield int(process.stdout.readline().removeprefix("up "))
        process.kill()


@pytest.fixture
def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """An object store that s3:// names; call it with `up`, `failing` or `silent`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    def become(mode: str) -> None:
        urlopen(Request(f"http://127.0.0.1:{s3_port}/-/{mode}", method="PUT"), timeout=60).close()

    yield become
    become("up")


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore.open(tmp_path / "samples", create=True)


@pytest.fixture
def fleet(measure: Measure, cpu: Device) -> Callable[..., FakeFleet]:
    """A fleet of CPUs of one kind, unless agents are given."""

    def make(agents: dict[str, FakeAgent] | int = 1, **options: Any) -> FakeFleet:
        if isinstance(agents, int):
            agents = {f"node{i}/cpu": FakeAgent(cpu) for i in range(agents)}
        return FakeFleet(measure, agents, **options)

    return make
