"""Measure only while nobody else uses the GPU (`only_idle` of a plan).

Before the measuring child starts, the GPU must be idle. When a whole lease was disturbed by others,
the child ends, so that they have all of the memory; until it is idle again, cells become rows
"contended" without a look of CUDA. Knows nothing of Ray, nor of NVML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError
from gemmcast.rows import Row, failed

CONTENDED = "contended"


class NotIdleError(GemmcastError):
    """Others use the GPU, so it is not opened."""


class Measuring(Protocol):
    """A supervisor of a measuring child (agent/supervisor.py)."""

    device: Device

    @property
    def pid(self) -> int | None:
        """Process id of the running child."""

    def be_ready(self) -> Device:
        """Start the child if none is running."""

    def measure(self, cells: Sequence[Cell]) -> Iterator[Row | None]:
        """Yield the row of each cell, and None now and then."""

    def stop(self) -> None:
        """End the child."""


class IdleOnly:
    """See the head of this file.

    Args:
        agent: its name, for rows.
        start: makes a supervisor, and with it the first child.
        in_use: why the GPU is not idle; only called while there is no child.
    """

    def __init__(
        self, agent: str, start: Callable[[], Measuring], in_use: Callable[[], str | None]
    ) -> None:
        self._agent = agent
        self._start = start
        self._in_use = in_use
        self._supervisor: Measuring | None = None

    def be_ready(self) -> Device:
        """Start the child if none is running.

        Raises:
            NotIdleError: others use the GPU.
            ChildDied: it cannot start.
        """
        reason = self._why_not()
        if reason is not None:
            raise NotIdleError(reason)
        return self._running().be_ready()

    def measure(self, cells: Sequence[Cell]) -> Iterator[Row | None]:
        """Yield the row of each cell as it is done, and None now and then during a long one."""
        reason = self._why_not()
        if reason is not None:
            device = self._known_device(reason)
            for cell in cells:
                yield failed(cell, device, self._agent, CONTENDED, reason)
            return
        supervisor = self._running()
        is_disturbed = True
        for row in supervisor.measure(cells):
            if row is not None and row["status"] != CONTENDED:
                is_disturbed = False
            yield row
        if is_disturbed:
            supervisor.stop()

    def _why_not(self) -> str | None:
        """Why no child may be started; None where one may, or runs."""
        is_running = self._supervisor is not None and self._supervisor.pid is not None
        return None if is_running else self._in_use()

    def _known_device(self, reason: str) -> Device:
        if self._supervisor is None:
            raise NotIdleError(reason)
        return self._supervisor.device

    def _running(self) -> Measuring:
        if self._supervisor is None:
            self._supervisor = self._start()
        return self._supervisor
