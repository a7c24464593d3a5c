"""The measuring child of steady_child.py, which stays under a cell as long as a test wants.

    python tests/agent/held_child.py FD PARENT ...

While the model directory has a file `hold`, a cell that has begun does not go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import sleep

from steady_child import open_steady

from agent import child
from agent.instrument import Instrument
from agent.messages import Event
from agent.spec import AgentSpec
from gemmcast.cell import Cell
from gemmcast.device import Device


class HeldInstrument:
    """Waits after the begin of each cell."""

    def __init__(self, instrument: Instrument, hold: Path) -> None:
        self._instrument = instrument
        self._hold = hold

    @property
    def device(self) -> Device:
        return self._instrument.device

    def measure_all(
        self, cells: Sequence[Cell], *, depth: int | None, begun: Callable[[Cell], object]
    ) -> Iterator[Event]:
        def begun_and_held(cell: Cell) -> None:
            begun(cell)
            while self._hold.exists():
                sleep(0.01)

        return self._instrument.measure_all(cells, depth=depth, begun=begun_and_held)


def open_held(spec: AgentSpec) -> Instrument:
    return HeldInstrument(open_steady(spec), spec.model_dir / "hold")


if __name__ == "__main__":
    child.main(open_held)
