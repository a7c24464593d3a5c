"""From shifts to findings: slow, memory, capped, hot, power.

    at equal clock slower                            slow; memory, if the memory-bound cells are it
    clock lower where the power cap does not act     capped; hot, if the temperature is the reason

A threshold of SIGMAS is one-sided: a board that is faster, cooler or thriftier than others is well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coordinator.health.findings import KIND_NAMES, Finding, held_against
from coordinator.health.shifts import Shift
from coordinator.health.state import State

SIGMAS: Final = 3.5
"""From here on a shift is a fault: one healthy board of 4,000 is as far off."""
LEAST_POWER: Final = 0.08
"""Less additional power than this says little: leakage differs from chip to chip."""
MUCH: Final = 0.5
"""Kinds of cells with less than this share of the largest shift are as usual. A fault is the
memory's while compute-bound cells are."""
CLOCK_REST: Final = 0.25
"""Cells do not follow the clock exactly: so much of its shift is no slowness of its own."""

Shifts = Mapping[str, Shift]
"""Kind of cell, `clock` or `power` -> how far it is off; `raw KIND` at whatever clock it ran."""


def speed_findings(shifts: Shifts, state: State) -> list[Finding]:
    """What is not well with the speed and the power of a board."""
    findings = (_held_down(shifts, state), _slow(shifts), _hungry(shifts))
    return [finding for finding in findings if finding is not None]


def is_off(shift: Shift | None) -> bool:
    """Whether a reading is above what healthy boards have."""
    return shift is not None and shift.sigmas >= SIGMAS


def _held_down(shifts: Shifts, state: State) -> Finding | None:
    """Hot or capped: a low clock, a low limit, or a temperature."""
    clock = shifts.get("clock")
    parts: list[str] = []
    sigmas = None
    if clock is not None and clock.sigmas <= -SIGMAS:
        sigmas = -clock.sigmas
        parts.append(_slower(shifts, clock))
    if (parts or state.is_held_down) and state.clock_mhz and state.clock_max_mhz:
        parts.append(f"clock {state.clock_mhz:,.0f} of {state.clock_max_mhz:,.0f} MHz")
    if state.is_hot:
        parts.append(_temperature(state))
    if state.has_low_limit:
        own, others = f"{state.limit_w:.0f} W", f"{state.sisters_limit_w:.0f} W"
        parts.append(f"power limit {own}, sisters have {others}")
    if not parts:
        return None
    sort = "hot" if state.is_hot else "capped"
    return Finding(sort=sort, text=f"is {sort}: {'; '.join(parts)}", sigmas=sigmas)


def _temperature(state: State) -> str:
    if state.temperature_c is None:
        return "the driver holds the clock down for the temperature"
    others = "" if state.sisters_c is None else f", sisters have {state.sisters_c:.0f} °C"
    return f"{state.temperature_c:.0f} °C{others}"


def _slower(shifts: Shifts, clock: Shift) -> str:
    """By how much a low clock slows its cells down."""
    raw = [(shifts[f"raw {kind}"], kind) for kind in KIND_NAMES if f"raw {kind}" in shifts]
    if not raw:
        return f"its clock is {-clock.percent:.1f} % below {held_against(clock)}"
    shift, kind = max(raw, key=lambda one: one[0].shift)
    slower = f"{shift.percent:.1f} % slower than {held_against(shift)}"
    return f"{slower} on {KIND_NAMES[kind]} cells ({-clock.sigmas:.1f} sigma by its clock)"


def _slow(shifts: Shifts) -> Finding | None:
    """Slow at equal clock."""
    slow = _slow_kinds(shifts)
    if not slow:
        return None
    worst = max(slow, key=lambda kind: shifts[kind].shift)
    if worst == "memory" and _is_usual(shifts, "compute", worst):
        text = f"{_slower_on(shifts, worst)}: the memory is slow"
        return Finding(sort="memory", text=text, sigmas=shifts[worst].sigmas)
    # Where all are slow, the kind with the most evidence speaks for them.
    surest = max(slow, key=lambda kind: shifts[kind].sigmas)
    return Finding(sort="slow", text=_slower_on(shifts, surest), sigmas=shifts[surest].sigmas)


def _slow_kinds(shifts: Shifts) -> list[str]:
    """Kinds of cells that are slow, more than a low clock explains."""
    clock = shifts.get("clock")
    explained = 0.0 if clock is None else CLOCK_REST * max(0.0, -clock.shift)
    slow: list[str] = []
    for kind in KIND_NAMES:
        if kind in shifts and is_off(shifts[kind]) and shifts[kind].shift > explained:
            slow.append(kind)
    return slow


def _is_usual(shifts: Shifts, kind: str, beside: str) -> bool:
    """Whether a kind of cells is well, or nearly so, beside one that is slow."""
    return kind not in shifts or shifts[kind].shift < MUCH * shifts[beside].shift


def _slower_on(shifts: Shifts, kind: str) -> str:
    """By how much, on which cells, and what the others show."""
    shift = shifts[kind]
    slower = f"is {shift.percent:.1f} % slower than {held_against(shift)}"
    cells = f"on {KIND_NAMES[kind]} cells"
    parts = [f"{slower} {cells} ({shift.sigmas:.1f} sigma, {shift.cells} cells)"]
    usual: list[str] = []
    for other, name in KIND_NAMES.items():
        if other == kind or other not in shifts:
            continue
        if _is_usual(shifts, other, kind):
            usual.append(name)
        else:
            parts.append(f"{name} cells {shifts[other].percent:+.1f} %")
    if usual:
        parts.append(f"{' and '.join(usual)} cells are as usual")
    return ", ".join(parts)


def _hungry(shifts: Shifts) -> Finding | None:
    power = shifts.get("power")
    if power is None or not is_off(power) or power.shift < LEAST_POWER:
        return None
    text = f"takes {power.percent:.1f} % more power than {held_against(power)} for the same cells"
    return Finding(sort="power", text=f"{text} ({power.sigmas:.1f} sigma)", sigmas=power.sigmas)
