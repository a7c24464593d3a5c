"""What Ray gets of the project, and where its sockets may lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from pathspec import PathSpec

from coordinator.fleet import shipping
from coordinator.fleet.connection import connect
from coordinator.fleet.shipping import MAX_DIRECTORY, check_temporary_directory, working_directory
from gemmcast import models
from gemmcast.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
# the name that Ray gives to its kind of patterns
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def shipped(root: Path) -> Iterator[str]:
    """As Ray does it: a folder that is left out is not entered, and the root is a folder, too."""
    excludes = working_directory()["excludes"]
    assert isinstance(excludes, list)
    patterns = PathSpec.from_lines("gitwildmatch", excludes)
    folders = [root]
    while folders:
        folder = folders.pop()
        if patterns.match_file(str(folder.relative_to(root))):
            continue
        for path in folder.iterdir():
            if path.is_dir():
                folders.append(path)
            elif not patterns.match_file(str(path.relative_to(root))):
                yield path.relative_to(root).as_posix()


def test_sources_are_shipped_and_data_are_not(tmp_path: Path) -> None:
    wanted = [
        "agent/actor.py",
        "agent/kernels/cutlass/entry.h",
        "coordinator/plan/known_devices.json",
        "gemmcast/models/default.onnx",
        "gemmcast/models/default.json",
        "my kernels/fast.toml",
        "my kernels/fast.cu",
        "LICENSE",
    ]
    unwanted = [
        "my data/sweep.parquet",
        "weights.bin",
        "model.onnx",
        "my models/gemmcast/models/large.onnx",
        "run 7/samples/part-0.snappy.parquet",
        "run 7/registry/mlflow.db",
        ".venv/lib/site.py",
        ".git/config",
        "tests/test_imports.py",
        "datasets/plans/large.toml",
    ]
    for name in [*wanted, *unwanted]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sorted(shipped(tmp_path)) == sorted(wanted)


def test_every_module_of_an_agent_is_shipped() -> None:
    packages = ("agent", "coordinator", "costmodel", "gemmcast", "registry")
    files = {path for package in packages for path in (ROOT / package).rglob("*.py")}
    files.add(models.path())
    assert {path.relative_to(ROOT).as_posix() for path in files} <= set(shipped(ROOT))


def test_what_ray_does_not_ship_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a message from Ray: the cluster is not to blame."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("Package size (600.00MiB) exceeds the maximum size of 512.00MiB.")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InputError, match=r"holds more sources than Ray ships .*600.00MiB"):
        connect("127.0.0.1:1")


def test_a_long_directory_for_temporary_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + (MAX_DIRECTORY - 1) * "x")
    check_temporary_directory()
    monkeypatch.setenv("RAY_TMPDIR", "/" + MAX_DIRECTORY * "x")
    with pytest.raises(InputError, match=r"RAY_TMPDIR = .* is too long for Ray's sockets"):
        check_temporary_directory()
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(shipping.tempfile, "gettempdir", lambda: "/" + MAX_DIRECTORY * "x")
    with pytest.raises(InputError, match=r"TMPDIR = .*set RAY_TMPDIR=/tmp"):
        check_temporary_directory()
