"""Hours of a plan: windows on the wall clock of a zone, and a run that keeps to them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fake_fleet import FakeFleet, make_scheduler, never, rows_by_status, run_all

from coordinator.fleet.interface import Progress
from coordinator.fleet.record import RunRecord
from coordinator.plan.cells import plan_cells
from coordinator.plan.hours import Hours, Window, zone_of
from coordinator.plan.schema import Plan
from coordinator.progress import RunDisplay
from coordinator.samples.store import SampleStore
from gemmcast.device import Device
from gemmcast.errors import InputError

MakePlan = Callable[..., Plan]
BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = {"hours": ["22:00-06:00"], "timezone": "UTC"}


def hours(*windows: str, zone: str = "Europe/Berlin") -> Hours:
    return Hours(windows=tuple(map(Window.of, windows)), zone=zone_of(zone))


def berlin(day: int, hour: int, minute: int = 0) -> datetime:
    """In June 2026, whose first day is a Monday."""
    return datetime(2026, 6, day, hour, minute, tzinfo=BERLIN)


# Windows


@pytest.mark.parametrize(
    ("window", "now", "is_open"),
    [
        ("22:00-06:00", berlin(2, 21, 59), False),
        ("22:00-06:00", berlin(2, 22), True),
        ("22:00-06:00", berlin(3, 5, 59), True),
        ("22:00-06:00", berlin(3, 6), False),
        ("09:00-17:30", berlin(3, 17, 29), True),
        ("09:00-17:30", berlin(3, 17, 30), False),
        # The night of Friday ends on Saturday; that of Sunday does not begin.
        ("Mon-Fri 20:00-07:00", berlin(6, 6), True),
        ("Mon-Fri 20:00-07:00", berlin(7, 6), False),
        ("Mon-Fri 20:00-07:00", berlin(8, 6), False),
        ("Sat-Sun 00:00-24:00", berlin(7, 23, 59), True),
        ("Sat-Sun 00:00-24:00", berlin(8, 0), False),
        ("Fri-Mon 12:00-13:00", berlin(8, 12), True),
        ("Fri-Mon 12:00-13:00", berlin(9, 12), False),
        ("Wed 12:00-13:00", berlin(3, 12), True),
    ],
)
def test_a_window_is_open_on_its_days(window: str, now: datetime, is_open: bool) -> None:
    assert hours(window).are_open(now) == is_open
    assert hours(window).are_open(now.astimezone(UTC)) == is_open, "whatever zone `now` is in"


def test_without_windows_it_is_always_open() -> None:
    assert Hours().are_open(berlin(1, 12))


@pytest.mark.parametrize(
    ("windows", "now", "text"),
    [
        (["22:00-06:00"], berlin(2, 12), "until 22:00 (Europe/Berlin)"),
        (["22:00-06:00", "13:00-14:00"], berlin(2, 12), "until 13:00 (Europe/Berlin)"),
        (["22:00-06:00", "13:00-14:00"], berlin(2, 15), "until 22:00 (Europe/Berlin)"),
        (["09:00-17:00"], berlin(2, 18), "until Wed 09:00 (Europe/Berlin)"),
        (["Tue 09:00-17:00"], berlin(2, 18), "until Tue 09:00 (Europe/Berlin)"),
    ],
)
def test_it_is_said_when_the_next_one_opens(windows: list[str], now: datetime, text: str) -> None:
    assert hours(*windows).waiting_text(now.astimezone(UTC)) == text


def test_windows_move_with_daylight_saving_time() -> None:
    """Berlin is two hours ahead of UTC until the morning of 2026-10-25, one hour afterwards."""
    night = hours("22:00-06:00")
    before, after = [datetime(2026, 10, day, 20, 30, tzinfo=UTC) for day in (24, 25)]
    assert night.are_open(before)
    assert not night.are_open(after)
    assert night.next_opening(after) - after == timedelta(minutes=30)


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ({"hours": ["22-6"]}, "'22-6' is no window: give windows such as"),
        ({"hours": ["Mo 22:00-06:00"]}, "is no window"),
        ({"hours": ["25:00-06:00"]}, "is no time of a day"),
        ({"hours": ["12:00-12:00"]}, "is no time of a day"),
        ({"hours": ["12:61-13:00"]}, "is no time of a day"),
        ({"hours": ["22:00-06:00"], "timezone": None}, "hours and timezone go together"),
        ({"hours": []}, "hours and timezone go together"),
        ({"timezone": "Europe/Berln"}, "did you mean Europe/Berlin"),
        ({"timezone": "../../etc/passwd"}, "is no time zone"),
    ],
)
def test_what_is_no_window_is_refused(
    table: dict[str, Any], rule: str, make_plan: MakePlan
) -> None:
    with pytest.raises(InputError, match=rule):
        make_plan(politeness={**NIGHT, **table})


# Runs


def test_a_run_that_is_closed_waits_and_then_measures_everything_once(
    store: SampleStore, fleet: Callable[..., FakeFleet], make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 60}, politeness=NIGHT)
    there = fleet(2)
    there.time_s = 21 * 3600 + 3595
    shown: list[str] = []
    scheduler = make_scheduler(plan, store, there)

    def show(progress: Progress) -> None:
        if progress.closed:
            assert not there.leased
            shown.append(RunDisplay().details(progress, None))
            assert RunRecord.waiting_in(progress).closed == "until 22:00 (UTC)"

    assert scheduler.run(stop=never, show=show)
    assert set(shown[1:]) == {"waits until 22:00 (UTC)"}
    assert len(shown) == pytest.approx(25, abs=2)
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 60}


def test_leases_end_in_order_when_a_window_closes(
    store: SampleStore, fleet: Callable[..., FakeFleet], make_plan: MakePlan, cpu: Device
) -> None:
    plan = make_plan({"sample": 80}, politeness={**NIGHT, "hours": "22:00-06:00"})
    there = fleet(2, batch=1)
    closing_s = 6 * 3600.0
    there.time_s = closing_s - 4
    leased_s: list[float] = []
    lease = there.lease

    def noting(agent: str, number: int, cells: Any) -> None:
        leased_s.append(there.time_s)
        lease(agent, number, cells)

    there.lease = noting  # type: ignore[method-assign]
    scheduler = make_scheduler(plan, store, there)
    seen: list[tuple[int, int]] = []

    def show(progress: Progress) -> None:
        if progress.closed and not progress.agents:
            seen.append((progress.done, there.polls))
            there.time_s = max(there.time_s, 22 * 3600 - 1)

    assert scheduler.run(stop=never, show=show)
    is_night = [moment < closing_s or moment >= 22 * 3600 for moment in leased_s]
    assert all(is_night)
    before_closing = sum(moment < closing_s for moment in leased_s)
    assert 0 < before_closing < len(leased_s)
    done, _ = seen[0]
    assert 0 < done < 80, "the leases of the evening were committed before the agents left"
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 80}
    assert set(there.measured.values()) == {1}, "nothing is measured twice"


def test_a_run_whose_cells_are_all_answered_does_not_wait_for_the_next_window(
    store: SampleStore, fleet: Callable[..., FakeFleet], make_plan: MakePlan
) -> None:
    plan = make_plan({"sample": 2}, politeness=NIGHT)
    there = fleet(1, batch=1)
    there.time_s = 6 * 3600.0 - 0.3
    scheduler = run_all(plan, store, there)
    assert scheduler.progress.closed
    assert there.time_s < 7 * 3600


def test_a_closed_run_is_not_given_up(
    store: SampleStore, fleet: Callable[..., FakeFleet], make_plan: MakePlan
) -> None:
    """Sixteen hours without an agent, of which a run allows minutes."""
    plan = make_plan({"sample": 8}, politeness=NIGHT)
    there = fleet()
    there.time_s = 6 * 3600.0
    looks = []

    def show(_progress: Progress) -> None:
        looks.append(there.time_s)
        there.time_s += 60

    assert make_scheduler(plan, store, there).run(stop=never, show=show)
    assert looks[0] < 7 * 3600
    assert there.time_s > 22 * 3600
