"""The fleet on Ray: an agent for every device of every node, leases out, samples in.

A lease is one streaming call that Ray never retries: with retries, the stream of a killed actor
would silently start again at item 0. An unread result stops the agent after BACKPRESSURE batches,
so what is in flight is bounded. Agents are owned by this process and end with it; nodes that join
later get agents at the next look. What an event means is the scheduler's business.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypedDict

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agent.actor import Agent
from agent.child_process import ChildDied
from agent.devices.local import local_device
from agent.spec import AgentSpec, Hello
from coordinator.fleet.delivery import Delivery
from coordinator.fleet.interface import NO_LEASE, Ended, Event, Ready, Samples
from coordinator.fleet.shipping import too_large, working_directory
from coordinator.plan.schema import Devices, Plan, Recorded
from coordinator.workspace import inside_job
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError
from gemmcast.tabledir import Shipped

log = logging.getLogger(__name__)

EMBEDDED = "local"
"""Ray's address of a cluster that starts and ends with this process."""
BACKPRESSURE = 8
LOOK_FOR_NODES_S = 5.0
MAX_STARTS = 3
"""Tries to start an agent, before the run continues without it."""
RESTART_S = 60.0
"""An actor that Ray restarts gets no lease for at most this time."""
RAY_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray")
"""Starts Ray. In the main thread Ray would replace our SIGTERM handler by one whose SystemExit is
lost where the signal interrupts a finalizer. The thread stays: the processes of a cluster end with
the thread that started them (PR_SET_PDEATHSIG)."""

Handle = Any
"""Of an Agent: Ray adds `remote` and `options` to its methods, which no stub describes."""
Reference = ray.ObjectRef[Any]
"""Of an object that an actor or `ray.put` made."""
Stream = Any
"""A ray.ObjectRefGenerator, whose module has no stubs."""


class Node(TypedDict):
    """What ray.nodes() says of a node, as far as it is used here."""

    NodeID: str
    NodeManagerHostname: str
    Alive: bool
    Resources: dict[str, float]


@dataclass(slots=True)
class _Member:
    actor: Handle
    node_id: str
    hello: Reference | None
    """The pending answer to `hello`; None once it has come."""
    ready: Ready | None = None
    died_s: float = -RESTART_S
    """When the actor was seen dead; Ray restarts it."""
    failed_starts: int = 0
    streams: dict[int, Stream] = field(default_factory=dict)
    """Lease -> its batches."""


@dataclass(frozen=True, slots=True)
class _Placement:
    """An agent to start on a node."""

    agent: str
    kind: str
    gpus: int
    recorded: Recorded | None = None
    """What it answers from, if it replays."""


