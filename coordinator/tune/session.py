"""One tuning from the first agent to the last table: what `python -m coordinator tune` does.

Rounds of cells go through the same scheduler, leases and store as a plan's. A decision rests on
what is committed, so a tuning may be killed at any moment and started again. Ctrl-C ends it with
what is certain so far. Does not know how progress is shown, nor how a winner is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from coordinator.fleet.interface import Display
from coordinator.fleet.session import Places, RunSession
from coordinator.fleet.signals import Stop
from coordinator.plan.cells import seconds_of
from coordinator.tune.output import write_results
from coordinator.tune.pools import Pools
from coordinator.tune.problem import Problem
from coordinator.tune.readings import Readings
from coordinator.tune.record import Record, read_or_make
from coordinator.tune.recording import Recording
from coordinator.tune.request import Request
from coordinator.tune.result import TuneResult
from coordinator.tune.search import Search, Settings
from coordinator.tune.turns import Limits
from coordinator.workspace import Workspace
from gemmcast import models
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import write_atomically
from gemmcast.predictor import Predictor

POOL = 4
"""Rivals that are kept of a problem, for each that is measured: another type of device may rank
others first."""
Measure = Callable[[Sequence[Cell], str], bool]
"""Measures cells until all are answered; False: it was stopped."""
Rows = Callable[[], pa.Table]


class TuneSession:
    """A tuning in a workspace.

    Args:
        out: directory of the tables; None: in the workspace.
    """

    def __init__(
        self,
        request: Request,
        workspace: Workspace,
        places: Places,
        display: Display,
        out: Path | None = None,
    ) -> None:
        self._request = request
        self._workspace = workspace
        self._out = out or workspace.path / "tuned"
        self._plan = request.plan()
        self._session = RunSession(self._plan, workspace, places, display)

    def run(self, address: str | None = None) -> TuneResult:
        """Measure until every problem has its verdict, then write the tables.

        Args:
            address: of a Ray cluster; None: that of the environment, or a cluster of our own.

        Raises:
            InputError: a family that no device has, a damaged record, or an unmeasurable list.
            GemmcastError: every agent has failed.
        """
        with self._session.open(address) as stop:
            self._measure([], "starting agents", stop)
            devices = self._devices()
            records = {name: self._record(device) for name, device in devices.items()}
            search = self._search(devices, records)
            readings = Readings()
            is_complete = run_rounds(
                search,
                readings,
                lambda cells, label: self._measure(cells, label, stop),
                self._session.store.read,
            )
            return write_results(search, readings, devices, self._out, is_complete)

    def _measure(self, cells: Sequence[Cell], label: str, stop: Stop) -> bool:
        committed = self._session.store.committed
        due = [cell for cell in cells if cell.cell_id not in committed]
        if stop():
            return False
        if cells and not due:
            return True
        return self._session.run(stop, cells=due, train=False, label=label).complete

    def _devices(self) -> dict[str, Device]:
        """One device of each type, always the same of equal agents."""
        ready = sorted(self._session.fleet.ready_agents(), key=lambda one: one.agent)
        devices: dict[str, Device] = {}
        for one in ready:
            devices.setdefault(self._plan.devices.key_of(one.device), one.device)
        return dict(sorted(devices.items()))

    def _record(self, device: Device) -> Record:
        digest = self._request.digest(device)
        path = self._workspace.path / "tune" / f"{digest}.json"
        again = self._request.again and not self._request.is_replay
        return read_or_make(path, lambda: self._problems(device), again=again)

    def _problems(self, device: Device) -> list[Problem]:
        request = self._request
        pools = Pools(
            families=request.families,
            objective=request.objective,
            predictors=self._predictors(),
            count=POOL * request.top,
            recorded=self._recorded(device),
        )
        return [pools.problem(listed, device) for listed in request.gemms]

    def _recorded(self, device: Device) -> Recording | None:
        for table in self._request.devices.tables:
            if table.device_name == device.name:
                return Recording(Path(table.dataset), device.name, self._request.gemms)
        return None

    def _predictors(self) -> list[Predictor]:
        """The workspace's champion, if there is one, and the model that comes with gemmcast."""
        shipped = Predictor(models.path())
        number = self._session.registry.champion_number()
        if number is None:
            return [shipped]
        path = self._workspace.path / "tune" / "champion.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self._session.registry.load(number).model)
        return [Predictor(path), shipped]

    def _search(self, devices: Mapping[str, Device], records: Mapping[str, Record]) -> Search:
        request = self._request
        series: dict[str, int] = {}
        for name, device in devices.items():
            # A recording holds the turn 0 of every cell, and no other.
            digest = request.digest(device)
            series[name] = 0 if request.is_replay else records[name].series(digest)
        settings = Settings(
            objective=request.objective,
            limits=Limits.of(request.objective, is_replay=request.is_replay),
            top=request.top,
            series=series,
            budget_s=request.budget_s,
        )
        problems = {name: record.problems for name, record in records.items()}
        kinds = {name: device.kind for name, device in devices.items()}

        def seconds(cell: Cell) -> float:
            """About how long its device takes for it."""
            return seconds_of(self._plan, cell, devices[cell.device_key])

        return Search(problems, kinds, settings, seconds)


def run_rounds(search: Search, readings: Readings, measure: Measure, rows: Rows) -> bool:
    """Round by round, until everything is decided.

    Args:
        readings: what is committed is added here.
        rows: every committed sample.

    Returns:
        False: it was stopped, with what was certain by then.
    """
    number = 1
    while cells := search.next_round():
        label = f"round {number}, {search.progress()}"
        if not measure(cells, label):
            search.stop("stopped")
            return False
        readings.take(rows(), cells)
        search.note(readings)
        number += 1
    return True
