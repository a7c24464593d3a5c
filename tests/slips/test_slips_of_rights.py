"""Places of another user: one line, and nothing changed; what can be read is read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from list_of_slips import PLAN
from slip import run, tree

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1
NOBODY = 65534
IMPORTED_LATE = (
    "encodings.utf_8_sig",
    "coordinator.demo",
    "coordinator.fleet.trainer",
    "coordinator.progress",
    "coordinator.samples.activity",
    "coordinator.samples.importer",
    "coordinator.samples.formats.t4",
    "costmodel.gate",
    "costmodel.train",
    "gemmcast.predictor",
    "registry.registry",
)
READ_ONLY, UNREADABLE = 0o555, 0o000


@contextmanager
def without_rights(folder: Path, mode: int) -> Iterator[None]:
    """Root, who may do everything, becomes nobody for a while; others lock themselves out."""
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode & 0o444)
    for path in [*reversed(folders), folder]:
        path.chmod(mode)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in [folder, *folders]:
            path.chmod(0o755)


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """What is imported late lies in folders that nobody may read."""
    for name in IMPORTED_LATE:
        import_module(name)


@pytest.fixture
def open_place(template: Path) -> Iterator[Path]:
    """A copy where every user may look: pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        outside = Path(name)
        outside.chmod(0o755)
        folder = outside / "place"
        shutil.copytree(template, folder)
        (folder / "p.toml").write_text(PLAN)
        yield folder


COMMANDS = {
    "coordinator status --workspace {}/ws": True,
    "coordinator train --workspace {}/ws": False,
    "coordinator run {}/p.toml --workspace {}/ws": False,
    "coordinator import {}/p.toml --workspace {}/ws": False,
    "coordinator export {}/d.parquet --workspace {}/ws": False,
    "coordinator report --workspace {}/ws": False,
    "coordinator demo --directory {}/demo": False,
    "registry list --workspace {}/ws": True,
    "registry promote 1 --workspace {}/ws": False,
    "registry export 1 {}/m.onnx --workspace {}/ws": False,
    "gemmcast info --model {}/model.onnx": True,
}
"""Command -> whether it only reads."""


@pytest.mark.parametrize("mode", [READ_ONLY, UNREADABLE], ids=["read-only", "unreadable"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_of_another_user(open_place: Path, command: str, mode: int) -> None:
    words = command.replace("{}", str(open_place)).split()
    before = tree(open_place)
    with without_rights(open_place, mode):
        code, out, err = run(words)
    assert tree(open_place) == before
    if COMMANDS[command] and mode == READ_ONLY:
        assert (code, err) == (0, "")
        return
    assert (code, out) == (2, ""), err
    (line,) = err.splitlines()
    assert line.startswith("error: ")
