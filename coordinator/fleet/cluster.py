"""The fleet on Ray: an agent for every device of every node, leases out, samples in.

A lease is one streaming call that Ray never retries: with retries, the stream of a killed actor
would silently start again at item 0. An unread result stops the agent after BACKPRESSURE batches,
so what is in flight is bounded. Agents are owned by this process and end with it. Nodes that join
get agents at the next look; those of a node that leaves are given up. What an event means is the
scheduler's business.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agent.actor import Agent
from agent.child_process import ChildDied
from agent.idle import NotIdleError
from agent.spec import AgentSpec, Hello
from coordinator.fleet.connection import first_line
from coordinator.fleet.delivery import Delivery
from coordinator.fleet.events import agent_event
from coordinator.fleet.interface import NO_LEASE, Ended, Event, Left, Ready, Samples
from coordinator.fleet.member import Member
from coordinator.fleet.node_watch import NodeWatch
from coordinator.fleet.pacing import Gathering, batch_s
from coordinator.fleet.placement import Node, Placement, placements, why_none
from coordinator.plan.schema import Plan
from coordinator.samples.batch_rules import received
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError
from gemmcast.modeldir import ShippedModel
from gemmcast.tabledir import Shipped

log = logging.getLogger(__name__)

BACKPRESSURE = 8
CLUSTER = "the cluster"
"""In the place of an agent's name, where no node takes part."""
RECONNECT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray ends a process, with a stack trace, that has not reached the head for this time."""
RECONNECT_S = 60
BEFORE_RAY_S = 15
"""A run ends so much earlier, with one line."""
Handle = Any
"""Of an Agent: Ray adds `remote` and `options` to its methods, which no stub describes."""
Reference = ray.ObjectRef[Any]
"""Of an object that an actor or `ray.put` made."""
Stream = Any
"""A ray.ObjectRefGenerator, whose module has no stubs."""


class ClusterLostError(GemmcastError):
    """The head of the cluster is gone."""


class RayFleet:
    """Agents on every node of the cluster that this process is connected to.

    Args:
        only_here: or on its own node alone: whoever likes could join the others.
    """

    def __init__(self, plan: Plan, model_dir: Path, *, only_here: bool = False) -> None:
        self._plan = plan
        self._only_here = only_here
        self._model_dir = model_dir
        self._members: dict[str, Member] = {}
        self.delivery = Delivery()
        self.tables_delivery = Delivery(what="table set")
        self._deliveries = {"take_model": self.delivery, "take_tables": self.tables_delivery}
        """Method of an agent -> what it takes."""
        self._newest: dict[str, tuple[Reference, str]] = {}
        """Method -> what is taken, and its version."""
        self._pushes: dict[Reference, tuple[str, str]] = {}
        """Calls that are not answered -> method and agent."""
        self._is_resting = False
        self._why_none: str | None = None
        """Why no node takes part."""
        self.is_lost = False
        """Whether the head of the cluster is gone."""
        self._here = ray.get_runtime_context().get_node_id()
        self._gathering = Gathering()
        self._nodes = NodeWatch(self._list_nodes)
        self._nodes.start()

    def ready_agents(self) -> list[Ready]:
        """The agents that take leases: a `Ready` was their event, and they answer."""
        members = self._members.values()
        return [member.ready for member in members if member.ready and member.takes_leases]

    def starting(self) -> int:
        """How many agents are about to start."""
        return sum(member.is_starting for member in self._members.values())

    def faults(self) -> dict[str, str]:
        """Agent that has not started, or was lost -> why."""
        faults = {name: member.fault() for name, member in self._members.items()}
        if self._why_none is not None:
            faults[CLUSTER] = self._why_none
        return {name: fault for name, fault in faults.items() if fault}

    def poll(self, timeout_s: float) -> list[Event]:
        """New events; waits up to `timeout_s` for the first one.

        Raises:
            ClusterLostError: the head does not answer.
        """
        events = self._follow_nodes()
        self._call_members()
        self._deliver()
        pending = self._pending()
        if not pending:
            sleep(timeout_s)
        gather_s = 0.0 if events else self._gathering.left_s
        for reference in _done(list(pending), 0.0 if events else timeout_s, gather_s):
            name, lease = pending[reference]
            event = self._started(name) if lease == NO_LEASE else self._next(name, lease)
            if event is not None:
                events.append(event)
        if events:
            self._gathering.polled()
        for member in self._members.values():
            member.look()
        return events

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        """Send cells to an agent."""
        member = self._members[agent]
        call = member.actor.measure.options(
            num_returns="streaming", _generator_backpressure_num_objects=BACKPRESSURE
        )
        member.streams[lease] = call.remote(list(cells), batch_s(len(self._members)))

    def push(self, model: ShippedModel, version: str) -> None:
        """Send a model to every agent, and to those that start later."""
        self._send("take_model", model, version)

    def push_tables(self, tables: Sequence[Shipped], version: str) -> None:
        """Send all tuned tables to every agent, and to those that start later."""
        self._send("take_tables", list(tables), version)

    def rest(self, *, now: bool) -> None:
        """Give the devices back: end every agent, and start none until `rest(now=False)`."""
        self._is_resting = now

    def close(self) -> None:
        """Kill the agents."""
        self._nodes.close()
        for member in self._members.values():
            ray.kill(member.actor)

    def _pending(self) -> dict[Reference | Stream, tuple[str, int]]:
        """What Ray is to deliver -> (agent, lease); NO_LEASE stands for the answer to `hello`."""
        pending: dict[Reference | Stream, tuple[str, int]] = {}
        for name, member in self._members.items():
            if member.hello is not None:
                pending[member.hello] = (name, NO_LEASE)
            for lease, stream in member.streams.items():
                pending[stream] = (name, lease)
        return pending

    def _call_members(self) -> None:
        """Send what is due: `hello` to those that start, `pulse` to those that are silent."""
        now_s = monotonic()
        pulses = {member.pulse: member for member in self._members.values() if member.pulse}
        for answer in _done(list(pulses), 0.0):
            self._note_pulse(pulses[answer], answer)
        for member in self._members.values():
            if member.hello_in_s is not None and now_s >= member.hello_in_s:
                # Ray repeats it until a process that it restarts has answered.
                member.hello = member.actor.hello.options(max_task_retries=-1).remote()
                member.hello_in_s = None
            if member.needs_pulse():
                member.pulse = member.actor.pulse.remote()

    def _note_pulse(self, member: Member, answer: Reference) -> None:
        member.pulse = None
        try:
            ray.get(answer)
        except ray.exceptions.RayError as error:
            if member.ready is not None and not member.streams:
                member.lost(_reason(error), monotonic())
            return
        member.heard()

    def _send(self, method: str, content: object, version: str) -> None:
        self._newest[method] = (ray.put(content), version)
        self._deliveries[method].want(version)
        self._deliver()

    def _deliver(self) -> None:
        """Note which agents have taken what was sent, and send it to those that are due."""
        for answer in _done(list(self._pushes), 0.0):
            self._note_push(*self._pushes.pop(answer), answer)
        for method, delivery in self._deliveries.items():
            for name in delivery.due():
                take = getattr(self._members[name].actor, method)
                self._pushes[take.remote(*self._newest[method])] = (method, name)
                delivery.sent(name)

    def _note_push(self, method: str, name: str, answer: Reference) -> None:
        delivery = self._deliveries[method]
        try:
            delivery.answered(name, ray.get(answer))
        except ray.exceptions.RayError as error:
            delivery.failed(name, first_line(error))

    def _started(self, name: str) -> Event | None:
        """What an agent's answer to `hello` means; None: its GPU is left to others."""
        member = self._members[name]
        assert member.hello is not None
        try:
            call: Reference = member.hello
            hello: Hello = ray.get(call)
        except ray.exceptions.RayError as error:
            reason = _reason(error)
            if isinstance(error, NotIdleError):
                member.found_in_use(reason, monotonic())
                return None
            fields = agent_event("agent_fault", name, reason)
            log.warning("agent %s can't start: %s", name, first_line(error), extra=fields)
            member.start_failed(reason, monotonic())
            if isinstance(error, ray.exceptions.ActorDiedError):
                # Ray does not restart it any more.
                member.actor = self._actor(member.placement)
            return Ended(agent=name, lease=NO_LEASE, error=reason)
        twin = self._twin_of(member, hello.device)
        if twin is not None:
            log.warning("agent %s ends: %s measures the same GPU", name, twin)
            member.found_twin(twin)
            ray.kill(member.actor)
            return None
        # An agent's name is HOST-NODE/DEVICE.
        for delivery in self._deliveries.values():
            delivery.join(name, name.rpartition("/")[0])
        is_here = member.placement.node_id == self._here
        ready = Ready(agent=name, device=hello.device, host=hello.host, local=is_here)
        member.started(ready)
        return ready

    def _twin_of(self, member: Member, device: Device) -> str | None:
        """Another agent that measures this GPU, as where two nodes of Ray are on one host."""
        if member.placement.kind != "cuda":
            return None
        for name, other in self._members.items():
            if other is not member and other.ready and other.ready.device.uuid == device.uuid:
                return name
        return None

    def _next(self, name: str, lease: int) -> Event:
        """The next batch of a lease, or its end."""
        member = self._members[name]
        streams = member.streams
        try:
            sent: object = ray.get(next(streams[lease]))
        except StopIteration:
            member.heard()
            del streams[lease]
            return Ended(agent=name, lease=lease)
        except ray.exceptions.RayError as error:
            del streams[lease]
            reason = _reason(error)
            fields = agent_event("agent_fault", name, reason)
            text = "agent %s lost lease %d: %s"
            log.warning(text, name, lease, first_line(error), extra=fields)
            member.lost(reason, monotonic())
            # The actor lives then; what it could not start was its child.
            is_childs = isinstance(error, ChildDied)
            return Ended(agent=name, lease=lease, error=reason, is_cells_doing=not is_childs)
        member.heard()
        return Samples(agent=name, lease=lease, table=received(sent))

    def _list_nodes(self) -> list[Node]:
        """Called from the watch's thread.

        Raises:
            ClusterLostError: this node is not one of them: the head has lost its memory.
        """
        nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = [node for node in nodes if node["Alive"]]
        if all(node["NodeID"] != self._here for node in alive):
            raise ClusterLostError("the head does not know this node")
        if self._only_here:
            return [node for node in alive if node["NodeID"] == self._here]
        return alive

    def _follow_nodes(self) -> list[Event]:
        """Start agents on new nodes; give those up whose node has left."""
        nodes = self._nodes.newest()
        self._check_head()
        events: list[Event] = []
        if self._is_resting:
            for name, member in list(self._members.items()):
                events += self._give_up(name, member, "it rests")
            return events
        if nodes is None:
            return []
        alive = {node["NodeID"] for node in nodes}
        for name, member in list(self._members.items()):
            if member.placement.node_id not in alive:
                events += self._give_up(name, member, "its node has left the cluster")
        for name, member in list(self._members.items()):
            if member.twin and member.twin not in self._members:
                # Its GPU is free now: it starts again below.
                del self._members[name]
        self._place(nodes)
        return events

    def _place(self, nodes: Sequence[Node]) -> None:
        """Start the agents that nodes should have and have not."""
        self._why_none = why_none(nodes, self._plan)
        for node in nodes:
            for placement in placements(node, self._plan, self._here):
                if placement.agent not in self._members:
                    actor = self._actor(placement)
                    member = Member.of(placement, actor, monotonic)
                    member.hello = actor.hello.remote()
                    self._members[placement.agent] = member

    def _check_head(self) -> None:
        limit_s = float(os.environ.get(RECONNECT_VARIABLE, RECONNECT_S)) - BEFORE_RAY_S
        silent_s = self._nodes.silent_s()
        if silent_s > limit_s:
            self.is_lost = True
            raise ClusterLostError(
                f"the head of the Ray cluster has not answered for {silent_s:.0f} s; what has "
                "arrived is committed: start the head, and the same command again to go on"
            )

    def _give_up(self, name: str, member: Member, reason: str) -> Iterator[Event]:
        """An agent that ends; should its node come back, it has another id."""
        del self._members[name]
        fields = agent_event("agent_left", name, reason)
        log.warning("agent %s is given up: %s", name, reason, extra=fields)
        for delivery in self._deliveries.values():
            delivery.leave(name)
        ray.kill(member.actor)
        for lease in member.streams:
            yield Ended(agent=name, lease=lease, error=reason, is_cells_doing=False)
        yield Left(agent=name)

    def _actor(self, placement: Placement) -> Handle:
        """A new agent, as a handle."""
        recorded = placement.recorded
        spec = AgentSpec(
            kind=placement.kind,
            agent=placement.agent,
            model_dir=self._model_dir,
            procedure=self._plan.measure.procedure(),
            dataset=Path(recorded.dataset) if recorded else None,
            device_name=recorded.device_name if recorded else None,
            only_idle=self._plan.politeness.only_idle,
        )
        strategy = NodeAffinitySchedulingStrategy(node_id=placement.node_id, soft=False)
        options = Agent.options(  # type: ignore[attr-defined]
            num_gpus=placement.gpus, scheduling_strategy=strategy
        )
        return options.remote(spec)


def _done(references: list[Stream], timeout_s: float, gather_s: float = 0.0) -> list[Stream]:
    """Those that are there; waits up to `timeout_s` for the first one, then `gather_s` for more."""
    if not references:
        return []
    done, _ = ray.wait(references, num_returns=1, timeout=timeout_s, fetch_local=False)
    count = len(references)
    if done and count > 1:
        done, _ = ray.wait(references, num_returns=count, timeout=gather_s, fetch_local=False)
    return done


def _reason(error: ray.exceptions.RayError) -> str:
    """Of an agent's call, in few words: Ray's own have the address of the process and advice."""
    if isinstance(error, ray.exceptions.ActorUnschedulableError):
        return "its node is gone"
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return "its process has ended or can't be reached"
    return first_line(error)
