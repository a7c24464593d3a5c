"""Real clusters: what listens where, and what one can do without the token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cluster.conftest import RAY, ROOT, Cluster, free_port, running, without_ray

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(900)]
LIMIT_S = 600.0
LISTENERS = """
import ray
import psutil
from coordinator.fleet.connection import EMBEDDED, connect
connect(EMBEDDED)
ray.get(ray.remote(lambda: 1).remote())
session = ray._private.worker._global_node.get_session_dir_path()
processes = {psutil.Process(), *psutil.Process().children(recursive=True)}
for process in psutil.process_iter(["cmdline"]):
    if any(session in word for word in process.info["cmdline"] or ()):
        processes.add(process)
for process in processes:
    try:
        for connection in process.net_connections(kind="tcp"):
            if connection.status == "LISTEN":
                print(process.name(), connection.laddr.ip)
    except psutil.NoSuchProcess:
        pass
"""
PLAN = """
name = "few"
[devices]
kind = "cpu"
[measure]
burst_s = 0.005
[[sweep]]
family = "blas"
kernel = "numpy"
shapes = { sample = 6, min = 16, max = 64 }
knobs = { cpu_threads = [1] }
"""


def run(words: list[str | Path], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=ROOT, env=dict(env), capture_output=True, text=True, timeout=LIMIT_S
    )


def test_everything_of_a_cluster_of_our_own_listens_on_the_loopback() -> None:
    done = run([sys.executable, "-c", LISTENERS], without_ray(os.environ))
    assert done.returncode == 0, done.stderr
    listeners = [line.split() for line in done.stdout.splitlines()]
    names = {name for name, *_ in listeners}
    assert {"gcs_server", "raylet"} <= names
    elsewhere = [one for one in listeners if not one[-1].removeprefix("::ffff:").startswith("127.")]
    assert elsewhere == []


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    with running(Cluster) as made:
        yield made


STRANGERS: dict[str, dict[str, str]] = {
    "no token": {"RAY_AUTH_MODE": "disabled"},
    "a wrong token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
}
READ = "import ray; ray.init(address={address!r}); print(ray.nodes())"


@pytest.mark.parametrize("who", STRANGERS)
def test_a_node_without_the_token_neither_joins_lists_submits_nor_reads(
    guarded: Cluster, who: str, tmp_path: Path
) -> None:
    home = {"HOME": str(tmp_path), "RAY_DISABLE_USAGE_STATS": "1"}
    env = {**without_ray(os.environ), **home, **STRANGERS[who]}
    gcs = f"127.0.0.1:{guarded.gcs}"
    dashboard = f"http://127.0.0.1:{guarded.dashboard}"
    port = f"--dashboard-agent-listen-port={free_port()}"
    proof = tmp_path / "proof"
    attacks: dict[str, list[str | Path]] = {
        "join": [RAY, "start", f"--address={gcs}", port, f"--temp-dir={tmp_path}"],
        "list": [RAY, "list", "nodes", "--address", dashboard],
        "status": [RAY, "status", "--address", gcs],
        "submit": [RAY, "job", "submit", "--address", dashboard, "--", "touch", proof],
        "read": [sys.executable, "-c", READ.format(address=gcs)],
    }
    for name, words in attacks.items():
        done = run(words, env)
        assert done.returncode != 0, (name, done.stdout, done.stderr)
        assert "NodeID" not in done.stdout + done.stderr, name
    assert not proof.exists()
    nodes = run([RAY, "list", "nodes", "--format", "json"], guarded.env)
    assert nodes.stdout.count('"node_id"') == 1, nodes.stdout + nodes.stderr


class OpenCluster(Cluster):
    """Two nodes that ask for no token. The token that is set only marks their processes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.env["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="module")
def unguarded() -> Iterator[OpenCluster]:
    with running(OpenCluster) as made:
        made.join()
        yield made


def test_a_fleet_without_the_token_needs_the_opt_out(
    unguarded: OpenCluster, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    words: list[str | Path] = [sys.executable, "-m", "coordinator", "run", plan, "--no-train"]
    words += ["--workspace", tmp_path / "workspace", "--address", f"127.0.0.1:{unguarded.gcs}"]
    env = {**without_ray(os.environ), "RAY_AUTH_MODE": "disabled"}
    refused = run(words, env)
    assert refused.returncode == 2, refused.stderr
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith("error: --address = '127.0.0.1:")
    assert "2 nodes that ask for no token" in line
    assert "--without-token" in line
    accepted = run([*words, "--without-token"], env)
    assert accepted.returncode == 0, accepted.stderr
    assert "this cluster asks for no token" in accepted.stderr
    assert "6 of 6 cells" in accepted.stdout