class RayFleet:
    """Agents on every node of the cluster that this process is connected to."""

    def __init__(self, plan: Plan, model_dir: Path) -> None:
        self._plan = plan
        self._model_dir = model_dir
        self._members: dict[str, _Member] = {}
        self.delivery = Delivery()
        self.tables_delivery = Delivery(what="table set")
        self._deliveries = {"take_model": self.delivery, "take_tables": self.tables_delivery}
        """Method of an agent -> what it takes."""
        self._newest: dict[str, tuple[Reference, str]] = {}
        """Method -> what is taken, and its version."""
        self._pushes: dict[Reference, tuple[str, str]] = {}
        """Calls that are not answered -> method and agent."""
        self._looked_s = -LOOK_FOR_NODES_S
        self._here = ray.get_runtime_context().get_node_id()

    def ready_agents(self) -> list[Ready]:
        """The agents that take leases: a `Ready` was their event, and they are not restarting."""
        now_s = monotonic()
        return [
            member.ready
            for member in self._members.values()
            if member.ready and (member.hello is None or now_s - member.died_s > RESTART_S)
        ]

    def starting(self) -> int:
        """How many agents have neither started nor failed."""
        members = self._members.values()
        return sum(member.hello is not None and member.ready is None for member in members)

    def poll(self, timeout_s: float) -> list[Event]:
        """New events; waits up to `timeout_s` for the first one."""
        self._look_for_nodes()
        self._deliver()
        pending = self._pending()
        if not pending:
            sleep(timeout_s)
            return []
        references = list(pending)
        done, _ = ray.wait(references, num_returns=1, timeout=timeout_s, fetch_local=False)
        if done and len(references) > 1:
            # Everything else that is there by now.
            count = len(references)
            done, _ = ray.wait(references, num_returns=count, timeout=0, fetch_local=False)
        events: list[Event] = []
        for reference in done:
            name, lease = pending[reference]
            events.append(self._started(name) if lease == NO_LEASE else self._next(name, lease))
        return events

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        """Send cells to an agent."""
        member = self._members[agent]
        call = member.actor.measure.options(
            num_returns="streaming", _generator_backpressure_num_objects=BACKPRESSURE
        )
        member.streams[lease] = call.remote(list(cells))

    def push(self, model: bytes, version: str) -> None:
        """Send a model to every agent, and to those that start later."""
        self._send("take_model", model, version)

    def push_tables(self, tables: Sequence[Shipped], version: str) -> None:
        """Send all tuned tables to every agent, and to those that start later."""
        self._send("take_tables", list(tables), version)

    def close(self) -> None:
        """Kill the agents."""
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

    def _send(self, method: str, content: object, version: str) -> None:
        self._newest[method] = (ray.put(content), version)
        self._deliveries[method].want(version)
        self._deliver()

    def _deliver(self) -> None:
        """Note which agents have taken what was sent, and send it to those that are due."""
        calls = list(self._pushes)
        if calls:
            answers, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
            for answer in answers:
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
            delivery.failed(name, _first_line(error))

    def _started(self, name: str) -> Event:
        member = self._members[name]
        assert member.hello is not None
        try:
            hello: Hello = ray.get(member.hello)
        except ray.exceptions.RayError as error:
            reason = _first_line(error)
            log.warning("agent %s can't start: %s", name, reason)
            member.failed_starts += 1
            # Ray restarts the actor, so a second answer is possible.
            is_last = member.failed_starts >= MAX_STARTS
            member.hello = None if is_last else member.actor.hello.remote()
            return Ended(agent=name, lease=NO_LEASE, error=reason)
        member.hello = None
        # An agent's name is HOST-NODE/DEVICE.
        for delivery in self._deliveries.values():
            delivery.join(name, name.rpartition("/")[0])
        is_here = member.node_id == self._here
        member.ready = Ready(agent=name, device=hello.device, host=hello.host, local=is_here)
        return member.ready

    def _next(self, name: str, lease: int) -> Event:
        """The next batch of a lease, or its end."""
        member = self._members[name]
        streams = member.streams
        try:
            return Samples(agent=name, lease=lease, table=ray.get(next(streams[lease])))
        except StopIteration:
            del streams[lease]
            return Ended(agent=name, lease=lease)
        except ray.exceptions.RayError as error:
            del streams[lease]
            reason = _first_line(error)
            log.warning("agent %s lost lease %d: %s", name, lease, reason)
            if member.hello is None:
                # Until the actor answers again, further leases would be lost at once.
                member.hello = member.actor.hello.options(max_task_retries=-1).remote()
                member.died_s = monotonic()
            # The actor lives then; what it could not start was its child.
            is_childs = isinstance(error, ChildDied)
            return Ended(agent=name, lease=lease, error=reason, is_cells_doing=not is_childs)

    def _look_for_nodes(self) -> None:
        if monotonic() - self._looked_s < LOOK_FOR_NODES_S:
            return
        self._looked_s = monotonic()
        nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
        for node in nodes:
            if not node["Alive"]:
                continue
            for placement in self._placements(node):
                if placement.agent not in self._members:
                    self._members[placement.agent] = self._start(placement, node["NodeID"])

    def _placements(self, node: Node) -> Iterator[_Placement]:
        """The agents that a node should have."""
        devices = self._plan.devices
        prefix = f"{node['NodeManagerHostname']}-{node['NodeID'][:6]}"
        gpus = int(node["Resources"].get("GPU", 0))
        if devices.kind == "replay":
            if node["NodeID"] == self._here:
                for i, recorded in enumerate(devices.recordings()):
                    yield _Placement(f"{prefix}/replay{i}", "replay", 0, recorded)
        elif devices.kind == "cpu" or (devices.kind == "auto" and not gpus):
            yield _Placement(f"{prefix}/cpu", "cpu", gpus=0)
        else:
            for i in range(gpus):
                yield _Placement(f"{prefix}/gpu{i}", "cuda", gpus=1)

    def _start(self, placement: _Placement, node_id: str) -> _Member:
        recorded = placement.recorded
        spec = AgentSpec(
            kind=placement.kind,
            agent=placement.agent,
            model_dir=self._model_dir,
            procedure=self._plan.measure.procedure(),
            dataset=Path(recorded.dataset) if recorded else None,
            device_name=recorded.device_name if recorded else None,
        )
        strategy = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
        options = Agent.options(  # type: ignore[attr-defined]
            num_gpus=placement.gpus, scheduling_strategy=strategy
        )
        actor = options.remote(spec)
        return _Member(actor=actor, node_id=node_id, hello=actor.hello.remote())


