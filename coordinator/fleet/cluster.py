"""The fleet: agents on a Ray cluster, leases out, samples in.

Every agent may hold a few leases; each is one streaming call that is never retried by Ray (with retries on, a killed actor's stream
silently starts again at item 0). An unread result holds the agent back after `BACKPRESSURE` batches, so what is in flight is bounded.
Agents are owned by this process and end with it; nodes that join later get agents at the next look.
Cells come back as events; what they mean is coordinator/fleet/scheduler.py's business.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agent.actor import Agent
from coordinator.plan.schema import Plan
from coordinator.workspace import inside_job
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError

log = logging.getLogger(__name__)

EMBEDDED = "local"
# Ray's word for a cluster that starts and ends with this process
BACKPRESSURE = 8
LOOK_FOR_NODES_S = 5.0
MAX_STARTS = 3
# of an agent, before the run goes on without it
ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = [".venv", ".git", "datasets", "demo", "workspace", "docs", "tests", "benchmarks"]
# when we join a cluster from outside a job; a job ships its own working directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """An agent says what it measures."""

    agent: str
    device: Device
    host: str
    local: bool
    # on the host that we run on


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One batch of a lease."""

    agent: str
    lease: int
    table: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A lease is over: all its samples came, or its agent died under it."""

    agent: str
    lease: int
    error: str | None = None


Event = Ready | Samples | Ended


class Fleet(Protocol):
    """What the loop needs of a cluster. Its fake, for tests, measures in this process."""

    def known(self) -> list[Ready]:
        """The agents that have said already that they are ready, for a loop that begins now."""

    def starting(self) -> int:
        """Agents that have not said yet whether they are ready: their devices may have cells of their own."""

    def poll(self, timeout_s: float) -> list[Event]:
        """What happened; waits up to that long for something to happen."""

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        """Cells for an agent; their samples come as events."""

    def push(self, model: bytes, version: str) -> None:
        """A new model for every agent, now and later."""

    def close(self) -> None:
        """End the agents, now."""


@dataclass(slots=True)
class _Member:
    actor: Any
    node_id: str
    ready: Any
    # the pending answer to describe(), None once it came
    said: Ready | None = None
    failed_starts: int = 0
    streams: dict[int, Any] = field(default_factory=dict)


class RayFleet:
    """Agents on every node of the cluster that this process is connected to."""

    def __init__(self, plan: Plan, model_dir: Path) -> None:
        self._plan, self._model_dir = plan, model_dir
        self._members: dict[str, _Member] = {}
        self._model: tuple[Any, str] | None = None
        self._looked_s = -LOOK_FOR_NODES_S
        self._here = ray.get_runtime_context().get_node_id()

    def known(self) -> list[Ready]:
        return [member.said for member in self._members.values() if member.said is not None]

    def starting(self) -> int:
        return sum(member.ready is not None for member in self._members.values())

    def poll(self, timeout_s: float) -> list[Event]:
        self._look_for_nodes()
        waiting: dict[Any, tuple[str, int | None]] = {}
        for name, member in self._members.items():
            if member.ready is not None:
                waiting[member.ready] = (name, None)
            waiting |= {stream: (name, lease) for lease, stream in member.streams.items()}
        if not waiting:
            sleep(timeout_s)
            return []
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout_s, fetch_local=False)
        if done and len(waiting) > 1:
            done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0, fetch_local=False)
        events = [self._ready(name) if lease is None else self._next(name, lease) for name, lease in (waiting[item] for item in done)]
        return [event for event in events if event is not None]

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        member = self._members[agent]
        call = member.actor.measure.options(num_returns="streaming", _generator_backpressure_num_objects=BACKPRESSURE)
        member.streams[lease] = call.remote([cell.to_dict() for cell in cells])

    def push(self, model: bytes, version: str) -> None:
        self._model = (ray.put(model), version)
        for member in self._members.values():
            if member.ready is None:
                member.actor.take_model.remote(*self._model)

    def close(self) -> None:
        for member in self._members.values():
            ray.kill(member.actor)

    def actors(self) -> dict[str, Any]:
        """By agent name."""
        return {name: member.actor for name, member in self._members.items()}

    def _ready(self, name: str) -> Event | None:
        member = self._members[name]
        try:
            said = ray.get(member.ready)
        except ray.exceptions.RayError as error:
            log.warning("agent %s can't start: %s", name, _first_line(error))
            member.failed_starts += 1
            # Ray restarts the actor: ask again, but not for ever
            member.ready = member.actor.describe.remote() if member.failed_starts < MAX_STARTS else None
            return Ended(agent=name, lease=-1, error=_first_line(error))
        member.ready = None
        if self._model:
            member.actor.take_model.remote(*self._model)
        member.said = Ready(agent=name, device=Device.from_json(said["device"]), host=said["host"], local=member.node_id == self._here)
        return member.said

    def _next(self, name: str, lease: int) -> Event:
        member = self._members[name]
        try:
            return Samples(agent=name, lease=lease, table=ray.get(next(member.streams[lease])))
        except StopIteration:
            del member.streams[lease]
            return Ended(agent=name, lease=lease)
        except ray.exceptions.RayError as error:
            del member.streams[lease]
            log.warning("agent %s lost lease %d: %s", name, lease, _first_line(error))
            return Ended(agent=name, lease=lease, error=_first_line(error))

    def _look_for_nodes(self) -> None:
        if monotonic() - self._looked_s < LOOK_FOR_NODES_S:
            return
        self._looked_s = monotonic()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        for node in nodes:
            if node["Alive"]:
                for name, kind, gpus in self._wanted(node):
                    if name not in self._members:
                        self._members[name] = self._spawn(name, kind, gpus, node["NodeID"])

    def _wanted(self, node: dict[str, Any]) -> list[tuple[str, str, int]]:
        """(agent, kind, GPUs it takes) for a node."""
        host, short = node["NodeManagerHostname"], node["NodeID"][:6]
        gpus = int(node["Resources"].get("GPU", 0))
        kind = self._plan.devices.kind
        if kind == "replay":
            here = node["NodeID"] == self._here
            return [(f"{host}-{short}/replay{i}", "replay", 0) for i in range(self._plan.devices.agents)] if here else []
        if kind == "cpu" or (kind == "auto" and not gpus):
            return [(f"{host}-{short}/cpu", "cpu", 0)]
        return [(f"{host}-{short}/gpu{i}", "cuda", 1) for i in range(gpus)]

    def _spawn(self, name: str, kind: str, gpus: int, node_id: str) -> _Member:
        devices = self._plan.devices
        procedure = asdict(self._plan.measure.procedure())
        spec: dict[str, Any] = {"kind": kind, "agent": name, "model_dir": str(self._model_dir), "procedure": procedure}
        if kind == "replay":
            spec |= {"dataset": devices.dataset, "device_name": devices.device_name}
        where = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
        actor = Agent.options(  # type: ignore[attr-defined]
            num_gpus=gpus, scheduling_strategy=where
        ).remote(spec, self._plan.measure.timeout_s)
        return _Member(actor=actor, node_id=node_id, ready=actor.describe.remote())


def cluster_address(asked: str | None) -> str:
    """Where `connect` is to go: what was asked for, RAY_ADDRESS, the cluster of the job that we are, or a cluster of our own."""
    return asked or os.environ.get("RAY_ADDRESS") or ("auto" if inside_job() else EMBEDDED)


def connect(target: str) -> None:
    """Join the cluster at `target` ("auto" for the one this machine belongs to), or start one in this process.

    Raises:
        GemmcastError: no cluster answers there.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if target == EMBEDDED:
        options["include_dashboard"] = False
    elif not inside_job():
        options["runtime_env"] = {"working_dir": str(ROOT), "excludes": NOT_SHIPPED}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(address=target, **options)
    except (ConnectionError, ray.exceptions.RayError, RuntimeError) as error:
        raise GemmcastError(
            f"--address = {target!r}: no Ray cluster answers there ({_first_line(error)}); start one with `ray start --head`"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    # a RayTaskError's own message stands last, behind the remote traceback
    return (lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0])[:400] if lines else type(error).__name__
