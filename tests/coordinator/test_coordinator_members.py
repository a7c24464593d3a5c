"""One agent as its calls show it, and the watch over the nodes."""

from __future__ import annotations

import pytest

from coordinator.fleet.delivery import Delivery
from coordinator.fleet.interface import Ready
from coordinator.fleet.member import (
    ANSWER_S,
    IDLE_LOOK_S,
    MAX_STARTS,
    PLACED_S,
    PULSE_S,
    RETRY_S,
    Member,
)
from coordinator.fleet.node_watch import NodeWatch
from coordinator.fleet.placement import Node, Placement
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


def test_an_agent_whose_gpu_is_left_to_others_is_looked_at_again(
    clock: Clock, member: Member, ready: Ready
) -> None:
    for _ in range(2 * MAX_STARTS):
        member.found_in_use("2 other process(es) hold this GPU", clock())
        assert member.hello_in_s == clock() + IDLE_LOOK_S
        assert not member.is_starting, "a run does not wait for it"
        assert member.fault() == "it waits for its GPU: 2 other process(es) hold this GPU"
        wait(clock, member, IDLE_LOOK_S)
    member.started(ready)
    assert member.takes_leases
    assert not member.fault()


def test_a_second_agent_of_a_gpu_is_named_and_left_alone(clock: Clock, member: Member) -> None:
    member.found_twin("host-2/gpu0")
    wait(clock, member, 600)
    assert member.fault() == "host-2/gpu0 measures the same GPU"
    assert not (member.is_starting or member.needs_pulse() or member.takes_leases)


def node(name: str) -> Node:
    return Node(NodeID=name, NodeManagerHostname="host", Alive=True, Resources={})


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
