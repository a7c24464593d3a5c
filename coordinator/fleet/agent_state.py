"""An agent as the scheduler sees it: its leases, whether it answers, whether it fails.

An agent that is silent, or that sends no row for longer than a cell may take, loses its leases and
gets no others until it answers, or sends rows, again. One that loses lease after lease without a
sample rests, longer each time, and is then tried with one lease. Knows nothing of cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.fleet.sharing import Sharing
from gemmcast.cell import Cell
from gemmcast.device import Device

LEASES_PER_AGENT = 2
"""One that runs and one that waits, so that an agent is never idle between two."""
MAX_FAILURES = 3
"""Pairs of leases that an agent loses without one sample, before it rests."""
SILENT_S = 3.0
"""An agent that the fleet does not list as answering for this time loses its leases."""
STALL_MARGIN_S = 120.0
"""Of the time without rows: a new measuring child may have to start in between."""
FIRST_REST_S = 15.0
LONGEST_REST_S = 240.0


@dataclass(slots=True)
class AgentState:
    """See the head of this file. Moments are those of one clock that only grows."""

    device: Device
    shares_our_cpu: bool
    """Whether it measures the CPU that also trains."""
    sharing: Sharing
    """The other processes on its device."""
    seen_s: float
    """When it was last seen to take leases."""
    progress_s: float
    """When it last sent rows, ended a lease, or got one while it had none."""
    leases: dict[int, list[Cell]] = field(default_factory=dict)
    waiting_at_death: set[int] = field(default_factory=set)
    """Leases that waited behind the one under which the agent died; their cells are innocent."""
    failures: int = 0
    """Lost leases since the last row."""
    last_error: str = ""
    """Of the lost leases."""
    fault: str = ""
    """Why its leases were taken back; empty: it is in use."""
    is_stalled: bool = False
    """With a fault: it answers, but sends no rows."""
    _rest_s: float = 0.0
    _rests_until_s: float = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether it has lost so many leases in a row that it is hardly tried any more."""
        return self.failures >= MAX_FAILURES * LEASES_PER_AGENT

    @property
    def is_of_use(self) -> bool:
        """Whether it is likely to measure what it gets."""
        return not self.has_failed and not self.fault

    @property
    def is_waited_for(self) -> bool:
        """Whether its device may be free soon: cells that were set aside are tried there."""
        return self.is_of_use and self.sharing.is_shared and not self.sharing.is_given_up

    @property
    def is_full(self) -> bool:
        """Whether it has as many leases as it may have."""
        is_tried = self.sharing.is_shared or self.has_failed
        return len(self.leases) >= (1 if is_tried else LEASES_PER_AGENT)

    def may_measure(self, now_s: float) -> bool:
        """Whether it may have another lease now."""
        is_resting = self.has_failed and now_s < self._rests_until_s
        return not (self.fault or is_resting or self.is_full or self.sharing.is_resting)

    def is_silent(self, now_s: float) -> bool:
        """Whether it does not answer."""
        return now_s - self.seen_s > SILENT_S

    def stands_still(self, now_s: float, stall_s: float) -> bool:
        """Whether it has leases, and has sent no row for so long."""
        return bool(self.leases) and now_s - self.progress_s > stall_s

    @property
    def problem(self) -> str:
        """Why it gets no leases, or hardly any; empty: it gets them."""
        if self.fault:
            return f"{self.fault}; others measure its cells until it does"
        if self.has_failed:
            return f"lost {self.failures} leases in a row: {self.last_error}"
        return ""

    def dies_under(self, lease: int) -> bool:
        """It has lost a lease in death: it dies once, under the first of those that it loses."""
        if any(earlier < lease for earlier in self.leases):
            return False
        if lease in self.waiting_at_death:
            self.waiting_at_death.discard(lease)
            return False
        self.waiting_at_death |= self.leases.keys()
        return True

    def note_failure(self, error: str, now_s: float) -> None:
        """It has lost a lease."""
        self.failures += 1
        self.last_error = error
        if self.has_failed:
            self._rest_s = min(max(FIRST_REST_S, 2 * self._rest_s), LONGEST_REST_S)
            self._rests_until_s = now_s + self._rest_s

    def note_rows(self) -> None:
        """Rows of it have come."""
        self.failures = 0
        self._rest_s = 0.0
