"""Which devices of which nodes take part: what Ray counts, labels, and what is left to others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from coordinator.fleet.cluster import RayFleet
from coordinator.fleet.interface import Ready
from coordinator.fleet.member import Member
from coordinator.fleet.placement import Node, Placement, placements, why_none
from coordinator.plan.schema import Plan
from gemmcast.device import Device
from gemmcast.errors import InputError

MakePlan = Callable[..., Plan]


def node(name: str = "abcdef12", labels: dict[str, str] | None = None, **resources: float) -> Node:
    return Node(
        NodeID=name,
        NodeManagerHostname="host",
        Alive=True,
        Resources=resources,
        Labels=labels or {},
    )


def kinds(of: Node, plan: Plan) -> list[str]:
    return [one.kind for one in placements(of, plan, here="head")]


def test_a_node_that_comes_back_has_agents_of_other_names(make_plan: MakePlan) -> None:
    first, second = [
        [one.agent for one in placements(node(name, GPU=2), make_plan(), here="head")]
        for name in ("abcdef12", "fedcba98")
    ]
    assert first == ["host-abcdef/gpu0", "host-abcdef/gpu1"]
    assert second == ["host-fedcba/gpu0", "host-fedcba/gpu1"]


@pytest.mark.parametrize(
    ("kind", "gpus", "expected"),
    [
        ("auto", 0, ["cpu"]),
        ("auto", 1, ["cuda"]),
        ("auto", 2.5, ["cuda", "cuda"]),
        # Half of a GPU can't be measured alone.
        ("auto", 0.5, ["cpu"]),
        ("cuda", 0.5, []),
        ("cuda", 0, []),
        ("cpu", 1, ["cpu"]),
    ],
)
def test_a_node_has_an_agent_for_each_device_of_the_plan(
    kind: str, gpus: float, expected: Sequence[str], make_plan: MakePlan
) -> None:
    assert kinds(node(GPU=gpus), make_plan(devices={"kind": kind})) == expected


@pytest.mark.parametrize(
    "other",
    [
        node(GPU=8, labels={"ray.io/accelerator-type": "AMD-Instinct-MI300X-OAM"}),
        node(**{"GPU": 8, "accelerator_type:Intel-GPU-Max-1550": 1}),
        node(TPU=4),
    ],
)
def test_gpus_that_cuda_does_not_run_on_get_no_agents(other: Node, make_plan: MakePlan) -> None:
    assert kinds(other, make_plan()) == ["cpu"]
    assert kinds(other, make_plan(devices={"kind": "cuda"})) == []


def test_some_gpus_of_a_node_are_left_to_others(make_plan: MakePlan) -> None:
    plan = make_plan(politeness={"gpus_per_node": 3})
    assert len(kinds(node(GPU=8), plan)) == 3
    assert len(kinds(node(GPU=2), plan)) == 2


@pytest.mark.parametrize(
    ("wanted", "takes_part"),
    [
        ({"region": "eu"}, True),
        ({"region": "us"}, False),
        ({"region": ["us", "eu"]}, True),
        ({"region": "!us"}, True),
        ({"region": "!eu"}, False),
        ({"zone": "a"}, False),
        # A node without the label does not have the value.
        ({"zone": "!a"}, True),
        ({"region": "eu", "ray.io/accelerator-type": "H100"}, True),
        ({"region": "eu", "ray.io/accelerator-type": "A100"}, False),
    ],
)
def test_nodes_take_part_by_their_labels(
    wanted: dict[str, Any], takes_part: bool, make_plan: MakePlan
) -> None:
    labels = {"region": "eu", "ray.io/accelerator-type": "H100"}
    plan = make_plan(devices={"labels": wanted})
    assert kinds(node(labels=labels, GPU=1), plan) == ["cuda"] * takes_part
    assert kinds(node(labels=labels), plan) == ["cpu"] * takes_part


def test_it_is_said_why_no_node_takes_part(make_plan: MakePlan) -> None:
    nodes = [node(labels={"region": region}, GPU=1) for region in ("us", "eu")]
    assert why_none(nodes, make_plan()) is None
    assert why_none([], make_plan()) is None, "nodes may come"
    assert why_none(nodes, make_plan(devices={"labels": {"region": "uk"}})) == (
        "no node has the labels region = 'uk' (the nodes have region = eu, us)"
    )
    assert why_none(nodes, make_plan(devices={"labels": {"zone": "a"}})) == (
        "no node has the labels zone = 'a' (the nodes have no zone)"
    )
    replay = make_plan(devices={"kind": "replay", "dataset": "h100.parquet"})
    assert why_none(nodes, replay) is None
    kind = why_none([node()], make_plan(devices={"kind": "cuda"}))
    assert kind == "none of 1 nodes has a device of kind cuda"


def member(agent: str, uuid: str | None, gpu: Device, kind: str = "cuda") -> Member:
    """One that is ready, or has just been made."""
    made = Member.of(Placement(agent, "1", kind, gpus=1), object(), monotonic)
    if uuid is not None:
        device = replace(gpu, uuid=uuid)
        made.started(Ready(agent=agent, device=device, host="host", local=False))
    return made


@pytest.mark.parametrize(
    ("kind", "uuid", "twin"),
    [("cuda", "GPU-a", "a"), ("cuda", "GPU-b", None), ("replay", "GPU-a", None)],
)
def test_two_agents_never_measure_one_gpu(
    kind: str, uuid: str, twin: str | None, gpu: Device
) -> None:
    """Two nodes of Ray on one host both count all of its GPUs. Recorded boards may be shared."""
    fleet = RayFleet.__new__(RayFleet)
    new = member("b", None, gpu, kind)
    fleet._members = {"a": member("a", "GPU-a", gpu, kind), "b": new}
    assert fleet._twin_of(new, replace(gpu, uuid=uuid)) == twin


def test_a_number_of_gpus_is_positive(make_plan: MakePlan) -> None:
    with pytest.raises(InputError, match=r"politeness.gpus_per_node = 0"):
        make_plan(politeness={"gpus_per_node": 0})
