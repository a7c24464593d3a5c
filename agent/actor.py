"""The agent: a Ray actor that owns one device through its measuring child.

The actor never touches CUDA. One thread streams measurements; meanwhile another one stores models
and tuned tables, and a third one says that the process lives. Actors are owned by the coordinator
and end with it; the node's model directory outlives both. Does not know plans, nor what a row
means.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from time import monotonic

import ray

from agent.spec import AgentSpec, Hello
from agent.supervisor import ChildSupervisor
from gemmcast import modeldir, tabledir
from gemmcast.arrow import to_bytes, to_table
from gemmcast.cell import Cell
from gemmcast.rows import Row
from gemmcast.tabledir import Shipped

BATCH_ROWS = 500
"""A batch of rows is sent when it has this many."""


@ray.remote(  # type: ignore[call-overload]  # Ray's stubs lack concurrency groups
    num_cpus=0,
    max_restarts=-1,
    max_task_retries=0,
    concurrency_groups={"measure": 1, "control": 1, "pulse": 1},
)
class Agent:
    """One device of one node."""

    def __init__(self, spec: AgentSpec) -> None:
        self._spec = spec
        self._supervisor: ChildSupervisor | None = None

    @ray.method(concurrency_group="measure")
    def hello(self) -> Hello:
        """Start the measuring child, if none is running, and describe its device."""
        return Hello(device=self._running().be_ready(), host=socket.gethostname())

    @ray.method(concurrency_group="pulse")
    def pulse(self) -> None:
        """Answer, whatever the child does."""

    @ray.method(concurrency_group="measure", num_returns="streaming")
    def measure(self, cells: list[Cell], batch_s: float) -> Iterator[bytes]:
        """Yield batches of samples (`gemmcast.arrow.from_bytes`) while the measuring goes on.

        Args:
            batch_s: a batch is sent after this time, however few rows it has.
        """
        rows: list[Row] = []
        sent_s = monotonic()
        for row in self._running().measure(cells):
            if row is not None:
                rows.append(row)
            is_due = len(rows) >= BATCH_ROWS or monotonic() - sent_s > batch_s
            if rows and is_due:
                yield to_bytes(to_table(rows))
                rows = []
                sent_s = monotonic()
        if rows:
            yield to_bytes(to_table(rows))

    @ray.method(concurrency_group="control")
    def take_model(self, model: bytes, version: str) -> str:
        """Make `model` the current one of this node; returns the version that a reader gets."""
        directory = self._spec.model_dir
        modeldir.put_model(directory, model, version)
        current = modeldir.read_current(directory)
        modeldir.read_model(directory, current)
        return current.version

    @ray.method(concurrency_group="control")
    def take_tables(self, tables: list[Shipped], version: str) -> str:
        """Make these the tuned tables of this node; returns the version that a reader gets."""
        directory = self._spec.model_dir
        tabledir.put_tables(directory, tables)
        current = tabledir.read_current(directory)
        for placed in current.tables:
            tabledir.read_table(directory, placed)
        return current.version

    def _running(self) -> ChildSupervisor:
        if self._supervisor is None:
            self._supervisor = ChildSupervisor(self._spec)
        return self._supervisor
