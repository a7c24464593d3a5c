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

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agent.actor import Agent
from agent.child_process import ChildDied
from agent.spec import AgentSpec, Hello
from coordinator.fleet.connection import first_line
from coordinator.fleet.delivery import Delivery
from coordinator.fleet.interface import NO_LEASE, Ended, Event, Left, Ready, Samples
from coordinator.fleet.member import Member
from coordinator.fleet.node_watch import NodeWatch
from coordinator.fleet.pacing import GATHER_S, batch_s
from coordinator.fleet.placement import Node, Placement, placements
from coordinator.plan.schema import Plan
from gemmcast.arrow import from_bytes
from gemmcast.cell import Cell
from gemmcast.errors import GemmcastError
from gemmcast.tabledir import Shipped

log = logging.getLogger(__name__)

BACKPRESSURE = 8
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
    """Agents on every node of the cluster that this process is connected to."""

    def __init__(self, plan: Plan, model_dir: Path) -> None:
        self._plan = plan
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
        self.is_lost = False
        """Whether the head of the cluster is gone."""
        self._here = ray.get_runtime_context().get_node_id()
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
        for reference in _done(list(pending), 0.0 if events else timeout_s):
            name, lease = pending[reference]
            events.append(self._started(name) if lease == NO_LEASE else self._next(name, lease))
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

    def push(self, model: bytes, version: str) -> None:
        """Send a model to every agent, and to those that start later."""
        self._send("take_model", model, version)

    def push_tables(self, tables: Sequence[Shipped], version: str) -> None:
        """Send all tuned tables to every agent, and to those that start later."""
        self._send("take_tables", list(tables), version)

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

    def _started(self, name: str) -> Event:
        member = self._members[name]
        assert member.hello is not None
        try:
            call: Reference = member.hello
            hello: Hello = ray.get(call)
        except ray.exceptions.RayError as error:
            reason = _reason(error)
            log.warning("agent %s can't start: %s", name, first_line(error))
            member.start_failed(reason, monotonic())
            if isinstance(error, ray.exceptions.ActorDiedError):
                # Ray does not restart it any more.
                member.actor = self._actor(member.placement)
            return Ended(agent=name, lease=NO_LEASE, error=reason)
        # An agent's name is HOST-NODE/DEVICE.
        for delivery in self._deliveries.values():
            delivery.join(name, name.rpartition("/")[0])
        is_here = member.placement.node_id == self._here
        ready = Ready(agent=name, device=hello.device, host=hello.host, local=is_here)
        member.started(ready)
        return ready

    def _next(self, name: str, lease: int) -> Event:
        """The next batch of a lease, or its end."""
        member = self._members[name]
        streams = member.streams
        try:
            batch: object = ray.get(next(streams[lease]))
        except StopIteration:
            member.heard()
            del streams[lease]
            return Ended(agent=name, lease=lease)
        except ray.exceptions.RayError as error:
            del streams[lease]
            reason = _reason(error)
            log.warning("agent %s lost lease %d: %s", name, lease, first_line(error))
            member.lost(reason, monotonic())
            # The actor lives then; what it could not start was its child.
            is_childs = isinstance(error, ChildDied)
            return Ended(agent=name, lease=lease, error=reason, is_cells_doing=not is_childs)
        member.heard()
        return Samples(agent=name, lease=lease, table=_unpacked(batch))

    def _list_nodes(self) -> list[Node]:
        """Called from the watch's thread.

        Raises:
            ClusterLostError: this node is not one of them: the head has lost its memory.
        """
        nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = [node for node in nodes if node["Alive"]]
        if all(node["NodeID"] != self._here for node in alive):
            raise ClusterLostError("the head does not know this node")
        return alive

    def _follow_nodes(self) -> list[Event]:
        """Start agents on new nodes; give those up whose node has left."""
        nodes = self._nodes.newest()
        self._check_head()
        if nodes is None:
            return []
        events: list[Event] = []
        alive = {node["NodeID"] for node in nodes}
        for name, member in list(self._members.items()):
            if member.placement.node_id not in alive:
                events += self._give_up(name, member)
        for node in nodes:
            for placement in placements(node, self._plan.devices, self._here):
                if placement.agent not in self._members:
                    actor = self._actor(placement)
                    member = Member.of(placement, actor, monotonic)
                    member.hello = actor.hello.remote()
                    self._members[placement.agent] = member
        return events

    def _check_head(self) -> None:
        limit_s = float(os.environ.get(RECONNECT_VARIABLE, RECONNECT_S)) - BEFORE_RAY_S
        silent_s = self._nodes.silent_s()
        if silent_s > limit_s:
            self.is_lost = True
            raise ClusterLostError(
                f"the head of the Ray cluster has not answered for {silent_s:.0f} s; what has "
                "arrived is committed: start the head, and the same command again to go on"
            )

    def _give_up(self, name: str, member: Member) -> Iterator[Event]:
        """An agent whose node has left; should it come back, it has another id."""
        del self._members[name]
        reason = "its node has left the cluster"
        log.warning("agent %s is given up: %s", name, reason)
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
        )
        strategy = NodeAffinitySchedulingStrategy(node_id=placement.node_id, soft=False)
        options = Agent.options(  # type: ignore[attr-defined]
            num_gpus=placement.gpus, scheduling_strategy=strategy
        )
        return options.remote(spec)


def _done(references: list[Stream], timeout_s: float) -> list[Stream]:
    """Those that are there; waits up to `timeout_s` for the first one, and then for more."""
    if not references:
        return []
    done, _ = ray.wait(references, num_returns=1, timeout=timeout_s, fetch_local=False)
    count = len(references)
    if done and count > 1:
        gather_s = GATHER_S if timeout_s else 0.0
        done, _ = ray.wait(references, num_returns=count, timeout=gather_s, fetch_local=False)
    return done


def _unpacked(batch: Any) -> pa.Table:
    """The rows that an agent has sent. What can't be read stays as it is: it is no table."""
    try:
        return from_bytes(batch)
    except (pa.ArrowException, TypeError):
        return batch


def _reason(error: ray.exceptions.RayError) -> str:
    """Of an agent's call, in few words: Ray's own have the address of the process and advice."""
    if isinstance(error, ray.exceptions.ActorUnschedulableError):
        return "its node is gone"
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return "its process has ended or can't be reached"
    return first_line(error)
