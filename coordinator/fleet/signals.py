"""SIGINT and SIGTERM during a run: the first asks it to end, the second interrupts it.

Before a run measures there is nothing to commit, and Ray takes seconds to start: a signal then ends
the process at once, and all processes that it has started. Outside a run gemmcast/program.py
decides.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gemmcast.program import INTERRUPTED, SIGNALS, interrupt_at_once, leave


class Stop:
    """Whether a signal has come; call it to look."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        return self._event.is_set()

    def end_at_once(self) -> None:
        """From here on a signal ends this process and those that it has started."""
        for number in SIGNALS:
            signal.signal(number, _end_all)

    def listen(self) -> None:
        """From here on a signal sets the flag, and a second one raises KeyboardInterrupt."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()


@contextmanager
def stopping() -> Iterator[Stop]:
    """Until `listen` is called a signal ends the process; afterwards it sets the flag."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stop = Stop()
    stop.end_at_once()
    try:
        yield stop
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def leave_interrupted() -> NoReturn:
    """End this process and those that it has started; everything must be committed."""
    end_descendants()
    leave(INTERRUPTED)


def end_descendants() -> None:
    """Kill every process that this one, or one of those, has started.

    The processes of a Ray cluster that started here would stay for seconds: each looks now and then
    whether the one above it is still there.
    """
    for pid in _descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _end_all(_number: int, _frame: FrameType | None) -> None:
    end_descendants()
    interrupt_at_once()


def _descendants(ancestor: int) -> list[int]:
    """Ids of the processes below one, those above before those below them."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # Behind the name in parentheses: state, parent, ...
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(path.parent.name))
    below: list[int] = []
    level = children[ancestor]
    while level:
        below += level
        level = [child for pid in level for child in children[pid]]
    return below
