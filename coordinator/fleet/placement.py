"""Which agents a node of the cluster should have: one per device.

    GPUs of a node = whole ones that Ray counts, of NVIDIA, at most `gpus_per_node`

A node that has declared half a GPU has none that can be measured alone. AMD's and Intel's GPUs
count as `GPU` too; Ray says of which maker they are by the node's label or resource. Knows what Ray
says of a node, and nothing of actors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

from coordinator.plan.schema import Devices, Plan, Recorded

ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"
ACCELERATOR_RESOURCE: Final = "accelerator_type:"
OTHER_MAKERS: Final = ("AMD-", "Intel-", "MXC", "Apple-")
"""How Ray's names of GPUs begin that CUDA does not run on."""


class Node(TypedDict):
    """What ray.nodes() says of a node, as far as it is used here."""

    NodeID: str
    NodeManagerHostname: str
    Alive: bool
    Resources: dict[str, float]
    Labels: NotRequired[dict[str, str]]


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


def placements(node: Node, plan: Plan, here: str) -> Iterator[Placement]:
    """The agents that a node should have.

    Args:
        here: id of the coordinator's own node.
    """
    devices = plan.devices
    node_id = node["NodeID"]
    prefix = f"{node['NodeManagerHostname']}-{node_id[:6]}"
    if devices.kind == "replay":
        recordings = devices.recordings() if node_id == here else ()
        for i, recorded in enumerate(recordings):
            yield Placement(f"{prefix}/replay{i}", node_id, "replay", 0, recorded)
        return
    kind, count = devices_of(node, plan)
    if kind == "cpu" and count:
        yield Placement(f"{prefix}/cpu", node_id, "cpu", gpus=0)
        return
    for i in range(count):
        yield Placement(f"{prefix}/gpu{i}", node_id, "cuda", gpus=1)


def devices_of(node: Node, plan: Plan) -> tuple[str, int]:
    """The kind of device of a node that takes part, and how many of them; 0: it takes no part."""
    kind = plan.devices.kind
    gpus = gpus_of(node)
    if kind == "cpu" or (kind == "auto" and not gpus):
        return "cpu", int(has_labels(node, plan.devices))
    if not has_labels(node, plan.devices):
        return "cuda", 0
    most = plan.politeness.gpus_per_node
    return "cuda", gpus if most is None else min(gpus, most)


def gpus_of(node: Node) -> int:
    """The GPUs of a node that CUDA runs on."""
    gpus = int(node["Resources"].get("GPU", 0))
    return 0 if any(name.startswith(OTHER_MAKERS) for name in _accelerators(node)) else gpus


def has_labels(node: Node, devices: Devices) -> bool:
    """Whether a node has one of the values of each label that the plan names."""
    labels = node.get("Labels", {})
    for name, wanted in devices.labels.items():
        values = (wanted,) if isinstance(wanted, str) else wanted
        if not _is_one_of(labels.get(name), values):
            return False
    return True


def why_none(nodes: Sequence[Node], plan: Plan) -> str | None:
    """Why none of the nodes takes part, for people; None: one does, or there is none."""
    if not nodes or plan.devices.kind == "replay":
        return None
    if any(devices_of(node, plan)[1] for node in nodes):
        return None
    fitting = [node for node in nodes if has_labels(node, plan.devices)]
    if fitting:
        return f"none of {len(fitting)} nodes has a device of kind {plan.devices.kind}"
    wanted = ", ".join(f"{name} = {value!r}" for name, value in plan.devices.labels.items())
    there = "; ".join(_values_there(name, nodes) for name in plan.devices.labels)
    return f"no node has the labels {wanted} (the nodes have {there})"


def _values_there(name: str, nodes: Sequence[Node]) -> str:
    values = {node.get("Labels", {}).get(name) for node in nodes}
    known = sorted(value for value in values if value is not None)
    return f"{name} = {', '.join(known)}" if known else f"no {name}"


def _is_one_of(value: str | None, wanted: Sequence[str]) -> bool:
    refused = [one.removeprefix("!") for one in wanted if one.startswith("!")]
    if value in refused:
        return False
    return len(refused) == len(wanted) or value in wanted


def _accelerators(node: Node) -> list[str]:
    """Types of a node's accelerators, by its label or else by its resources."""
    label = node.get("Labels", {}).get(ACCELERATOR_LABEL)
    if label is not None:
        return [label]
    names = node["Resources"]
    return [
        name.removeprefix(ACCELERATOR_RESOURCE)
        for name in names
        if name.startswith(ACCELERATOR_RESOURCE)
    ]
