"""Signals: the first asks a run to end, the second interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.fleet.signals import stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_a_flag_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopping() as stop:
        stop.listen()
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


STARTER = """
import subprocess, sys
from coordinator.fleet.signals import leave_interrupted
child = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); input()"
pipe = subprocess.PIPE
process = subprocess.Popen([sys.executable, "-c", child], stdin=pipe, stdout=pipe)
print(process.pid, process.stdout.readline().decode().strip(), flush=True)
leave_interrupted()
"""
"""A process with a child and a grandchild, which ends as a run that was interrupted."""


def test_an_interrupted_run_leaves_no_process_behind(python_env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTER], env=python_env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 130, done.stderr
    child, grandchild = map(int, done.stdout.split())
    for pid in (child, grandchild):
        assert is_dead(pid)


def is_dead(pid: int) -> bool:
    """A zombie is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
