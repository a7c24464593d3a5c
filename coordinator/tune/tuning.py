"""One tuning, wherever its cells are measured: what to measure, round by round, and the tables.

    tuning = Tuning(request, folder, devices, predictors)
    complete = tuning.run(measure, rows)
    result = tuning.write(out, complete)

`measure` has the cells measured that have no answer yet, `rows` gives every sample that is kept for
good. A decision rests on those alone, so a tuning may be killed at any moment and started again.
Knows neither Ray nor a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from coordinator.plan.cells import seconds_of
from coordinator.plan.schema import Plan
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
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.predictor import Predictor

POOL = 32
"""Rivals that are kept of a problem, for each of the first turn: readings, and another type of
device, may rank others first."""
Measure = Callable[[Sequence[Cell], str], bool]
"""Measures cells until all are answered, under a label; False: it was stopped."""
Rows = Callable[[], pa.Table]
"""Every committed sample, with coordinator.tune.readings.COLUMNS at least."""


class Tuning:
    """See the head of this file.

    Args:
        folder: where records are kept (coordinator/tune/record.py).
        devices: one of each type, by what its cells carry as device_key.
        predictors: those that may rank, the best first; needed where there is no record yet.

    Raises:
        InputError: a family that no such device has, an objective that it can't measure, a list
            of which no kernel computes anything, or a damaged record.
        WorkspaceError: a record can't be written.
    """

    def __init__(
        self,
        request: Request,
        folder: Path,
        devices: Mapping[str, Device],
        predictors: Callable[[], Sequence[Predictor]],
    ) -> None:
        self._request = request
        self._folder = folder
        self._devices = dict(sorted(devices.items()))
        self._predictors = predictors
        self._readings = Readings()
        self._plan = request.plan()
        self.search = self._search()

    def run(self, measure: Measure, rows: Rows) -> bool:
        """Round by round until everything is decided; False: it was stopped."""
        return run_rounds(self.search, self._readings, measure, rows)

    def write(self, out: Path, is_complete: bool) -> TuneResult:
        """Write a table for each type of device. Raises WorkspaceError if that fails."""
        return write_results(self.search, self._readings, self._devices, out, is_complete)

    def _search(self) -> Search:
        request = self._request
        problems: dict[str, Sequence[Problem]] = {}
        series: dict[str, int] = {}
        for name, device in self._devices.items():
            _check_power(request, device)
            digest = request.digest(device)
            record = self._record(device, digest)
            problems[name] = record.problems
            # A recording holds the turn 0 of every cell, and no other.
            series[name] = 0 if request.is_replay else record.series(digest)
        _check_runnable(problems)
        settings = Settings(
            objective=request.objective,
            limits=Limits.of(request.objective, is_replay=request.is_replay),
            top=request.top,
            series=series,
            budget_s=request.budget_s,
            is_replay=request.is_replay,
        )
        kinds = {name: device.kind for name, device in self._devices.items()}
        return Search(problems, kinds, settings, self._seconds_of)

    def _seconds_of(self, cell: Cell) -> float:
        plan: Plan = self._plan
        return seconds_of(plan, cell, self._devices[cell.device_key])

    def _record(self, device: Device, digest: str) -> Record:
        path = self._folder / f"{digest}.json"
        again = self._request.again and not self._request.is_replay
        return read_or_make(path, lambda: self._problems(device), again=again)

    def _problems(self, device: Device) -> list[Problem]:
        request = self._request
        pools = Pools(
            families=request.families,
            kernel_set=request.kernel_set,
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


def _check_power(request: Request, device: Device) -> None:
    if request.objective.is_metered and not device.has_power:
        rule = f"needs power, which can't be read on {device.name}"
        raise InputError("--objective", str(request.objective), rule, "use time")


def _check_runnable(problems: Mapping[str, Sequence[Problem]]) -> None:
    """Refuse a list that would give empty tables, in the place of those that are there."""
    every = [one for of_type in problems.values() for one in of_type]
    if any(one.default is not None for one in every):
        return
    rule = f"no kernel computes any of them: {every[0].reason}"
    raise InputError("GEMMs", str(every[0].listed), rule, "name other --families or another list")


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
