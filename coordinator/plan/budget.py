"""How much of a plan is measured: a number of its cells, a share of them, or a time of a device.

    500      cells          0.1      a tenth of the cells          "90s", "10m", "2h"

A time is that of the cells' estimates, not of a clock: cells that have an answer have taken their
part of it, in whichever run. Each type of device has the whole budget. Does not know which cells
are chosen (coordinator/plan/acquire.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""[n_cells]"""
UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
TIME: Final = re.compile(r"(\d+(?:\.\d+)?)([smh])")
RULE: Final = 'give a number of cells, a share below 1 such as 0.1, or a time such as "10m"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What the cells of one type of device may come to."""

    limit: float
    """Cells or seconds."""
    is_time: bool
    """Whether the limit is in seconds."""

    @classmethod
    def of(cls, value: float | str, cells: int) -> Self:
        """From the plan's value and the number of cells that the plan has for the device.

        Raises:
            ValueError: with the rule; it is no budget.
        """
        if isinstance(value, str):
            return cls(limit=_seconds_in(value), is_time=True)
        if isinstance(value, int) and value >= 1:
            return cls(limit=float(value), is_time=False)
        if isinstance(value, float) and 0 < value < 1:
            return cls(limit=float(max(1, round(value * cells))), is_time=False)
        raise ValueError(RULE)

    def units(self, seconds: Values) -> Values:
        """[n_cells] What each cell takes of the limit."""
        return seconds if self.is_time else np.ones_like(seconds)

    def share_of(self, seconds: Values) -> float:
        """Of all cells or of their seconds, what it has room for; 1 at most."""
        return min(1.0, self.limit / float(self.units(seconds).sum()))

    def text(self, spent: float) -> str:
        """`1.5 of 10.0 min`, or `120 of 400 cells`."""
        if self.is_time:
            return f"{spent / 60:.1f} of {self.limit / 60:.1f} min"
        return f"{spent:.0f} of {self.limit:.0f} cells"


def _seconds_in(text: str) -> float:
    match = TIME.fullmatch(text)
    if match is None or not float(match[1]):
        raise ValueError(RULE)
    return float(match[1]) * UNITS_S[match[2]]
