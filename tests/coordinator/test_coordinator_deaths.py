"""Which deaths of agents count against a cell."""

from __future__ import annotations

import pytest

from coordinator.fleet.deaths import AT_ONCE_S, RETURN_S, Deaths
from tests.made_up_clock import Clock


@pytest.fixture
def deaths(clock: Clock) -> Deaths:
    return Deaths(clock)


def test_a_death_counts_when_the_agent_is_back(deaths: Deaths, clock: Clock) -> None:
    deaths.add("a", "cell", "killed")
    assert deaths.counted("cell") == []
    deaths.came_back("b")
    assert deaths.counted("cell") == []
    deaths.came_back("a")
    assert [death.reason for death in deaths.counted("cell")] == ["killed"]
    assert deaths.counted("another") == []
    assert not deaths.is_settled("cell"), "another agent may be found dead in a moment"
    clock.now += AT_ONCE_S + 0.1
    assert deaths.is_settled("cell")


def test_an_agent_that_is_never_back_was_not_killed_by_a_cell(deaths: Deaths, clock: Clock) -> None:
    deaths.add("a", "cell", "its node died")
    clock.now += RETURN_S - 1.0
    assert not deaths.is_settled("cell")
    clock.now += 2.0
    assert deaths.is_settled("cell")
    assert deaths.counted("cell") == []


@pytest.mark.parametrize(("apart_s", "counted"), [(0.0, 0), (AT_ONCE_S, 0), (AT_ONCE_S + 0.1, 1)])
def test_agents_that_die_at_once_were_not_killed_by_their_cells(
    deaths: Deaths, clock: Clock, apart_s: float, counted: int
) -> None:
    deaths.add("a", "first", "killed")
    clock.now += apart_s
    # Between two leases: no cell was being measured.
    deaths.add("b", None, "killed")
    for agent in ("a", "b"):
        deaths.came_back(agent)
    assert len(deaths.counted("first")) == counted


def test_one_agent_that_dies_twice_in_a_moment_counts_twice(deaths: Deaths) -> None:
    for _ in range(2):
        deaths.add("a", "cell", "killed")
        deaths.came_back("a")
    assert len(deaths.counted("cell")) == 2


def test_it_is_quiet_until_an_agent_dies_and_a_while_later(deaths: Deaths, clock: Clock) -> None:
    assert deaths.is_quiet()
    deaths.add("a", "cell", "killed")
    assert not deaths.is_quiet()
    clock.now += AT_ONCE_S + 0.1
    assert deaths.is_quiet()
