"""A slip: a command that a user gets wrong, and how it must end."""

from __future__ import annotations

import hashlib
import runpy
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from gemmcast.program import run_command

ROOT = Path(__file__).resolve().parents[2]
COMMAND_LINES = {
    "coordinator": "coordinator.cli",
    "registry": "registry.cli",
    "gemmcast": "gemmcast.cli",
    "cutlass": "agent.kernels.cutlass.cli",
    "paper": "benchmarks.paper.__main__",
}
"""Every other program is a script in benchmarks/."""
LOCKS = ("lock", "holder", ".lock")
"""Files that a refused writer may leave: they hold nothing."""

Prepare = Callable[[Path], object]


def nothing(_: Path) -> None:
    """The place stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """One command, run in a folder with a workspace `ws` and a model `model.onnx`."""

    command: str
    """The words, parted by blanks; the first one names the program."""
    says: str
    """A part of its one line."""
    code: int = 2
    prepare: Prepare = nothing
    """Called with the folder before."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For pytest."""
        return self.command[:70]


def write(name: str, content: str | bytes) -> Prepare:
    """A file in the folder."""

    def prepare(folder: Path) -> None:
        """Write it."""
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)

    return prepare


def make(name: str) -> Prepare:
    """A folder in the folder."""
    return lambda folder: (folder / name).mkdir(parents=True)


def damage(pattern: str, content: bytes = b"damaged") -> Prepare:
    """Overwrite the files that fit."""

    def prepare(folder: Path) -> None:
        """Overwrite them."""
        files = list(folder.glob(pattern))
        assert files
        for path in files:
            path.write_bytes(content)

    return prepare


def tree(folder: Path) -> dict[str, str]:
    """Path -> hash of its content, of everything but locks."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in LOCKS:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files[str(path.relative_to(folder))] = digest
        elif path.is_dir():
            files[str(path.relative_to(folder))] = "folder"
    return files


@cache
def _main_of(program: str) -> Callable[..., Any]:
    if program in COMMAND_LINES:
        main: Callable[..., Any] = import_module(COMMAND_LINES[program]).main
        return main
    script = runpy.run_path(str(ROOT / "benchmarks" / f"{program}.py"))["main"]
    return lambda _: run_command(script)


def run(words: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    program, *arguments = words
    main = _main_of(program)
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *arguments])
        code = main(arguments)
    return int(code or 0), out.getvalue(), err.getvalue()
