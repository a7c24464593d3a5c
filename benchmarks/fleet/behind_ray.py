"""The replayed agents as actors of Ray, behind the coordinator's own `RayFleet`.

Each is a process without a measuring child, so that some thirty of them leave the coordinator its
processor. What it spends more than behind a pipe (replayed.py) is Ray's part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep

import ray

from agent.spec import Hello
from benchmarks.fleet.messages import Pace
from benchmarks.fleet.recording import Recording
from coordinator.fleet.cluster import Handle, RayFleet
from coordinator.fleet.connection import EMBEDDED, connect
from coordinator.fleet.interface import Event, Samples
from coordinator.fleet.placement import Placement
from coordinator.plan.schema import Plan, parse_plan
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import ShippedModel
from signing import node

CONCURRENCY = {"measure": 1, "control": 1, "pulse": 1}
"""As in agent/actor.py."""


@ray.remote(num_cpus=0, concurrency_groups=CONCURRENCY)  # type: ignore[call-overload]
class PacedAgent:
    """What agent/actor.py is, with recorded rows in place of a device."""

    def __init__(
        self, name: str, device: Device, recording: Path, pace: Pace, model_dir: Path
    ) -> None:
        self._name = name
        self._device = device
        self._pace = pace
        self._model_dir = model_dir
        self._recording = Recording(recording)
        self._sample_ids = map("{:032x}".format, itertools.count())
        self._next_s = 0.0

    @ray.method(concurrency_group="measure")
    def hello(self) -> Hello:
        """See `Agent`."""
        return Hello(device=self._device, host="benchmark")

    @ray.method(concurrency_group="pulse")
    def pulse(self) -> None:
        """See `Agent`."""

    @ray.method(concurrency_group="measure", num_returns="streaming")
    def measure(self, cells: list[Cell], batch_s: float) -> Iterator[bytes]:
        """Yield batches at the agent's pace."""
        rows = round(self._pace.rows_per_s * batch_s)
        for start in range(0, len(cells), rows):
            batch = cells[start : start + rows]
            self._next_s = max(self._next_s, monotonic()) + len(batch) / self._pace.rows_per_s
            sleep(max(0.0, self._next_s - monotonic()))
            yield self._recording.batch(
                batch, self._name, self._device, self._sample_ids, self._pace
            )

    @ray.method(concurrency_group="control")
    def take_model(self, model: ShippedModel, version: str) -> str:
        """See `Agent`."""
        return node.take_model(self._model_dir, model, version)


class FleetBehindRay(RayFleet):
    """`RayFleet`, whose actors are paced agents."""

    def __init__(
        self, plan: Plan, agents: Mapping[str, Device], recording: Path, pace: Pace, folder: Path
    ) -> None:
        self._devices = list(agents.items())
        self._paced = (recording, pace)
        self._folder = folder
        self.offered_rows = 0
        """Rows that have come, new or not."""
        super().__init__(plan, folder)

    def poll(self, timeout_s: float) -> list[Event]:
        """See `Fleet`."""
        events = super().poll(timeout_s)
        batches = [event.table for event in events if isinstance(event, Samples)]
        self.offered_rows += sum(map(len, batches))
        return events

    def _actor(self, placement: Placement) -> Handle:
        # Placements of a replay are numbered.
        number = int(placement.agent.rpartition("replay")[2])
        name, device = self._devices[number]
        model_dir = self._folder / f"node{number}"
        return PacedAgent.remote(name, device, *self._paced, model_dir)  # type: ignore[attr-defined]


def behind_ray(
    agents: Mapping[str, Device], recording: Path, pace: Pace, folder: Path
) -> FleetBehindRay:
    """These agents, in a cluster of this host, as soon as they are ready."""
    devices = {"kind": "replay", "dataset": str(recording), "agents": len(agents)}
    sweep = {"family": "cublas", "dtypes": ["fp16"], "shapes": {"sample": 1}}
    connect(EMBEDDED)
    plan = parse_plan({"name": "behind-ray", "devices": devices, "sweep": [sweep]})
    fleet = FleetBehindRay(plan, agents, recording, pace, folder)
    while len(fleet.ready_agents()) < len(agents):
        fleet.poll(1.0)
    return fleet
