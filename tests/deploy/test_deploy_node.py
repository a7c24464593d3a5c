"""deploy/node.sh: Ray on one node, with a stand-in for Ray that only stays there."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
"""Of linux/prctl.h."""
RAY = """#!/bin/bash
said=$(dirname "$0")/refuses
[[ -e $said ]] && { cat "$said"; exit 1; }
echo "auth=$RAY_AUTH_MODE drain=$RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S options=$*"
echo "Ray runtime started."
sleep 60
"""
PYTHON = """#!/bin/bash
[[ -e $(dirname "$0")/differs ]] && { echo "error: 1 packages differ" >&2; exit 1; }
exit 0
"""


class Node:
    """A checkout of its own, with what the script reads of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / ".venv" / "bin"
        self.token = folder / ".ray" / "auth_token"
        self.bin.mkdir(parents=True)
        self.token.parent.mkdir()
        self.token.write_text("0" * 64)
        self.token.chmod(0o600)
        (folder / "deploy").mkdir()
        shutil.copy(ROOT / "deploy" / "node.sh", folder / "deploy")
        for name, text in (("ray", RAY), ("python", PYTHON)):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Call the script; its address is 127.0.0.2 unless the environment says something else."""
        known = {"HOME": str(self.folder), "PATH": os.environ["PATH"], "NODE_IP": "127.0.0.2"}
        return subprocess.run(
            ["deploy/node.sh", *arguments],
            cwd=self.folder,
            env=known | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def processes(self) -> list[str]:
        """The command lines of what runs here as Ray."""
        found: list[str] = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = file.read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if f"{self.bin}/ray start" in line:
                found.append(line)
        return found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "node")
    yield node
    node.run("ray", "stop", NODE_IP="")


def test_starts_in_the_background_with_the_token_on(node: Node) -> None:
    result = node.run("ray", "start", "--head", "--port=6379")
    assert result.returncode == 0, result.stderr
    (line,) = node.processes()
    assert "start --block --node-ip-address=127.0.0.2 --head --port=6379 " in line
    log = node.folder / ".local/state/gemmcast/ray-127.0.0.2.log"
    assert log.read_text().startswith("auth=token drain=0 options=start --block")


def test_address_is_the_one_that_ssh_reached(node: Node) -> None:
    node.run("ray", "start", "--head", NODE_IP="", SSH_CONNECTION="10.0.0.1 40000 127.0.0.3 22")
    assert "--node-ip-address=127.0.0.3 " in node.processes()[0]


def test_is_not_started_twice(node: Node) -> None:
    node.run("ray", "start", "--head")
    result = node.run("ray", "start", "--head")
    assert result.returncode == 2
    assert "Ray runs here already" in result.stderr
    assert len(node.processes()) == 1


def test_stop_ends_this_nodes_ray_alone(node: Node, tmp_path: Path) -> None:
    other = Node(tmp_path / "other")
    other.run("ray", "start", "--head")
    node.run("ray", "start", "--head")
    node.run("ray", "start", "--address=127.0.0.2:6379", NODE_IP="127.0.0.3")
    try:
        result = node.run("ray", "stop")
        assert (result.returncode, result.stdout.count("Ray has ended")) == (0, 1)
        (left,) = node.processes()
        assert "--node-ip-address=127.0.0.3 " in left
        assert len(other.processes()) == 1
    finally:
        other.run("ray", "stop")


def test_stop_without_an_address_ends_all_of_this_checkout(node: Node) -> None:
    for address in ("127.0.0.2", "127.0.0.3"):
        node.run("ray", "start", "--head", NODE_IP=address)
    assert node.run("ray", "stop", NODE_IP="").returncode == 0
    assert node.processes() == []


@pytest.fixture
def no_init() -> Iterator[None]:
    """Orphans become ours, and nobody waits for them, as in a container without an init."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.usefixtures("no_init")
def test_stop_does_not_wait_for_whoever_should_look_at_what_has_ended(node: Node) -> None:
    node.run("ray", "start", "--head")
    result = node.run("ray", "stop", NODE_STOP_LIMIT_S="1000")
    assert result.stdout.startswith("Ray has ended (process ")
    group = int(result.stdout.split()[-1].rstrip(")"))
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)


def test_stop_where_nothing_runs_is_no_failure(node: Node) -> None:
    result = node.run("ray", "stop")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Usage: ray start\n\nError: No such option: --nonsense\n\n", "No such option: --nonsense"),
        (
            "Traceback (most recent call last):\nray.exceptions.AuthenticationError: RPC error: "
            "InvalidAuthToken: Authentication token is missing or incorrect. Ensure that\n",
            "the head has another token: copy the head's to ",
        ),
        (
            "Traceback (most recent call last):\nRuntimeError: Failed to connect to GCS. Last\n",
            "no head answers there: start the head first",
        ),
    ],
)
def test_why_ray_does_not_start_is_said_in_one_line(node: Node, said: str, reason: str) -> None:
    (node.bin / "refuses").write_text(said)
    result = node.run("ray", "start", "--nonsense")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: Ray did not start at 127.0.0.2: ")
    assert reason in line
    log = node.folder / ".local/state/gemmcast/ray-127.0.0.2.log"
    assert line.endswith(f"; its log is {log}")
    assert log.read_text() == said


def test_packages_that_differ_keep_ray_from_starting(node: Node) -> None:
    (node.bin / "differs").touch()
    result = node.run("ray", "start", "--head")
    assert (result.returncode, result.stderr) == (2, "error: 1 packages differ\n")
    assert node.processes() == []


@pytest.mark.parametrize(("mode", "rule"), [(None, "missing or empty"), (0o644, "open to others")])
def test_token_must_be_there_and_closed(node: Node, mode: int | None, rule: str) -> None:
    if mode is None:
        node.token.unlink()
    else:
        node.token.chmod(mode)
    result = node.run("ray", "start", "--head")
    assert result.returncode == 2
    assert rule in result.stderr
    assert node.processes() == []


def test_address_must_be_known_at_a_console(node: Node) -> None:
    result = node.run("ray", "start", "--head", NODE_IP="")
    assert result.returncode == 2
    assert "set NODE_IP" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["start"], ["ray", "start"], ["ray", "restart"]])
def test_unknown_command_says_what_there_is(node: Node, arguments: list[str]) -> None:
    result = node.run(*arguments)
    assert result.returncode == 2
    assert "say check, ray start OPTIONS or ray stop" in result.stderr
