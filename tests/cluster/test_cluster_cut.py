"""A node whose network is cut in the middle of a run, and healed: `pytest -m soak` runs it.

Head and node are Ray nodes of this machine, each in a network namespace of its own; one pair of
virtual interfaces is the cable between them. Skipped where namespaces are not permitted.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import pytest

from tests.cluster.conftest import LIMIT_S, RAY, Run, without_ray

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(1200)]
Start = Callable[..., Run]
PORT = 6379
SURVIVED_S = 20.0
"""Ray takes the node for alive still."""
DEADLY_S = 120.0
"""Ray has declared it dead, and never takes it back as it is."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class Host:
    """A namespace with an address, and the Ray node in it."""

    name: str
    address: str
    directory: Path
    env: dict[str, str]

    @property
    def inside(self) -> list[str]:
        """What a command begins with that runs there."""
        return ["ip", "netns", "exec", self.name]

    def start(self, *options: str) -> None:
        """`ray start`; its processes stay."""
        words = ["start", f"--node-ip-address={self.address}", "--num-cpus=1", *options]
        done = subprocess.run(
            [*self.inside, str(RAY), *words, "--disable-usage-stats"],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def pids(self) -> list[int]:
        """All processes of the namespace."""
        words = ["ip", "netns", "pids", self.name]
        return [int(pid) for pid in subprocess.check_output(words, text=True).split()]

    def agents(self) -> list[int]:
        """Those that are agents, or their children."""
        return [pid for pid in self.pids() if is_agent(pid)]

    def end(self) -> None:
        """Kill what runs there, and remove it."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        ip("netns", "delete", self.name)


@dataclass(frozen=True)
class Pair:
    """A head and a node, with a cable between them."""

    head: Host
    node: Host

    @property
    def address(self) -> str:
        return f"{self.head.address}:{PORT}"

    def join(self) -> None:
        """Start Ray on the node, for the first time or again."""
        self.node.start(f"--address={self.address}")

    def cut(self, seconds: float) -> None:
        """Nothing passes for some time."""
        ip("-n", self.node.name, "link", "set", "cable", "down")
        sleep(seconds)
        ip("-n", self.node.name, "link", "set", "cable", "up")


def is_agent(pid: int) -> bool:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"ray::Agent" in words or b"agent.child" in words
    return False


def host(address: str, token: str) -> Host:
    """A namespace with the loopback alone."""
    name = f"gemmcast-{secrets.token_hex(3)}"
    env = {**without_ray(os.environ), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    ip("netns", "add", name)
    ip("-n", name, "link", "set", "lo", "up")
    # Ray's sockets need a short path.
    return Host(name, address, Path("/tmp") / name, env)


@pytest.fixture
def pair() -> Iterator[Pair]:
    token = secrets.token_hex(32)
    with ExitStack() as undone:
        try:
            made = Pair(host("10.231.7.1", token), host("10.231.7.2", token))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("network namespaces are not permitted here")
        for one in (made.head, made.node):
            undone.callback(shutil.rmtree, one.directory, ignore_errors=True)
            undone.callback(one.end)
        ends = ["type", "veth", "peer", "name", "cable", "netns", made.node.name]
        ip("-n", made.head.name, "link", "add", "cable", *ends)
        for one in (made.head, made.node):
            ip("-n", one.name, "address", "add", f"{one.address}/24", "dev", "cable")
            ip("-n", one.name, "link", "set", "cable", "up")
        made.head.start("--head", f"--port={PORT}", f"--temp-dir={made.head.directory}")
        made.join()
        yield made


def start_on(pair: Pair, start: Start, cells: int) -> Run:
    """A run on the head; both nodes measure."""
    run = start("--address", pair.address, env=pair.head.env, cells=cells, inside=pair.head.inside)
    run.wait_until(lambda: len(run.rows()) == 2)
    return run


def test_a_node_that_is_cut_off_for_a_moment_measures_again(pair: Pair, start: Start) -> None:
    run = start_on(pair, start, cells=1000)
    agents = set(run.rows())
    pair.cut(SURVIVED_S)
    rows = run.rows()
    run.wait_until(lambda: all(run.rows()[agent] > rows[agent] for agent in agents))
    run.has_every_cell_once()
    assert set(run.rows()) == agents


def test_a_node_that_was_dead_to_ray_gets_new_agents(pair: Pair, start: Start) -> None:
    # The head measures on meanwhile, on a fast machine thousands.
    run = start_on(pair, start, cells=50_000)
    agents = set(run.rows())
    pair.cut(DEADLY_S)
    # Ray ends there by itself, and the agent with it.
    run.wait_until(lambda: not pair.node.agents())
    pair.join()
    run.wait_until(lambda: len(set(run.rows()) - agents) == 1)
    run.has_no_cell_twice_when_interrupted()
