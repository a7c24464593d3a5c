"""One run of the real coordinator with so many replayed agents, in this process.

The scheduler, its leases, commits, store and deliveries are those of `python -m coordinator run`,
with what it shows and records beside; the agents are elsewhere (replayed.py). No training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, process_time
from typing import TYPE_CHECKING, TypedDict

from benchmarks.fleet.messages import Pace
from benchmarks.fleet.recording import Recording
from benchmarks.fleet.replayed import ReplayedFleet
from benchmarks.fleet.watched import Lags, Memory, Pushes, resident_mib
from coordinator.fleet.interface import Fleet, Progress
from coordinator.fleet.live import utc_now
from coordinator.fleet.pacing import batch_s
from coordinator.fleet.record import Recorder
from coordinator.fleet.run_watch import RunNote, RunWatch
from coordinator.fleet.scheduler import Scheduler
from coordinator.fleet.tally import Tally
from coordinator.plan.schema import Plan, parse_plan
from coordinator.progress import RunDisplay
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from gemmcast import models
from gemmcast.arrow import read_samples
from gemmcast.cell import Cell
from gemmcast.descriptions import device_of
from gemmcast.device import Device

if TYPE_CHECKING:
    from benchmarks.fleet.behind_ray import FleetBehindRay

RECORDING = Path(__file__).resolve().parents[2] / "datasets" / "h200_demo_tuning.parquet"
SECOND_BOARD = 0.05
"""Share of cells that two boards measure, as by default."""
SATURATED_BATCH = 100
AGENTS_PER_NODE = 8
PLAN = {
    "name": "fleet-scale",
    "devices": {"kind": "cuda", "second_board": SECOND_BOARD},
    # What is measured is given to the scheduler.
    "sweep": [{"family": "cublas", "dtypes": ["fp16"], "shapes": {"sample": 1}}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a fleet does."""

    agents: int
    rows: int
    """Of all agents together."""
    rows_per_s: float
    """Of each agent; infinite: as fast as they are taken."""
    batch_rows: int

    @staticmethod
    def paced(agents: int, rows_per_s: float, seconds: float) -> Offer:
        """Agents that send as often as the coordinator says."""
        return Offer(
            agents=agents,
            rows=round(agents * rows_per_s * seconds),
            rows_per_s=rows_per_s,
            batch_rows=round(rows_per_s * batch_s(agents)),
        )

    @staticmethod
    def saturated(agents: int, rows: int) -> Offer:
        """Agents that send as fast as they are heard."""
        return Offer(agents=agents, rows=rows, rows_per_s=math.inf, batch_rows=SATURATED_BATCH)

    @property
    def seconds(self) -> float:
        """How long the rows take; 0 where nothing paces them."""
        return self.rows / self.agents / self.rows_per_s


class Figures(TypedDict):
    """What one run came to."""

    agents: int
    offered_rows: int
    committed_rows: int
    coordinator_rss_mib: float
    coordinator_cpu_s: float
    p99_lag_s: float
    push_last_s: float | None
    lag_growth_s: float
    start_cpu_s: float
    seconds: float
    commits: int
    memory_mib: list[float]


