"""Start and stop the measuring child (agent/child.py), and keep what it printed.

The child is started as `PROGRAM FD PARENT AGENT MODEL_DIR`: the file descriptor of its end of the
pipe and the id of this process are what it reads; agent and model directory are there so that `ps`
shows whose child it is. Its AgentSpec is the first message on the pipe.
Knows nothing of cells.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from agent.awake import AwakeTime
from agent.messages import Ready
from agent.spec import AgentSpec
from gemmcast.device import Device
from gemmcast.errors import GemmcastError

PROGRAM = (sys.executable, "-m", "agent.child")
START_TIMEOUT_S = 300.0
"""Imports, compiled kernels and measured peaks may take this long."""
TICK_S = 0.5
"""Time between two looks at the clock while a child starts."""
OUTPUT_KEPT_BYTES = 400
ROOT = Path(__file__).resolve().parent.parent


class ChildDied(GemmcastError):
    """The measuring process cannot start, or dies under every cell."""


class ChildProcess:
    """At most one running child.

    Args:
        spec: the first message to the child.
        program: the command that starts it, without its arguments.
    """

    def __init__(self, spec: AgentSpec, program: Sequence[str] = PROGRAM) -> None:
        self._spec = spec
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        # Open as long as this object lives, for every child in turn
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._output.close)

    @property
    def pid(self) -> int | None:
        """Process id of the running child."""
        return self._process.pid if self._process else None

    @property
    def pipe(self) -> Connection | None:
        """Our end of the pipe to the running child."""
        return self._pipe

    def start(self) -> Device:
        """Start a child and wait until it can measure.

        Raises:
            ChildDied: it ended, or was not ready in time.
        """
        ours, theirs = Pipe()
        self._output.seek(0)
        self._output.truncate()
        self._process = subprocess.Popen(
            self._command(theirs.fileno()),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=_environment(),
        )
        theirs.close()
        self._pipe = ours
        try:
            ours.send(self._spec)
            return _wait_until_ready(ours)
        except (EOFError, OSError):
            self.stop()
            agent = self._spec.agent
            raise ChildDied(
                f"the measuring process of {agent} did not start: {self.last_output()}"
            ) from None

    def stop(self, grace_s: float = 0.0) -> int | None:
        """End the child, by force after `grace_s`; returns its exit status."""
        if self._process is None:
            return None
        try:
            status = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if self._pipe:
            self._pipe.close()
        self._process = None
        self._pipe = None
        return status

    def last_output(self) -> str:
        """The end of what the child printed."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - OUTPUT_KEPT_BYTES))
        text = self._output.read().decode(errors="replace").strip()
        return text or "it printed nothing"

    def _command(self, fd: int) -> list[str]:
        arguments = [str(fd), str(os.getpid()), self._spec.agent, str(self._spec.model_dir)]
        return [*self._program, *arguments]


def _wait_until_ready(pipe: Connection) -> Device:
    waited = AwakeTime()
    while not pipe.poll(TICK_S):
        if waited.look() > START_TIMEOUT_S:
            raise EOFError
    ready: Ready = pipe.recv()
    return ready.device


def _environment() -> dict[str, str]:
    """Of the child.

    Ray sets OMP_NUM_THREADS=1 in its workers, but the number of BLAS threads is a knob of ours.
    """
    env = dict(os.environ)
    env.pop("OMP_NUM_THREADS", None)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return env
