"""SIGINT and SIGTERM during a run: the first asks it to end, the second interrupts it.

Before a run measures there is nothing to commit, and Ray takes seconds to start: a signal then ends
the process at once. Outside a run gemmcast/program.py decides.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gemmcast.program import SIGNALS, interrupt_at_once


class Stop:
    """Whether a signal has come; call it to look."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        return self._event.is_set()

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
    for number in SIGNALS:
        signal.signal(number, interrupt_at_once)
    try:
        yield Stop()
    finally:
        for number, action in before.items():
            signal.signal(number, action)
