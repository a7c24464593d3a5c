"""One agent as its calls show it, the watch over the nodes, and which agents a node has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from coordinator.fleet.delivery import Delivery
from coordinator.fleet.interface import Ready
from coordinator.fleet.member import ANSWER_S, MAX_STARTS, PLACED_S, PULSE_S, RETRY_S, Member
from coordinator.fleet.node_watch import NodeWatch
from coordinator.fleet.placement import Node, Placement, placements
from coordinator.plan.schema import Devices
from gemmcast.device import Device
from tests.made_up_clock import Clock

LOOK_S = 0.5


def wait(clock: Clock, member: Member, seconds: float) -> None:
    """The fleet looks at the member twice a second."""
    until_s = clock.now + seconds
    while clock.now < until_s:
        clock.now += LOOK_S
        member.look()


@pytest.fixture
def member(clock: Clock) -> Member:
    placement = Placement("host-1/gpu0", "1", "cuda", gpus=1)
    return Member.of(placement, object(), clock)


@pytest.fixture
def ready(cpu: Device) -> Ready:
    return Ready(agent="host-1/gpu0", device=cpu, host="host", local=False)


def test_an_agent_whose_gpu_another_job_holds_is_named_and_not_waited_for(
    clock: Clock, member: Member, ready: Ready
) -> None:
    assert member.needs_pulse()
    assert member.is_starting
    assert member.fault() == ""
    wait(clock, member, PLACED_S + 1)
    assert not member.is_starting
    assert not member.takes_leases
    assert member.fault() == "it waits for its GPU, which another Ray job or actor holds"
    member.heard()
    assert member.is_starting, "the other job has ended, and it starts"
    member.started(ready)
    assert member.takes_leases
    assert member.fault() == ""


def test_an_agent_that_takes_minutes_to_start_is_waited_for_while_it_answers(
    clock: Clock, member: Member
) -> None:
    for _ in range(60):
        member.heard()
        wait(clock, member, PULSE_S + LOOK_S)
        assert member.needs_pulse()
        assert member.is_starting
    wait(clock, member, ANSWER_S)
    assert not member.is_starting
    assert member.fault() == "it does not answer while it starts"


def test_a_silent_agent_takes_no_leases_until_it_answers(
    clock: Clock, member: Member, ready: Ready
) -> None:
    member.started(ready)
    wait(clock, member, PULSE_S)
    assert not member.needs_pulse(), "an agent that has just spoken is not called"
    wait(clock, member, 1)
    assert member.needs_pulse()
    member.pulse = object()
    assert not member.needs_pulse(), "one call at a time"
    wait(clock, member, ANSWER_S)
    assert not member.takes_leases
    member.heard()
    assert member.takes_leases


def test_an_agent_is_not_silent_while_nobody_looked(
    clock: Clock, member: Member, ready: Ready
) -> None:
    member.started(ready)
    clock.now += 3600
    member.look()
    assert member.takes_leases


def test_a_lost_agent_is_called_at_once_and_takes_no_leases_until_it_is_back(
    clock: Clock, member: Member, ready: Ready
) -> None:
    member.started(ready)
    member.lost("killed", clock())
    assert member.hello_in_s == clock()
    assert not member.takes_leases
    assert member.fault() == "it starts again: killed"
    wait(clock, member, 600)
    assert not member.takes_leases, "it is not leased to, however long it is away"
    member.started(ready)
    member.look()
    assert member.takes_leases


def test_an_agent_that_cannot_start_is_tried_again_and_not_waited_for(
    clock: Clock, member: Member
) -> None:
    member.heard()
    for _ in range(MAX_STARTS):
        assert member.is_starting
        member.start_failed("no CUDA here", clock())
    assert not member.is_starting
    assert member.hello_in_s == clock() + RETRY_S
    assert member.fault() == "it starts again: no CUDA here"


def node(name: str, gpus: int = 0) -> Node:
    resources = {"GPU": float(gpus)} if gpus else {}
    return Node(NodeID=name, NodeManagerHostname="host", Alive=True, Resources=resources)


def test_a_node_that_comes_back_has_agents_of_other_names() -> None:
    devices = Devices()
    first, second = [
        [one.agent for one in placements(node(name, gpus=2), devices, here="head")]
        for name in ("abcdef12", "fedcba98")
    ]
    assert first == ["host-abcdef/gpu0", "host-abcdef/gpu1"]
    assert second == ["host-fedcba/gpu0", "host-fedcba/gpu1"]


@pytest.mark.parametrize(
    ("kind", "gpus", "expected"),
    [("auto", 0, ["cpu"]), ("auto", 1, ["cuda"]), ("cuda", 0, []), ("cpu", 1, ["cpu"])],
)
def test_a_node_has_an_agent_for_each_device_of_the_plan(
    kind: Any, gpus: int, expected: Sequence[str]
) -> None:
    devices = Devices(kind=kind)
    assert [one.kind for one in placements(node("1", gpus), devices, here="2")] == expected


class Head:
    """Lists nodes, or fails."""

    def __init__(self) -> None:
        self.answers = True

    def __call__(self) -> list[Node]:
        if not self.answers:
            raise RuntimeError("the head is gone")
        return [node("1")]


def test_the_head_is_silent_from_its_last_answer_on(clock: Clock) -> None:
    head = Head()
    watch = NodeWatch(head, clock)
    assert watch.newest() is None
    watch.look()
    assert watch.newest() == [node("1")]
    assert watch.newest() is None, "each answer once"
    head.answers = False
    for _ in range(40):
        clock.now += LOOK_S
        with pytest.raises(RuntimeError):
            watch.look()
        assert watch.newest() is None
        watch.silent_s()
    assert watch.silent_s() == pytest.approx(20)
    head.answers = True
    watch.look()
    assert watch.newest() == [node("1")]
    assert watch.silent_s() == 0


def test_an_agent_that_left_is_not_missed_by_a_delivery(clock: Clock) -> None:
    delivery = Delivery(clock)
    for agent in ("node0/cpu", "node1/cpu"):
        delivery.join(agent, agent.partition("/")[0])
    delivery.want("1")
    for agent in delivery.due():
        delivery.sent(agent)
    delivery.answered("node0/cpu", "1")
    assert not delivery.is_complete()
    delivery.leave("node1/cpu")
    assert delivery.is_complete()
    assert delivery.state().text() == "Model 1 is on 1 of 1 nodes."
    # Its answers may still arrive.
    delivery.answered("node1/cpu", "1")
    delivery.failed("node1/cpu", "the actor died")
    assert delivery.state().nodes == 1