def cluster_address(address: str | None) -> str:
    """Where to connect: `address`, RAY_ADDRESS, the cluster of this job, or one of our own."""
    if address:
        return address
    return os.environ.get("RAY_ADDRESS") or ("auto" if inside_job() else EMBEDDED)


def connect(target: str) -> None:
    """Join the cluster at `target`, or start one in this process.

    Args:
        target: an address, "auto" for the cluster that this machine belongs to, or EMBEDDED.

    Raises:
        GemmcastError: no cluster answers there.
        InputError: the project's folder is larger than Ray ships.
    """
    environment = None
    if target != EMBEDDED and not inside_job():
        environment = working_directory()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    start = partial(
        ray.init,
        address=target,
        include_dashboard=False if target == EMBEDDED else None,
        runtime_env=environment,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    # Ray would warn that its SIGTERM handler is not set, which is our intention.
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        RAY_THREAD.submit(start).result()
    except Exception as error:  # noqa: BLE001
        # A process of Ray that does not start is a plain Exception.
        raise _refusal(target, error) from None


def _refusal(target: str, error: Exception) -> GemmcastError:
    """Why Ray was not joined or started, in one line."""
    reason = _first_line(error)
    if isinstance(error, ValueError) and "maximum size" in str(error):
        return too_large(reason)
    if target == EMBEDDED:
        way_out = "its logs are in /tmp/ray/session_latest/logs"
        return GemmcastError(f"Ray does not start on this machine ({reason}); {way_out}")
    rule = f"no Ray cluster answers there ({reason})"
    return GemmcastError(f"--address = {target!r}: {rule}; start one with `ray start --head`")


def cluster_devices(devices: Devices) -> list[tuple[Device, int]]:
    """The devices on which a run would measure, and how many of each; measures nothing.

    The first GPU of a node stands for all of its GPUs.
    """
    counts: dict[str, int] = {}
    by_name: dict[str, Device] = {}
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    for node in nodes:
        gpus = int(node["Resources"].get("GPU", 0)) if node["Alive"] else 0
        is_without = devices.kind == "cuda" and not gpus
        if not node["Alive"] or is_without:
            continue
        kind = "cuda" if gpus and devices.kind != "cpu" else "cpu"
        strategy = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        task = ray.remote(local_device).options(num_cpus=0, scheduling_strategy=strategy)
        device: Device = ray.get(task.remote(kind))
        by_name[device.name] = device
        counts[device.name] = counts.get(device.name, 0) + (gpus if kind == "cuda" else 1)
    return [(device, counts[name]) for name, device in by_name.items()]


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # The message of a RayTaskError stands last, behind the remote traceback.
    is_remote = isinstance(error, ray.exceptions.RayTaskError)
    return (lines[-1] if is_remote else lines[0])[:400]
