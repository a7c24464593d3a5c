"""From shifts to findings: slow, memory, capped, hot, power.

    at equal clock slower                            slow; memory, if the memory-bound cells are it
    clock lower where the power cap does not act     capped; hot, if the temperature is the reason

A threshold of SIGMAS is one-sided: a board that is faster, cooler or thriftier than others is well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from coordinator.health.findings import KIND_NAMES, Finding, held_against
from coordinator.health.shifts import Shift

SIGMAS: Final = 3.5
"""From here on a shift is a fault: one healthy board of 4,000 is as far off."""
LEAST_POWER: Final = 0.08
"""Less additional power than this says little: leakage differs from chip to chip."""
MUCH: Final = 0.5
"""Kinds of cells with less than this share of the largest shift are as usual. A fault is the
memory's while compute-bound cells are."""
CLOCK_REST: Final = 0.25
"""Cells do not follow the clock exactly: so much of its shift is no slowness of its own."""
HOT_C: Final = 87.0
"""Temperature that is too high on any board."""
WARM_C: Final = 82.0
"""Temperature that is too high where sisters are COOLER_C below."""
COOLER_C: Final = 15.0
LOW_START: Final = 0.95
"""Boards that are well begin every cell at 0.97 of their highest clock or more."""
LOW_LIMIT: Final = 0.97
"""A power limit below this share of its sisters' is one."""


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


Shifts = Mapping[str, Shift]
"""Kind of cell, `clock` or `power` -> how far it is off; `raw KIND` at whatever clock it ran."""


def speed_findings(shifts: Shifts, state: State) -> list[Finding]:
    """What is not well with the speed and the power of a board."""
    findings: list[Finding] = []
    held_down = _held_down(shifts, state)
    if held_down is not None:
        findings.append(held_down)
    slow = _slow(shifts)
    if slow is not None:
        findings.append(slow)
    hungry = _hungry(shifts)
    if hungry is not None:
        findings.append(hungry)
    return findings


def is_off(shift: Shift | None) -> bool:
    """Whether a reading is above what healthy boards have."""
    return shift is not None and shift.sigmas >= SIGMAS


def _held_down(shifts: Shifts, state: State) -> Finding | None:
    """Hot or capped: a low clock, a low limit, or a temperature."""
    clock = shifts.get("clock")
    is_low = clock is not None and clock.sigmas <= -SIGMAS
    if not (is_low or state.is_held_down or state.is_hot or state.has_low_limit):
        return None
    parts = [_slower(shifts)] if is_low else []
    if (is_low or state.is_held_down) and state.clock_mhz and state.clock_max_mhz:
        parts.append(f"clock {state.clock_mhz:,.0f} of {state.clock_max_mhz:,.0f} MHz")
    if state.is_hot:
        parts.append(_temperature(state))
    if state.has_low_limit:
        limits = f"power limit {state.limit_w:.0f} W, sisters have {state.sisters_limit_w:.0f} W"
        parts.append(limits)
    sort = "hot" if state.is_hot else "capped"
    sigmas = -clock.sigmas if clock is not None and is_low else None
    return Finding(sort=sort, text=f"is {sort}: {'; '.join(parts)}", sigmas=sigmas)


def _temperature(state: State) -> str:
    if state.temperature_c is None:
        return "the driver holds the clock down for the temperature"
    others = "" if state.sisters_c is None else f", sisters have {state.sisters_c:.0f} °C"
    return f"{state.temperature_c:.0f} °C{others}"


def _slower(shifts: Shifts) -> str:
    """By how much a low clock slows its cells down."""
    raw = {kind: shifts[f"raw {kind}"] for kind in KIND_NAMES if f"raw {kind}" in shifts}
    clock = shifts["clock"]
    if not raw:
        return f"its clock is {-clock.percent:.1f} % below {held_against(clock)}"
    kind = max(raw, key=lambda name: raw[name].shift)
    cells = f"{KIND_NAMES[kind]} cells"
    slower = f"{raw[kind].percent:.1f} % slower than {held_against(raw[kind])} on {cells}"
    return f"{slower} ({-clock.sigmas:.1f} sigma by its clock)"


def _slow(shifts: Shifts) -> Finding | None:
    """Slow at equal clock."""
    clock = shifts.get("clock")
    rest = 0.0 if clock is None else CLOCK_REST * max(0.0, -clock.shift)
    kinds = [kind for kind in KIND_NAMES if is_off(shifts.get(kind))]
    kinds = [kind for kind in kinds if shifts[kind].shift > rest]
    if not kinds:
        return None
    worst = max(kinds, key=lambda kind: shifts[kind].shift)
    compute = shifts.get("compute")
    of_compute = 0.0 if compute is None else compute.shift
    is_memorys = worst == "memory" and of_compute < MUCH * shifts[worst].shift
    # The kind with the most evidence speaks for the others, where all are slow.
    told = worst if is_memorys else max(kinds, key=lambda kind: shifts[kind].sigmas)
    shift = shifts[told]
    text = f"is {shift.percent:.1f} % slower than {held_against(shift)} on {KIND_NAMES[told]} cells"
    text += f" ({shift.sigmas:.1f} sigma, {shift.cells} cells){_others(shifts, told)}"
    if is_memorys:
        text += ": the memory is slow"
    return Finding(sort="memory" if is_memorys else "slow", text=text, sigmas=shift.sigmas)


def _others(shifts: Shifts, told: str) -> str:
    """What the other kinds of cells show."""
    usual, slower = [], []
    for kind, name in KIND_NAMES.items():
        if kind == told or kind not in shifts:
            continue
        shift = shifts[kind]
        if is_off(shift) or shift.shift > MUCH * shifts[told].shift:
            slower.append(f"{name} cells {shift.percent:+.1f} %")
        else:
            usual.append(name)
    text = "".join(f", {words}" for words in slower)
    return text + (f", {' and '.join(usual)} cells are as usual" if usual else "")


def _hungry(shifts: Shifts) -> Finding | None:
    power = shifts.get("power")
    if power is None or not is_off(power) or power.shift < LEAST_POWER:
        return None
    text = f"takes {power.percent:.1f} % more power than {held_against(power)} for the same cells"
    return Finding(sort="power", text=f"{text} ({power.sigmas:.1f} sigma)", sigmas=power.sigmas)


def median_of(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    """The median of those that were read."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
