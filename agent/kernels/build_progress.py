"""How far a build of kernels is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

PARTS: Final = 20
"""Lines where there is no terminal."""


@contextmanager
def build_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, else a line for each twentieth.

    Args:
        label: what is built.
    """
    if not sys.stderr.isatty():
        said = -1

        def say(done: int, total: int) -> None:
            """Print a line, if one is due."""
            nonlocal said
            part = done * PARTS // total if total else PARTS
            if part > said:
                said = part
                print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, markup=False)) as bar:
        task = bar.add_task(label, total=None)

        def move(done: int, total: int) -> None:
            """Move the bar."""
            bar.update(task, completed=done, total=total)

        yield move
