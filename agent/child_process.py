"""Start and stop the measuring child (agent/child.py), and keep what it printed.

A child that hangs in the kernel can't be killed. It is left alone, and no other one is started
until it has ended: two of them would disturb each other, and the second would hang too.

The child is started as `PROGRAM FD PARENT AGENT MODEL_DIR`: the file descriptor of its end of the
pipe and the id of this process are what it reads; agent and model directory are there so that `ps`
shows whose child it is. Its AgentSpec is the first message on the pipe.
Knows nothing of cells.
"""

from __future__ import annotations

import logging
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

log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-m", "agent.child")
START_TIMEOUT_S = 300.0
"""Imports, compiled kernels and measured peaks may take this long."""
KILL_LIMIT_S = 5.0
"""A child that a kill has not ended after this time hangs in the kernel."""
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
        self._stuck: subprocess.Popen[bytes] | None = None
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

    @property
    def is_stuck(self) -> bool:
        """Whether the last child can't be killed."""
        return self._stuck is not None and self._stuck.poll() is None

    def start(self) -> Device:
        """Start a child and wait until it can measure.

        Raises:
            ChildDied: it ended, or was not ready in time; or the last one can't be killed.
        """
        self._refuse_a_second()
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
        """End the child, by force after `grace_s`; returns its exit status.

        None: there was no child, or it can't be killed.
        """
        if self._process is None:
            return None
        try:
            status: int | None = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            status = self._kill(self._process)
        if self._pipe:
            self._pipe.close()
        self._process = None
        self._pipe = None
        return status

    def _kill(self, process: subprocess.Popen[bytes]) -> int | None:
        process.kill()
        try:
            return process.wait(KILL_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._stuck = process
            text = "the measuring process %d of %s can't be killed: it hangs in the kernel"
            log.error(text, process.pid, self._spec.agent)
            return None

    def _refuse_a_second(self) -> None:
        if self._stuck is None or not self.is_stuck:
            return
        pid, agent = self._stuck.pid, self._spec.agent
        state = "hangs in the kernel and can't be killed"
        raise ChildDied(
            f"the measuring process {pid} of {agent} {state}; {agent} waits for its end"
        )

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
