"""Hours in which a fleet may measure: windows of local time, in a time zone that is named.

    "22:00-06:00"            every night; the window belongs to the day on which it begins
    "Mon-Fri 20:00-07:00"    five nights, the last of which ends on Saturday morning
    "Sat-Sun 00:00-24:00"    two whole days

Windows are read on the wall clock of their zone, so they move with daylight saving time. Knows no
clock: the time of day comes in with each question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY: Final = "|".join(DAYS)
_HOUR: Final = r"(\d\d):(\d\d)"
WINDOW: Final = re.compile(rf"(?:({_DAY})(?:-({_DAY}))? )?{_HOUR}-{_HOUR}")
RULE: Final = 'give windows such as "22:00-06:00" or "Sat-Sun 00:00-24:00"'
A_DAY: Final = 24 * 60
A_WEEK: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One window of each of some days."""

    days: frozenset[int]
    """On which it begins; 0 is Monday."""
    begin_min: int
    """Minutes from midnight, below 1440."""
    end_min: int
    """Above `begin_min`; above 1440 it ends on the next day."""

    @classmethod
    def of(cls, text: str) -> Window:
        """From the plan's text. Raises ValueError with the rule."""
        match = WINDOW.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no window: {RULE}")
        first, last, *numbers = match.groups()
        begin_hour, begin_minute, end_hour, end_minute = map(int, numbers)
        begin_min = 60 * begin_hour + begin_minute
        end_min = 60 * end_hour + end_minute
        is_on_clock = max(begin_minute, end_minute) < 60 and begin_min < A_DAY and end_min <= A_DAY
        if not is_on_clock or begin_min == end_min:
            raise ValueError(f"{text!r} is no time of a day: {RULE}")
        if end_min < begin_min:
            end_min += A_DAY
        return cls(days=_days(first, last), begin_min=begin_min, end_min=end_min)

    def on(self, midnight: datetime) -> tuple[datetime, datetime]:
        """Begin and end of the window that begins on that day.

        Args:
            midnight: with which the day begins, on the wall clock of the zone.
        """
        # Sums of a wall clock: an hour that daylight saving time skips or repeats does not count.
        begin = midnight + timedelta(minutes=self.begin_min)
        return begin, midnight + timedelta(minutes=self.end_min)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """When a fleet may measure; without windows always."""

    windows: tuple[Window, ...] = ()
    zone: tzinfo = UTC

    def are_open(self, now: datetime) -> bool:
        """Whether one of the windows is open. `now` has a time zone, of whatever place."""
        if not self.windows:
            return True
        return any(begin <= now < end for begin, end in self._near(now, range(-1, 1)))

    def next_opening(self, now: datetime) -> datetime:
        """When the next window begins, after `now`; in the zone of the windows."""
        begins = [begin for begin, _ in self._near(now, range(A_WEEK + 1))]
        return min(begin for begin in begins if begin > now)

    def waiting_text(self, now: datetime) -> str:
        """`until Mon 22:00 (Europe/Berlin)`; of the same day without its name."""
        opening = self.next_opening(now)
        is_today = opening.date() == now.astimezone(self.zone).date()
        day = "" if is_today else f"{DAYS[opening.weekday()]} "
        return f"until {day}{opening:%H:%M} ({self.zone})"

    def _near(self, now: datetime, days: Sequence[int]) -> list[tuple[datetime, datetime]]:
        """The windows that begin on days around today: 0 is today, -1 yesterday."""
        today = now.astimezone(self.zone).date()
        windows = []
        for day in days:
            date = today + timedelta(days=day)
            midnight = datetime.combine(date, time(), self.zone)
            windows += [one.on(midnight) for one in self.windows if date.weekday() in one.days]
        return windows


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name, or UTC. Raises ValueError, with similar names."""
    if name == "UTC":
        return UTC
    known = available_timezones()
    if name in known:
        return ZoneInfo(name)
    similar = get_close_matches(name, sorted(known)) or ["Europe/Berlin", "UTC"]
    raise ValueError(f"{name!r} is no time zone: did you mean {', '.join(similar)}?")


def _days(first: str | None, last: str | None) -> frozenset[int]:
    if first is None:
        return frozenset(range(A_WEEK))
    begin = DAYS.index(first)
    end = begin if last is None else DAYS.index(last)
    count = (end - begin) % A_WEEK + 1
    return frozenset((begin + day) % A_WEEK for day in range(count))
