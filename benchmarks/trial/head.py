"""A Ray head of its own on loopback, and the processes of this host, for trials of a fleet.

Started and talked to by `python -m ray.scripts.scripts`, so no `ray` need be on the PATH. Its
processes are known by its token, which no other process has. Knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic, sleep

from coordinator.fleet.shipping import working_directory
from gemmcast.errors import GemmcastError

RAY = (sys.executable, "-m", "ray.scripts.scripts")
CALL_LIMIT_S = 120.0
"""One call of it: ten times what it takes on a host that has nothing else to do."""
STOP_LIMIT_S = 10.0
LOOK_S = 0.2
JOB_STATUSES = ("SUCCEEDED", "FAILED", "STOPPED", "RUNNING", "PENDING")


class TrialError(GemmcastError):
    """Something did not happen in time."""


@dataclass(frozen=True)
class Child:
    """A measuring child, as its command line shows it."""

    pid: int
    agent_pid: int
    agent: str


class Head:
    """A Ray head of its own on loopback, with a token that only its processes have."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(32)
        self._port, self._dashboard = _free_port(), _free_port()
        # Ray's sockets need a short path.
        self._directory = Path(mkdtemp(prefix="trial-", dir="/tmp"))
        self.address = f"127.0.0.1:{self._port}"
        """For nodes, and for runs from outside a job."""
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            # A busy host may take its time to start a node.
            "RAY_raylet_start_wait_time_s": "100",
        }
        """With the token."""

    def start(self, *more: str) -> None:
        """Start it in the background, with more options of `ray start`."""
        options = [
            f"--port={self._port}",
            "--node-ip-address=127.0.0.1",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self._dashboard}",
            f"--dashboard-agent-listen-port={_free_port()}",
            f"--temp-dir={self._directory}",
            "--object-store-memory=400000000",
            "--disable-usage-stats",
        ]
        self._ray("start", "--head", *options, *more)

    def join(self) -> None:
        """One more node with one CPU, on this host."""
        options = [
            f"--address={self.address}",
            "--num-cpus=1",
            "--object-store-memory=100000000",
            f"--dashboard-agent-listen-port={_free_port()}",
            "--disable-usage-stats",
        ]
        self._ray("start", *options)

    def raylets(self) -> list[int]:
        """The process of each node, in the order in which they were started."""
        pids = [pid for pid in self.pids() if arguments_of(pid)[0].endswith("raylet/raylet")]
        return sorted(pids)

    def submit(self, name: str, words: Sequence[str]) -> None:
        """Submit a job from these sources; again while the head is only about to take jobs."""
        environment = json.dumps(working_directory())
        options = ["--no-wait", "--submission-id", name, "--runtime-env-json", environment]
        deadline_s = monotonic() + CALL_LIMIT_S
        while True:
            try:
                self._ray("job", "submit", *options, "--", *words)
                return
            except TrialError:
                if monotonic() > deadline_s:
                    raise
                sleep(1.0)

    def log(self, name: str) -> str:
        """What a job has printed."""
        return self._ray("job", "logs", name)

    def status(self, name: str) -> str:
        """`RUNNING`, `SUCCEEDED`, `FAILED`, ..."""
        said = self._ray("job", "status", name).upper()
        return next((status for status in JOB_STATUSES if status in said), "UNKNOWN")

    def stop(self) -> list[str]:
        """End its processes, and no others; returns what is left."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            wait_until(lambda: not self.pids(), STOP_LIMIT_S)
        shutil.rmtree(self._directory, ignore_errors=True)
        return [words_of(pid) for pid in self.pids()]

    def pids(self) -> list[int]:
        """Every process that has the token."""
        mark = f"RAY_AUTH_TOKEN={self._token}".encode()
        return [pid for pid in process_ids() if mark in _read(pid, "environ")]

    def _ray(self, *words: str) -> str:
        env = {**self.env, "RAY_ADDRESS": f"http://127.0.0.1:{self._dashboard}"}
        if words[0] == "start":
            del env["RAY_ADDRESS"]
        limited = ["timeout", str(CALL_LIMIT_S)]
        command = [*limited, *RAY, *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            said = last_lines(done.stdout + done.stderr)
            raise TrialError(f"ray {' '.join(words[:2])} ended with {done.returncode}: {said}")
        return done.stdout


def children_of(workspace: Path) -> dict[str, Child]:
    """Agent -> its child: `... -m agent.child FD PARENT AGENT MODEL_DIR`, of a workspace."""
    children = {}
    for pid in process_ids():
        words = arguments_of(pid)
        if "agent.child" in words and words[-1].startswith(str(workspace)):
            children[words[-2]] = Child(pid, int(words[-3]), words[-2])
    return children


def last_lines(text: str) -> str:
    """The last three lines of an output, as one."""
    return " | ".join(text.strip().splitlines()[-3:])


def wait_until(is_so: Callable[[], bool], limit_s: float) -> bool:
    """Whether it was so within the limit."""
    deadline_s = monotonic() + limit_s
    while not is_so():
        if monotonic() > deadline_s:
            return False
        sleep(LOOK_S)
    return True


def process_ids() -> list[int]:
    """Of all processes of this host."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty where it has ended or is another user's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def arguments_of(pid: int) -> list[str]:
    """The command line of a process; one empty word where it has ended."""
    return _read(pid, "cmdline").decode(errors="replace").rstrip("\0").split("\0")


def words_of(pid: int) -> str:
    """The command line of a process, for people."""
    return " ".join(arguments_of(pid))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
