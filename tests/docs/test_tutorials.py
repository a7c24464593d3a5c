"""The pages of docs/start/: their commands run, and print what stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "start").glob("*.md"))
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d[\d.,]*")
PROGRAMS = ("benchmarks", "coordinator", "agent", "costmodel", "registry")
FILES = ("datasets", "examples")


@dataclass
class Step:
    """A command, or Python lines, and the lines that the page says they print."""

    command: list[str]
    printed: list[str] = field(default_factory=list)


def steps_of(page: Path) -> Iterator[Step]:
    """The page's steps, in order; each is run in the folder that the one before left."""
    for language, block in BLOCK.findall(page.read_text()):
        if language == "python":
            yield Step([sys.executable, "-c", block])
            continue
        yield from _commands(block.splitlines())


def _commands(lines: list[str]) -> Iterator[Step]:
    step: Step | None = None
    for line in lines:
        if line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(_with_this_python(shlex.split(line[2:])))
        elif step is not None:
            step.printed.append(line)
    if step is not None:
        yield step


def _with_this_python(command: list[str]) -> list[str]:
    program, *arguments = command
    if program == "python":
        return [sys.executable, *arguments]
    assert program == "gemmcast", command
    return [sys.executable, "-m", "gemmcast", *arguments]


def shape_of(line: str) -> str:
    """The line without its numbers, which another model or another machine changes."""
    return " ".join(NUMBER.sub("#", line).split())


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that looks like a clone: what the commands write stays out of this one."""
    for name in PROGRAMS:
        (tmp_path / name).symlink_to(ROOT / name)
    for name in FILES:
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_print_what_the_page_says(page: Path, clone: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "300"}
    steps = list(steps_of(page))
    assert steps, f"{page.name} has no command that runs"
    for step in steps:
        done = subprocess.run(
            step.command, cwd=clone, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        printed = {shape_of(line) for line in done.stdout.splitlines()}
        missing = [line for line in step.printed if shape_of(line) not in printed]
        assert not missing, f"{step.command}: not printed: {missing}"
