"""What is measured next of one problem, and how far a tuning goes.

In a turn the default and some rivals are measured once each, one directly after the other on one
board: with one rival, turns are the pattern ABAB. A turn's number is the `repeat` of its cells.
Knows no reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.tune.problem import Problem
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.objective import Objective


@dataclass(frozen=True, slots=True)
class Turn:
    """See the head of this file."""

    number: int
    configs: tuple[KernelConfig, ...]
    """In the order of measuring, the default first."""
    is_metered: bool
    """Whether power is measured too."""

    def cells(self, problem: Problem, series: int) -> list[Cell]:
        """The turn as cells.

        Args:
            series: number of the tuning's first turn; other tunings have another.
        """
        cells: list[Cell] = []
        for config in self.configs:
            cell = Cell(
                gemm=problem.gemm,
                config=config,
                device_key=problem.device_key,
                power=self.is_metered,
                repeat=series + self.number,
            )
            cells.append(cell)
        return cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far one problem goes."""

    race: int = 5
    """Turns of the race, at most: the default and all rivals that may still be best."""
    is_race_metered: bool = False
    widenings: int = 3
    """Turns of the race after which more rivals come in."""
    finalists: int = 1
    """How many of the race are compared with the default on fresh readings."""
    final: int = 12
    """Turns of the final, at most; 0: the race decides."""
    look: int = 3
    """Turns of the final between two decisions."""
    is_replay: bool = False
    """Whether a recording answers, which has one reading of each cell."""

    @staticmethod
    def of(objective: Objective, *, is_replay: bool = False) -> Limits:
        """For an objective; a recording has one reading of each cell."""
        if is_replay:
            return Limits(is_race_metered=objective.is_metered, final=0, is_replay=True)
        if objective.is_capped:
            # Only a power window says who stays below the limit.
            return Limits(race=1, widenings=0, finalists=4, final=6, look=2)
        if objective.is_metered:
            # The estimate in the race is by predicted power, so more than one stays in doubt.
            return Limits(race=2, widenings=1, finalists=2, final=6, look=2)
        return Limits()
