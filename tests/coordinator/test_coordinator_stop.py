"""Signals: the first asks for an end, the second takes it."""

from __future__ import annotations

import os
import signal

import pytest

from coordinator.fleet.session import stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_and_the_next_an_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopping() as stop:
        stop.listen()
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
