"""The agent: a Ray actor that owns one device through its measuring child.

It never touches CUDA. Measuring streams from one thread; models, predictions and questions about it are answered from another
meanwhile. Actors are owned by the coordinator and end with it; the node's model directory outlives both.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import ray

from agent.supervisor import ChildSupervisor
from gemmcast import modeldir
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.predictor import Predictor

BATCH_S = 0.4
BATCH_ROWS = 500


@ray.remote(  # type: ignore[call-overload]  # its stubs know no concurrency groups
    num_cpus=0, max_restarts=-1, max_task_retries=0, concurrency_groups={"measure": 1, "control": 2}
)
class Agent:
    """One device of one node.

    Args:
        spec: what agent/supervisor.py's Worker takes; `agent` is this agent's name.
        timeout_s: a cell's limit.
    """

    def __init__(self, spec: dict[str, Any], timeout_s: float) -> None:
        self._spec, self._timeout_s = spec, timeout_s
        self._directory = Path(spec["model_dir"])
        self._supervisor: ChildSupervisor | None = None
        self._predictor: Predictor | None = None

    @ray.method(concurrency_group="measure")
    def describe(self) -> dict[str, Any]:
        """The device, as JSON, and who we are. Starts the child."""
        supervisor = self._working()
        return {"device": supervisor.device.to_json(), "host": socket.gethostname(), "pid": os.getpid(), "child_pid": supervisor.pid}

    @ray.method(concurrency_group="measure", num_returns="streaming")
    def measure(self, cells: list[dict[str, Any]]) -> Iterator[pa.Table]:
        """Tables of samples, as they are done, while measuring goes on."""
        rows: list[dict[str, Any]] = []
        sent_s = monotonic()
        for row in self._working().measure([Cell.from_dict(cell) for cell in cells]):
            if row is not None:
                rows.append(row)
            if rows and (len(rows) >= BATCH_ROWS or monotonic() - sent_s > BATCH_S):
                yield to_table(rows)
                rows, sent_s = [], monotonic()
        if rows:
            yield to_table(rows)

    @ray.method(concurrency_group="control")
    def take_model(self, model: bytes, version: str) -> str:
        """Make it this node's current model; the SHA-256 that lies there now."""
        return modeldir.put_model(self._directory, model, version).sha256

    @ray.method(concurrency_group="control")
    def predict(self, rows: Any) -> dict[str, Any]:
        """Raw questions[n_rows, n_fields] to answers by output name, by the node's current model."""
        if self._predictor is None:
            self._predictor = Predictor(self._directory)
        return {**self._predictor.predict_rows(rows), "version": self._predictor.version}

    @ray.method(concurrency_group="control")
    def pids(self) -> dict[str, int | None]:
        """Of this process and of its measuring child."""
        return {"pid": os.getpid(), "child_pid": self._supervisor.pid if self._supervisor else None}

    def _working(self) -> ChildSupervisor:
        if self._supervisor is None:
            self._supervisor = ChildSupervisor(self._spec, self._timeout_s)
        return self._supervisor
