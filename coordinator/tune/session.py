"""A tuning on a fleet: agents, leases and store of a run, and the tables at the end.

What `python -m coordinator tune` does. Rounds of cells go through the same scheduler as a plan's.
Ctrl-C ends it with what is certain so far. Does not know how progress is shown, nor how a winner
is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from coordinator.fleet.interface import Display
from coordinator.fleet.session import Places, RunSession
from coordinator.fleet.signals import Stop
from coordinator.tune.readings import COLUMNS
from coordinator.tune.request import Request
from coordinator.tune.result import TuneResult
from coordinator.tune.tuning import Tuning
from coordinator.workspace import Workspace
from gemmcast import models
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import write_atomically
from gemmcast.predictor import Predictor


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
        self._folder = workspace.path / "tune"
        self._out = out or workspace.path / "tuned"
        self._plan = request.plan()
        self._session = RunSession(self._plan, workspace, places, display)

    def run(self, address: str | None = None, *, without_token: bool = False) -> TuneResult:
        """Measure until every problem has its verdict, then write the tables.

        Args:
            address: of a Ray cluster; None: that of the environment, or a cluster of our own.
            without_token: use all of its nodes though it asks for no token.

        Raises:
            InputError: a family that no device has, or a damaged record.
            GemmcastError: every agent has failed.
        """
        with self._session.open(address, without_token=without_token) as stop:
            self._session.run(stop, cells=[], train=False, label="starting agents")
            tuning = Tuning(self._request, self._folder, self._devices(), self._predictors)

            def measure(cells: Sequence[Cell], label: str) -> bool:
                """One round."""
                return self._measure(cells, label, stop)

            is_complete = tuning.run(measure, self._rows)
            return tuning.write(self._out, is_complete)

    def _rows(self) -> pa.Table:
        return self._session.store.columns(*COLUMNS)

    def _measure(self, cells: Sequence[Cell], label: str, stop: Stop) -> bool:
        committed = self._session.store.committed
        due = [cell for cell in cells if cell.cell_id not in committed]
        if not due or stop():
            return not stop()
        return self._session.run(stop, cells=due, train=False, label=label).complete

    def _devices(self) -> dict[str, Device]:
        """One device of each type, always the same of equal agents."""
        ready = sorted(self._session.fleet.ready_agents(), key=lambda one: one.agent)
        devices: dict[str, Device] = {}
        for one in ready:
            devices.setdefault(self._plan.devices.key_of(one.device), one.device)
        return devices

    def _predictors(self) -> list[Predictor]:
        """The workspace's champion, if there is one, and the model that comes with gemmcast."""
        shipped = Predictor(models.path())
        number = self._session.registry.champion_number()
        if number is None:
            return [shipped]
        path = self._folder / "champion.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self._session.registry.load(number).model)
        return [Predictor(path), shipped]
