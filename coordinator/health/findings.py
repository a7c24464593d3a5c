"""What is said of a board: findings with their evidence, each one line for people.

    GPU-1f… is 4.1 % slower than 7 sisters on compute-bound cells (6.2 sigma), memory-bound cells
    are as usual: clock 1,605 of 1,980 MHz

Does not know how a finding is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from coordinator.health.shifts import Shift

SORTS: Final = {
    "slow": "Slower than it should be, at the clock and temperature that it ran at.",
    "memory": "The memory is slow: memory-bound cells take longer, others do not.",
    "capped": "The clock is held down, or the power limit is below that of its sisters.",
    "hot": "It is too hot, and the clock is held down for it or soon will be.",
    "power": "It takes more power than others for the same work.",
    "wrong": "It computes wrong results where others are right.",
    "failing": "Cells end in errors that end well on others.",
    "shared": "Other processes use it: it cannot be judged.",
}
"""Sort of finding -> what it means; the order is that of their gravity within one board."""
SICK: Final = ("wrong", "failing", "memory", "hot", "capped", "slow", "power")
"""Sorts that make a board sick; the gravest is first."""
KIND_NAMES: Final = {"compute": "compute-bound", "memory": "memory-bound", "small": "small"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not well."""

    sort: str
    """One of SORTS."""
    text: str
    """One line for people, without the name of the board."""
    sigmas: float | None = None
    """The evidence, in standard uncertainties; None where it is a count."""
    since: str = ""
    """When it was first seen, UTC, ISO 8601; empty: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of one board."""

    board: str
    """UUID."""
    device: str
    """Name of the product."""
    agent: str
    """The agent that measured it; it names the node."""
    cells: int
    """Cells with a reading."""
    began_at: str
    """When its first row was measured, UTC, ISO 8601."""
    checked_at: str
    """When its last row was measured, UTC, ISO 8601."""
    findings: tuple[Finding, ...]
    shifts: Mapping[str, Shift]
    """Kind of cell, `clock` or `power` -> how far it is off, where that can be said."""

    @property
    def is_sick(self) -> bool:
        """Whether something is wrong with the board."""
        return any(finding.sort in SICK for finding in self.findings)

    @property
    def is_judged(self) -> bool:
        """Whether there were enough readings to say that it is well, and no other process."""
        if any(finding.sort == "shared" for finding in self.findings):
            return self.is_sick
        return self.is_sick or any(kind in self.shifts for kind in KIND_NAMES)

    def lines(self) -> list[str]:
        """For people: one for each finding, else one that says that it is well."""
        if self.findings:
            return [f"{self.board} {finding.text}" for finding in self.findings]
        if not self.is_judged:
            cells = f"{self.cells} cells that neither a sister nor the model knows"
            return [f"{self.board} ({self.device}) is not judged: it has {cells}"]
        return [f"{self.board} ({self.device}) is well: {self._evidence()}"]

    def _evidence(self) -> str:
        parts = []
        for kind, name in KIND_NAMES.items():
            if kind in self.shifts:
                shift = self.shifts[kind]
                parts.append(f"{name} {shift.percent:+.1f} % ({shift.cells} cells)")
        return ", ".join(parts)


def held_against(shift: Shift) -> str:
    """What a shift is held against, for people."""
    if not shift.sisters:
        return "the model says"
    return "its only sister" if shift.sisters == 1 else f"{shift.sisters} sisters"
