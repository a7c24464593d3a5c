"""Nodes of a real cluster: with labels, and with GPUs that they declare and do not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from coordinator.samples.store import SampleStore
from tests.cluster.conftest import head_options

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(900)]
Start = Callable[..., Any]
CELLS = 20


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head in a region of its own."""
    options = head_options(labels={"region": "us"})
    made = Cluster(initialize_head=True, head_node_args=options)
    yield made
    made.shutdown()


def agents_of(workspace: Path) -> set[str]:
    table = SampleStore.open(workspace / "samples", create=False).read()
    assert len(set(table["cell_id"].to_pylist())) == len(table) == CELLS
    return set(table["agent"].to_pylist())


def run_with(start: Start, nodes: Cluster, devices: str) -> dict[str, Any]:
    run = start("--address", nodes.address, "--without-token", cells=CELLS, devices=devices)
    result: dict[str, Any] = run.result()
    return result


def test_only_nodes_with_the_labels_measure(nodes: Cluster, start: Start, workspace: Path) -> None:
    there = nodes.add_node(num_cpus=1, labels={"region": "eu"})
    result = run_with(start, nodes, 'labels = { region = ["eu", "fr"] }')
    assert (result["complete"], result["agents"]) == (True, 1)
    (agent,) = agents_of(workspace)
    assert agent.rpartition("/")[0].endswith(f"-{there.node_id[:6]}")


def test_gpus_that_are_declared_and_not_there_get_no_cells(
    nodes: Cluster, start: Start, workspace: Path
) -> None:
    nodes.add_node(num_cpus=1, num_gpus=2)
    result = run_with(start, nodes, 'kind = "auto"')
    assert result["complete"]
    assert {agent.rpartition("/")[2] for agent in agents_of(workspace)} == {"cpu"}