def run_point(offer: Offer, folder: Path, *, is_behind_ray: bool = False) -> Figures:
    """Offer rows to a coordinator in this process until all cells are measured.

    Args:
        folder: an empty one.
        is_behind_ray: each agent is an actor of Ray (behind_ray.py).
    """
    device = _device()
    plan = parse_plan(PLAN)
    cells = _cells(device, offer.rows)
    pace = Pace(rows_per_s=offer.rows_per_s, batch_rows=offer.batch_rows)
    agents = _agents(device, offer.agents)
    fleet: ReplayedFleet | FleetBehindRay
    if is_behind_ray:
        from benchmarks.fleet.behind_ray import behind_ray

        fleet = behind_ray(agents, RECORDING, pace, folder / "nodes")
    else:
        fleet = ReplayedFleet(agents, RECORDING, pace, folder / "nodes")
    with SampleStore.writing(folder / "samples", folder) as store:
        lags = Lags(store)
        run = _Run(plan, store, fleet, cells, offer.seconds / 2)
        run.measure(Workspace(folder))
    fleet.close()
    return Figures(
        agents=offer.agents,
        offered_rows=fleet.offered_rows,
        committed_rows=sum(SampleStore.open(folder / "samples", create=False).counts().values()),
        coordinator_rss_mib=run.rss_mib,
        coordinator_cpu_s=run.cpu_s,
        p99_lag_s=lags.p99_s(),
        push_last_s=run.pushes.last_s,
        lag_growth_s=lags.growth_s(),
        start_cpu_s=run.start_cpu_s,
        seconds=run.seconds,
        commits=lags.commits,
        memory_mib=run.memory_mib,
    )


class NoMeters:
    """Meters that nobody reads: Ray's exporter is not there."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """See `Meters`."""

    def add(self, name: str, amount: float, **labels: str) -> None:
        """See `Meters`."""


class _Run:
    """A run of the scheduler, and what it takes."""

    def __init__(
        self,
        plan: Plan,
        store: SampleStore,
        fleet: Fleet,
        cells: Sequence[Cell],
        push_after_s: float,
    ) -> None:
        self._fleet = fleet
        self.pushes = Pushes(models.path().read_bytes(), fleet.delivery, push_after_s)
        self._plan_name = plan.name
        self._tally = Tally()
        self._scheduler = Scheduler(
            plan, store, fleet, None, champions=self.pushes, cells=cells, tally=self._tally
        )
        self.seconds = 0.0
        self.cpu_s = 0.0
        """Of this process, from the first event to the last commit."""
        self.start_cpu_s = 0.0
        """Of that, until the first leases were out."""
        self.rss_mib = 0.0
        self.memory_mib: list[float] = []

    def measure(self, workspace: Workspace) -> None:
        """Run to the end."""
        memory = Memory()
        recorder = Recorder(self._fleet, workspace)
        note = RunNote(self._plan_name, utc_now(), workspace.live)
        watch = RunWatch(note, self._fleet, NoMeters(), self._tally, list)
        began_s, began_cpu_s = monotonic(), process_time()
        with RunDisplay().progress("measuring") as show_progress:

            def show(progress: Progress) -> None:
                """As `run` does it, once a round."""
                recorder.note(progress)
                watch.look(progress)
                show_progress(progress)
                self.pushes.look()
                if not self.start_cpu_s and progress.agents:
                    self.start_cpu_s = process_time() - began_cpu_s

            self._scheduler.run(stop=lambda: False, show=show)
        self.cpu_s = process_time() - began_cpu_s
        self.seconds = monotonic() - began_s
        self.rss_mib = resident_mib()
        memory.close()
        self.memory_mib = memory.mib


def _device() -> Device:
    return device_of(read_samples(RECORDING).to_pylist())


def _agents(device: Device, count: int) -> dict[str, Device]:
    """Boards of one type."""
    agents = {}
    for number in range(count):
        name = f"node{number // AGENTS_PER_NODE:05}/gpu{number % AGENTS_PER_NODE:03}"
        agents[name] = replace(device, uuid=f"GPU-{number:08}")
    return agents


def _cells(device: Device, rows: int) -> list[Cell]:
    """As many as make so many rows, some of them measured by two boards."""
    problems = Recording(RECORDING).problems
    count = round(rows / (1 + SECOND_BOARD))
    cells: list[Cell] = []
    for repeat in range(math.ceil(count / len(problems))):
        for gemm, config in problems:
            cells.append(Cell(gemm=gemm, config=config, device_key=device.name, repeat=repeat))
    del cells[count:]
    for cell in cells:
        # A plan has them all before its first lease, to tell equal cells.
        assert cell.cell_id
    return cells
