"""Leases after deaths: who is suspected, when a suspect is tried, when it is given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from fake_fleet import Measure

from coordinator.fleet.commits import CommitQueue
from coordinator.fleet.deaths import AT_ONCE_S, RETURN_S
from coordinator.fleet.due import Due
from coordinator.fleet.interface import Ended, Ready
from coordinator.fleet.leases import MAX_DEATHS, Leases
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device

AGENTS = ("a", "b")
LATER_S = AT_ONCE_S + 0.1


class Fleet:
    """Leases of two agents on a clock that stands still until a test moves it."""

    def __init__(
        self, device: Device, cells: Sequence[Cell], store: SampleStore, measure: Measure
    ) -> None:
        self.now = 1000.0
        self.device = device
        self._measure = measure
        self._commits = CommitQueue(store, lambda: self.now)
        self.leases = Leases(lambda: self.now, Due(self._commits))
        for agent in AGENTS:
            self.start(agent)
        self.leases.add_queue(device.name, cells)

    def start(self, agent: str) -> None:
        self.leases.join(Ready(agent=agent, device=self.device, host="paper", local=False))

    def lease(self, agent: str) -> tuple[int, list[Cell]]:
        lease = self.leases.next_lease(agent)
        assert lease is not None
        return lease

    def end(self, agent: str, lease: int, error: str | None = None) -> None:
        self.leases.end(Ended(agent=agent, lease=lease, error=error))

    def die(self, agent: str, lease: int) -> None:
        """The agent dies under the first cell of a lease, and is back at once."""
        self.end(agent, lease, "killed")
        self.start(agent)

    def finish(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        rows = to_table([self._measure(cell, self.device) for cell in cells])
        self._commits.add(rows)
        self.end(agent, lease)

    def measure_all_but_suspects(self) -> None:
        """By agent b; the fleet must be noisy, so that no suspect is tried."""
        while lease := self.leases.next_lease("b"):
            self.finish("b", *lease)


@pytest.fixture
def cells(make_plan: Callable[..., Plan], cpu: Device) -> list[Cell]:
    return plan_cells(make_plan({"sample": 40, "max": 4096}), cpu).cells


@pytest.fixture
def fleet(cpu: Device, cells: list[Cell], store: SampleStore, measure: Measure) -> Fleet:
    return Fleet(cpu, cells, store, measure)


def test_the_suspect_is_of_the_lease_that_ran_whichever_end_is_seen_first(fleet: Fleet) -> None:
    first, cells = fleet.lease("a")
    second, _ = fleet.lease("a")
    fleet.end("a", second, "killed")
    fleet.end("a", first, "killed")
    fleet.start("a")
    fleet.measure_all_but_suspects()
    fleet.now += LATER_S
    assert fleet.lease("a")[1] == cells[:1]
    assert fleet.leases.next_lease("b") is None


def test_a_suspect_is_tried_when_no_agent_has_died_just_now(fleet: Fleet) -> None:
    lease, cells = fleet.lease("a")
    fleet.die("a", lease)
    fleet.measure_all_but_suspects()
    assert fleet.leases.next_lease("a") is None
    assert not fleet.leases.is_finished()
    fleet.now += LATER_S
    assert fleet.lease("a")[1] == cells[:1]


def test_one_suspect_is_tried_at_a_time(fleet: Fleet) -> None:
    """Else two of them could kill two agents at once, time after time."""
    suspects = set()
    for agent in AGENTS:
        lease, cells = fleet.lease(agent)
        fleet.die(agent, lease)
        suspects.add(cells[0].cell_id)
    fleet.measure_all_but_suspects()
    fleet.now += LATER_S
    lease, (tried,) = fleet.lease("a")
    assert fleet.leases.next_lease("b") is None
    fleet.finish("a", lease, [tried])
    _, (other,) = fleet.lease("b")
    assert {tried.cell_id, other.cell_id} == suspects


def kill_until_the_last(fleet: Fleet, *, is_back: bool = True) -> Cell:
    """A cell under which MAX_DEATHS agents have died, the last one just now."""
    lease, cells = fleet.lease("a")
    fleet.die("a", lease)
    fleet.measure_all_but_suspects()
    for death in range(2, MAX_DEATHS + 1):
        fleet.now += LATER_S
        assert fleet.leases.lost_cells() == []
        lease, lone = fleet.lease("a")
        assert lone == cells[:1]
        fleet.end("a", lease, "killed")
        if is_back or death < MAX_DEATHS:
            fleet.start("a")
    return cells[0]


def test_a_cell_is_given_up_when_the_last_death_is_known_to_be_its_own(fleet: Fleet) -> None:
    cell = kill_until_the_last(fleet)
    assert fleet.leases.lost_cells() == [], "another agent may be found dead in a moment"
    fleet.now += LATER_S
    (lost,) = fleet.leases.lost_cells()
    assert (lost.cell, lost.agent) == (cell, "a")
    assert lost.reason == "3 agents died under it: killed"
    assert fleet.leases.is_finished()


def test_a_death_that_other_agents_share_gives_no_cell_up(fleet: Fleet, cells: list[Cell]) -> None:
    cell = kill_until_the_last(fleet)
    fleet.leases._deaths.add("b", None, "killed")
    fleet.now += LATER_S
    assert fleet.leases.lost_cells() == []
    assert fleet.lease("b")[1] == [cell]


def test_a_cell_waits_until_it_is_known_whether_the_last_agent_comes_back(fleet: Fleet) -> None:
    cell = kill_until_the_last(fleet, is_back=False)
    fleet.now += LATER_S
    assert fleet.leases.next_lease("b") is None
    fleet.now += RETURN_S
    assert fleet.leases.lost_cells() == []
    assert fleet.lease("b")[1] == [cell]
