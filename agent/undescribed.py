"""Answers for a device that others used while its peaks were measured: the descriptors are wrong.

Every cell becomes a row "contended" until the others have left. Then a new process describes the
device anew and goes on with the cells (agent/child.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from agent.devices import DeviceBackend
from agent.messages import Event, Outcome, Restart
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import failed


class UndescribedInstrument:
    """An `Instrument` that measures nothing."""

    def __init__(self, backend: DeviceBackend, device: Device, agent: str) -> None:
        self.device = device
        self._backend = backend
        self._agent = agent

    def measure_all(
        self,
        cells: Sequence[Cell],
        *,
        depth: int | None = None,
        begun: Callable[[Cell], None] = lambda _: None,
    ) -> Iterator[Event]:
        """See `Instrument`; the answers come in the order of the cells."""
        for cell in cells:
            reason = self._backend.contention()
            if reason is None:
                yield Restart()
                return
            begun(cell)
            yield Outcome(failed(cell, self.device, self._agent, "contended", reason))
