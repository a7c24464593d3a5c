"""In which state boards ran: clock, temperature, power limit. Rules that need no statistics.

Healthy boards of one type stand in different slots, so their temperatures differ by 15 °C and more;
only heat that costs clock, or soon will, is a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from coordinator.health.readings import Numbers, Readings, column, numbers

HOT_C: Final = 87.0
"""Temperature that is too high on any board."""
WARM_C: Final = 82.0
"""Temperature that is too high where sisters are COOLER_C below."""
COOLER_C: Final = 15.0
LOW_START: Final = 0.95
"""Boards that are well begin every cell at 0.97 of their highest clock or more."""
LOW_LIMIT: Final = 0.97
"""A power limit below this share of its sisters' is one."""
THERMAL: Final = 0x08 | 0x20 | 0x40
"""Bits of NVML for hardware slowdown, software and hardware thermal slowdown."""
THERMAL_SHARE: Final = 0.25
"""Share of the rows that have such a bit; a single one lingers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """In which state a board ran."""

    clock_mhz: float | None
    """Median over the cells of which `clock` is judged."""
    clock_max_mhz: float | None
    temperature_c: float | None
    """Highest of its readings."""
    sisters_c: float | None
    """Median of that over its sisters."""
    limit_w: float | None
    sisters_limit_w: float | None
    is_thermal: bool
    """Whether the driver named the temperature as the reason of a low clock."""
    start_share: float | None
    """Clock under a kernel that draws little power, over the highest one; median."""

    @property
    def is_held_down(self) -> bool:
        """Whether the board does not allow its highest clock even to what draws little power."""
        return self.start_share is not None and self.start_share < LOW_START

    @property
    def is_hot(self) -> bool:
        """Whether the temperature is too high."""
        if self.is_thermal:
            return True
        if self.temperature_c is None:
            return False
        is_warmer = self.sisters_c is not None and self.temperature_c - self.sisters_c >= COOLER_C
        return self.temperature_c >= HOT_C or (self.temperature_c >= WARM_C and is_warmer)

    @property
    def has_low_limit(self) -> bool:
        """Whether its power limit is below that of its sisters."""
        if self.limit_w is None or self.sisters_limit_w is None:
            return False
        return self.limit_w < LOW_LIMIT * self.sisters_limit_w


class States:
    """The states of the boards of one type.

    Args:
        table: the rows that the readings are of, in the sample schema.
    """

    def __init__(self, table: pa.Table, readings: Readings) -> None:
        self._readings = readings
        self._uuids = column(table["device_uuid"])
        self._bits = numbers(table["throttle_reasons"])
        self._limits_w = numbers(table["power_limit_w"])
        highest_mhz = numbers(table["clock_max_mhz"])
        self._clock_max_mhz = _median(highest_mhz)
        self._start_shares = numbers(table["clock_start_mhz"]) / highest_mhz
        boards = sorted(set(self._uuids.tolist()))
        self._highest_c = {board: self._highest(board) for board in boards}

    def of(self, board: str) -> State:
        """The state of one board, and what its sisters have."""
        own = self._uuids == board
        return State(
            clock_mhz=self._clock_mhz(board),
            clock_max_mhz=self._clock_max_mhz,
            temperature_c=_number(self._highest_c[board]),
            sisters_c=self._sisters_c(board),
            limit_w=_median(self._limits_w[own]),
            sisters_limit_w=_median(self._limits_w[~own]),
            is_thermal=self._is_thermal(self._bits[own]),
            start_share=_median(self._start_shares[own]),
        )

    def _clock_mhz(self, board: str) -> float | None:
        """Median over its compute-bound cells."""
        readings = self._readings
        log_mhz = _median(
            readings.log_mhz[(readings.board == board) & (readings.kind == "compute")]
        )
        return None if log_mhz is None else float(np.exp(log_mhz))

    def _highest(self, board: str) -> float:
        """NaN where no temperature was read."""
        read = self._readings.temperature_c[self._readings.board == board]
        return float(np.fmax.reduce(read, initial=np.nan))

    def _sisters_c(self, board: str) -> float | None:
        others = [highest for other, highest in self._highest_c.items() if other != board]
        return _median(np.array(others, dtype=np.float64))

    def _is_thermal(self, bits: Numbers) -> bool:
        read = bits[~np.isnan(bits)].astype(np.int64)
        if not len(read):
            return False
        return float(np.mean((read & THERMAL) > 0)) >= THERMAL_SHARE


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _median(values: Numbers) -> float | None:
    """Of those that were read."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
