"""The agent: a Ray actor that owns one device through its measuring child.

The actor never touches CUDA. One thread streams measurements; meanwhile another one stores models
and tuned tables, and a third one says that the process lives. Actors are owned by the coordinator
and end with it; the node's model directory outlives both. Does not know plans, nor what a row
means.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from time import monotonic

import ray

from agent.idle import IdleOnly
from agent.spec import AgentSpec, Hello
from agent.supervisor import ChildSupervisor
from gemmcast.arrow import to_bytes, to_table
from gemmcast.cell import Cell
from gemmcast.modeldir import ShippedModel
from gemmcast.rows import Row
from gemmcast.tabledir import Shipped
from signing import node

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
        self._supervisor: ChildSupervisor | IdleOnly | None = None
        if spec.kind == "cuda":
            _show_own_gpu_alone()

    @ray.method(concurrency_group="measure")
    def hello(self) -> Hello:
        """Start the measuring child, if none is running, and describe its device.

        Raises:
            NotIdleError: others use the GPU, and the plan leaves it to them.
        """
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
    def take_model(self, model: ShippedModel, version: str) -> str:
        """Make `model` the current one of this node; returns the version that a reader gets."""
        return node.take_model(self._spec.model_dir, model, version)

    @ray.method(concurrency_group="control")
    def take_tables(self, tables: list[Shipped], version: str) -> str:
        """Make these the tuned tables of this node; returns the version that a reader gets."""
        return node.take_tables(self._spec.model_dir, tables).version

    def _running(self) -> ChildSupervisor | IdleOnly:
        if self._supervisor is None:
            self._supervisor = self._new_supervisor()
        return self._supervisor

    def _new_supervisor(self) -> ChildSupervisor | IdleOnly:
        if not self._spec.only_idle or self._spec.kind != "cuda":
            return ChildSupervisor(self._spec)
        from agent.devices.usage import in_use

        return IdleOnly(self._spec.agent, lambda: ChildSupervisor(self._spec), in_use)


def _show_own_gpu_alone() -> None:
    """Let the child see the GPU that Ray has given this actor, and no other one.

    Ray sets the variable itself, unless the node was started with
    RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES: then every agent of a node would measure its first
    GPU.
    """
    gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
