"""The hours of a plan: outside them a fleet gets no cells, and gives its devices back.

Agents finish what they have before they end, so nothing is measured twice. Does not know how hours
are written (coordinator/plan/hours.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from coordinator.fleet.interface import Fleet
from coordinator.fleet.leases import Leases
from coordinator.plan.hours import Hours

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


class Opening:
    """Keeps a fleet to its hours.

    Args:
        today: the time of day, in whatever time zone.
    """

    def __init__(
        self, hours: Hours, fleet: Fleet, leases: Leases, today: Callable[[], datetime]
    ) -> None:
        self._hours = hours
        self._fleet = fleet
        self._leases = leases
        self._today = today
        self._is_resting = False

    def look(self) -> str:
        """`until 22:00 (Europe/Berlin)` while it is closed, and empty while it is open.

        Call it often: it sends the agents away when the last of their leases has ended, and calls
        them back.
        """
        now = self._today()
        if self._hours.are_open(now):
            self._rest(now=False)
            return ""
        if not self._leases.is_any_leased():
            self._rest(now=True)
        return self._hours.waiting_text(now)

    def _rest(self, *, now: bool) -> None:
        if now != self._is_resting:
            log.info("agents give their devices back" if now else "agents start: it is open")
            self._is_resting = now
            self._fleet.rest(now=now)
