"""The scheduler over a fake fleet: agents that stop, hang, vanish or fail for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from fake_fleet import FakeAgent, FakeFleet, Measure, make_scheduler, never, rows_by_status, run_all

from coordinator.fleet.agent_state import SILENT_S, STALL_MARGIN_S
from coordinator.fleet.hope import NO_AGENT_S
from coordinator.fleet.interface import Event, Left, Progress
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from gemmcast.device import Device
from gemmcast.errors import GemmcastError

MakePlan = Callable[..., Plan]
MakeFleet = Callable[..., FakeFleet]


class FaultyFleet(FakeFleet):
    """Its first agent has a fault between two moments."""

    from_s = 1.0
    until_s = 1e9
    kind = "stopped"

    def poll(self, timeout_s: float) -> list[Event]:
        faulty: set[str] = getattr(self, self.kind)
        faulty.clear()
        if self.from_s <= self.time_s < self.until_s:
            faulty.add("a")
        return super().poll(timeout_s)


@pytest.fixture
def faulty(measure: Measure, cpu: Device) -> FaultyFleet:
    return FaultyFleet(measure, {"a": FakeAgent(cpu), "b": FakeAgent(cpu)}, batch=2)


@pytest.fixture
def plan(make_plan: MakePlan) -> Plan:
    return make_plan({"sample": 200, "max": 4096})


def test_the_cells_of_an_agent_that_stops_are_measured_by_another(
    store: SampleStore,
    faulty: FaultyFleet,
    plan: Plan,
    cpu: Device,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[dict[str, str]] = []

    def show(progress: Progress) -> None:
        seen.append(dict(progress.faults))

    assert make_scheduler(plan, store, faulty).run(stop=never, show=show)
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert seen[-1] == {"a": "it does not answer; others measure its cells until it does"}
    assert caplog.text.count("agent a gets no cells: it does not answer; ") == 1
    assert all(faulty.leased.count(lease) == 1 for lease in faulty.leased)


def test_a_lease_goes_back_some_seconds_after_its_agent_fell_silent(
    store: SampleStore, faulty: FaultyFleet, plan: Plan
) -> None:
    gone_at: list[float] = []

    def show(progress: Progress) -> None:
        if progress.faults:
            gone_at.append(faulty.time_s)

    make_scheduler(plan, store, faulty).run(stop=never, show=show)
    assert gone_at[0] == pytest.approx(faulty.from_s + SILENT_S, abs=0.5)


def test_an_agent_that_goes_on_gets_cells_again_and_its_late_rows_count_once(
    store: SampleStore,
    faulty: FaultyFleet,
    plan: Plan,
    cpu: Device,
    caplog: pytest.LogCaptureFixture,
) -> None:
    faulty.until_s = 8.0
    run_all(plan, store, faulty)
    assert "agent a answers again, after 7 s" in caplog.text
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert max(faulty.measured.values()) == 2, "cells of the lost leases are measured twice"
    assert faulty.cells_leased_to("a") > 64, "it is leased to again"


def test_an_agent_that_answers_but_stands_still_loses_its_cells(
    store: SampleStore,
    faulty: FaultyFleet,
    plan: Plan,
    cpu: Device,
    caplog: pytest.LogCaptureFixture,
) -> None:
    faulty.kind = "hanging"
    run_all(plan, store, faulty)
    limit_s = 2 * plan.measure.timeout_s + STALL_MARGIN_S
    assert f"agent a gets no cells: it has sent no row for {limit_s:.0f} s" in caplog.text
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    assert limit_s < faulty.time_s < limit_s + 30


def test_an_agent_that_stood_still_is_used_again(
    store: SampleStore, measure: Measure, cpu: Device, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = FaultyFleet(measure, {"a": FakeAgent(cpu)}, batch=2)
    fleet.kind, fleet.until_s = "hanging", 400.0
    run_all(plan, store, fleet)
    assert "agent a measures again" in caplog.text
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}


def test_a_long_cell_is_no_fault(
    store: SampleStore, measure: Measure, cpu: Device, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = FaultyFleet(measure, {"a": FakeAgent(cpu)}, batch=2)
    fleet.kind, fleet.until_s = "hanging", 1 + 2 * plan.measure.timeout_s
    run_all(plan, store, fleet)
    assert "gets no cells" not in caplog.text
    assert set(fleet.measured.values()) == {1}


def test_no_agent_is_late_while_the_coordinator_stood_still(
    store: SampleStore, faulty: FaultyFleet, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.from_s = 1e9
    jumps = iter([0.0] * 10 + [3600.0])
    passed_s = [0.0]

    def now_s() -> float:
        return faulty.time_s + passed_s[0]

    def show(_: Progress) -> None:
        passed_s[0] += next(jumps, 0.0)

    assert make_scheduler(plan, store, faulty, now_s=now_s).run(stop=never, show=show)
    assert "gets no cells" not in caplog.text
    assert set(faulty.measured.values()) == {1}


def test_a_run_without_agents_goes_on_when_one_is_back(
    store: SampleStore, measure: Measure, cpu: Device, plan: Plan
) -> None:
    fleet = FaultyFleet(measure, {"a": FakeAgent(cpu)}, batch=2)
    fleet.until_s = NO_AGENT_S - 10
    run_all(plan, store, fleet)
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}


def test_a_run_without_agents_ends_after_a_stated_time(
    store: SampleStore, measure: Measure, cpu: Device, plan: Plan
) -> None:
    fleet = FaultyFleet(measure, {"a": FakeAgent(cpu)}, batch=2)
    message = "no agent has measured for 300 s .a: it does not answer; .* start the same command"
    with pytest.raises(GemmcastError, match=message):
        make_scheduler(plan, store, fleet).run(stop=never)
    assert fleet.time_s == pytest.approx(fleet.from_s + SILENT_S + NO_AGENT_S, abs=2)
    assert 0 < len(store.read()) < 200


def test_a_run_on_a_cluster_without_such_devices_ends_after_a_stated_time(
    store: SampleStore, measure: Measure, plan: Plan
) -> None:
    fleet = FakeFleet(measure, {})
    with pytest.raises(GemmcastError, match="no node has a device that the plan measures"):
        make_scheduler(plan, store, fleet).run(stop=never)
    assert fleet.time_s == pytest.approx(NO_AGENT_S, abs=2)


def test_a_type_whose_only_agent_is_lost_does_not_keep_the_run_for_ever(
    store: SampleStore, measure: Measure, cpu: Device, plan: Plan
) -> None:
    other = replace(cpu, name="Another CPU", uuid="CPU-other")
    agents = {"a": FakeAgent(cpu), "b": FakeAgent(other)}
    fleet = FaultyFleet(measure, agents, batch=2)
    with pytest.raises(GemmcastError, match="no agent has measured for 300 s"):
        make_scheduler(plan, store, fleet).run(stop=never)
    names = store.read()["device"].to_pylist()
    assert names.count("Another CPU") == 200, "what could be measured was"


def test_an_agent_that_fails_for_a_while_is_tried_again(
    store: SampleStore, measure: Measure, cpu: Device, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = FakeFleet(measure, {"a": FakeAgent(cpu)}, dies=lambda *_: fleet.time_s < 40)
    run_all(plan, store, fleet)
    assert caplog.text.count("agent a lost 6 leases in a row and is tried seldom now") == 1
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
    early = [cells for _, cells in fleet.leased[:8]]
    assert len(early) == 8


class LeavingFleet(FakeFleet):
    """Agent a leaves with its node, and a node that joins brings agent c."""

    def poll(self, timeout_s: float) -> list[Event]:
        events = super().poll(timeout_s)
        if self.polls == 8:
            events += self._lose_leases("a", self.agents.pop("a"), "its node has left")
            events.append(Left(agent="a"))
        return events


def test_an_agent_that_left_is_forgotten_and_another_one_goes_on(
    store: SampleStore, measure: Measure, cpu: Device, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fleet = LeavingFleet(measure, {"a": FakeAgent(cpu), "c": FakeAgent(cpu, joins_at=20)}, batch=2)
    scheduler = run_all(plan, store, fleet)
    assert scheduler.progress.agents == 1
    assert scheduler.progress.faults == {}
    assert rows_by_status(store, plan_cells(plan, cpu).cells) == {"ok": 200}
