"""One run of a plan in a workspace, from lock to last commit: what `run` and `demo` do.

Ctrl-C and SIGTERM end it within two seconds: what has arrived is committed, the rest is measured next time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from agent.devices.local import local_device
from coordinator import terminal
from coordinator.fleet.cluster import EMBEDDED, RayFleet, cluster_address, connect
from coordinator.fleet.scheduler import Scheduler
from coordinator.fleet.trainer import RayTrainer
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from coordinator.terminal import ModelLine, progress
from coordinator.workspace import Workspace
from gemmcast.cell import Cell
from gemmcast.modeldir import write_atomically
from registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a run reads and writes, when not in the workspace."""

    store: str | None = None
    registry: str | None = None
    model_dir: Path | None = None


class Stop:
    """Whether SIGINT or SIGTERM has come; a second one interrupts at once, as the first does before `listen`."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        return self._event.is_set()

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()


@contextmanager
def stopping() -> Iterator[Stop]:
    """While this is open signals end the process at once, and from `listen` on set a flag."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = Stop()
    for number in before:  # nothing is measured yet that could be lost, and Ray takes seconds to start
        signal.signal(number, lambda _number, _frame: terminal.leave_now())
    try:
        yield stop
    finally:
        for number, action in before.items():
            signal.signal(number, action)


class RunSession:
    """A connected cluster, a store and a registry, ready to run plans. Use inside `with`."""

    def __init__(self, plan: Plan, workspace: Workspace, places: Places, address: str | None) -> None:
        self.plan, self.workspace, self.places = plan, workspace, places
        self._address = address
        self.model_line = ModelLine()

    @property
    def model_dir(self) -> Path:
        return self.places.model_dir or self.workspace.node

    @contextmanager
    def open(self) -> Iterator[Stop]:
        """The workspace locked, Ray connected, signals caught."""
        target = cluster_address(self._address)
        if target == EMBEDDED:
            plan_cells(self.plan, local_device(self.plan))  # what this machine can't measure is refused before anything is written
        with self.workspace.locked(), stopping() as stop:
            write_atomically(self.workspace.plan, self.plan.model_dump_json(indent=1).encode())
            self.store = SampleStore.open(self.places.store or self.workspace.samples, create=True)
            self.registry = Registry(self.places.registry or self.workspace.registry)
            try:
                connect(target)
            except SystemExit:  # by the SIGTERM handler that Ray puts in place of ours while it starts
                terminal.leave_now()
            stop.listen()
            self.fleet = RayFleet(self.plan, self.model_dir)
            self._trained_rows = self._push_champion()
            try:
                yield stop
            finally:
                self.fleet.close()
                # a cluster of our own ends with this process: the kernel kills it (PR_SET_PDEATHSIG), quicker than ray.shutdown() can
                if not (target == EMBEDDED and stop()):
                    ray.shutdown()

    def run(self, stop: Stop, *, cells: Sequence[Cell] | None = None, train: bool = True, label: str = "measuring") -> dict[str, Any]:
        """Measure, and train as the plan says; a summary."""
        trainer = RayTrainer(self.plan.train, self.registry, told=self.model_line.told) if train else None
        loop = Scheduler(self.plan, self.store, self.fleet, trainer, cells=cells, trained_rows=self._trained_rows)
        with progress(self.model_line, label=label) as show:
            complete = loop.run(stop=stop, show=show)
            if complete:
                loop.train_once_more(stop=stop, show=show)
        return {**asdict(loop.progress), "statuses": dict(loop.progress.statuses), "complete": complete, "store_version": self.store.version}

    def _push_champion(self) -> int:
        """The agents start with what is champion now; rows that the newest version was trained and tested on."""
        if not self.registry.champion():
            return 0
        model, card, version = self.registry.load("champion")
        self.model_line.told(card, version.number)
        self.fleet.push(model, version.number)
        return max(known.rows for known in self.registry.list())
