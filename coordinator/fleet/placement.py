"""Which agents a node of the cluster should have: one per device.

Knows what Ray says of a node, and nothing of actors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

from coordinator.plan.schema import Devices, Recorded


class Node(TypedDict):
    """What ray.nodes() says of a node, as far as it is used here."""

    NodeID: str
    NodeManagerHostname: str
    Alive: bool
    Resources: dict[str, float]


@dataclass(frozen=True, slots=True)
class Placement:
    """An agent to start on a node."""

    agent: str
    """HOST-NODE/DEVICE: a node that comes back has another id, and its agents other names."""
    node_id: str
    kind: str
    gpus: int
    recorded: Recorded | None = None
    """What it answers from, if it replays."""


def placements(node: Node, devices: Devices, here: str) -> Iterator[Placement]:
    """The agents that a node should have.

    Args:
        here: id of the coordinator's own node.
    """
    node_id = node["NodeID"]
    prefix = f"{node['NodeManagerHostname']}-{node_id[:6]}"
    gpus = int(node["Resources"].get("GPU", 0))
    if devices.kind == "replay":
        recordings = devices.recordings() if node_id == here else ()
        for i, recorded in enumerate(recordings):
            yield Placement(f"{prefix}/replay{i}", node_id, "replay", 0, recorded)
    elif devices.kind == "cpu" or (devices.kind == "auto" and not gpus):
        yield Placement(f"{prefix}/cpu", node_id, "cpu", gpus=0)
    else:
        for i in range(gpus):
            yield Placement(f"{prefix}/gpu{i}", node_id, "cuda", gpus=1)
