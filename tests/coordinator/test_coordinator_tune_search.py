"""Whole lists: never worse than the default, within the budget, across types, after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from coordinator.fleet.scheduler import Scheduler
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from coordinator.tune.outcome import outcome_of
from coordinator.tune.problem import Problem
from coordinator.tune.readings import Reading, Readings
from coordinator.tune.search import Search
from coordinator.tune.spent import Spent
from coordinator.tune.tuning import run_rounds
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.tuned_entry import TunedEntry
from tests.coordinator.fake_fleet import FakeAgent, FakeFleet, make_scheduler
from tests.coordinator.tune_truths import CELL_S, TYPE, Truths, config, make_search, problem, run

RIVALS = 8
OTHER = "Paper GPU 141GB"


def entries(search: Search, name: str = TYPE) -> list[TunedEntry]:
    races = search.races[name]
    return [outcome_of(races[place]).entry for place in sorted(races)]


def problems(count: int, device: str = TYPE, rivals: int = RIVALS) -> list[Problem]:
    return [problem(rivals, m=i + 1, device=device) for i in range(count)]


def drawn(seed: int, count: int, draw: Callable[[np.random.Generator], object]) -> Truths:
    """Truths of `count` GEMMs of one type."""
    rng = np.random.default_rng(seed)
    ratios = {(TYPE, i + 1): [1.0, *np.exp(draw(rng))] for i in range(count)}  # type: ignore[call-overload]
    return Truths(ratios, seed=seed)


def of_engines(rng: np.random.Generator) -> object:
    """Half the default's time, some 4 % apart, as Triton's kernels are."""
    return -0.6 + np.cumsum(rng.exponential(0.04, RIVALS))


def without_gain(rng: np.random.Generator) -> object:
    return np.abs(rng.normal(0, 0.004, RIVALS))


@pytest.mark.parametrize("noise", [0.004, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_no_entry_is_ever_worse_than_the_default(noise: float, seed: int) -> None:
    truths = drawn(seed, 20, without_gain)
    truths.noise = noise
    search = make_search({TYPE: problems(20)})
    run(search, truths)
    assert all(entry.keeps_default for entry in entries(search))


def test_entries_are_close_to_the_best_rival() -> None:
    truths = drawn(1, 40, of_engines)
    search = make_search({TYPE: problems(40)})
    run(search, truths)
    losses = [ratio_of(truths, entry) / best_of(truths, entry) - 1 for entry in entries(search)]
    assert max(losses) < 0.02
    assert np.mean(losses) < 0.002


def test_most_intervals_hold_the_true_gain() -> None:
    truths = drawn(2, 40, of_engines)
    search = make_search({TYPE: problems(40)})
    run(search, truths)
    held = []
    for entry in entries(search):
        gain = 1 / ratio_of(truths, entry)
        held.append(entry.gain_low <= gain <= entry.gain_high)
    assert np.mean(held) > 0.8


def test_a_list_of_108_takes_a_third_of_five_minutes() -> None:
    truths = drawn(3, 108, of_engines)
    search = make_search({TYPE: problems(108)})
    run(search, truths)
    assert search.spent_s(TYPE) < 100
    assert not search.undecided


def test_a_budget_is_kept_and_goes_to_what_takes_longest() -> None:
    budget_s = 2.3
    every = [problem(RIVALS, m=i + 1, weight=10.0 if i % 2 else 1.0) for i in range(10)]
    search = make_search({TYPE: every}, budget_s=budget_s)
    cells = run(search, drawn(4, 10, of_engines))
    assert sum(map(len, cells)) * CELL_S <= budget_s
    assert search.spent_s(TYPE) <= budget_s
    won = {entry.gemm.m for entry in entries(search) if not entry.keeps_default}
    assert won == {2, 4, 6, 8, 10}
    cut = next(entry for entry in entries(search) if entry.gemm.m == 1)
    assert cut.reason.startswith("beyond the budget")
    assert not cut.verified


def test_a_budget_is_kept_where_ties_take_longer_than_was_set_aside() -> None:
    budget_s = 4.0
    truths = drawn(8, 10, without_gain)
    truths.noise = 0.05
    search = make_search({TYPE: problems(10)}, budget_s=budget_s)
    cells = run(search, truths)
    assert sum(map(len, cells)) * CELL_S <= budget_s
    assert all(entry.keeps_default for entry in entries(search))
    assert not search.undecided


def test_what_was_spent_is_when_the_readings_lie_apart() -> None:
    """Estimated at 0.1 s each; they took 0.5 s, with a night in between and two boards at once."""
    spent = Spent()
    spent.plan(1.0)
    times = [100.0 + 0.5 * i for i in range(5)] + [50_000.0]
    spent.note([Reading(status="ok", board="GPU-0", began_s=time) for time in times])
    assert spent.total_s == pytest.approx(2.0 * 6 / 5)
    assert spent.pace == pytest.approx(2.4)
    spent.plan(1.0)
    assert spent.total_s == pytest.approx(4.8)
    both = [Reading(status="ok", board=f"GPU-{i % 2}", began_s=i // 2 * 1.0) for i in range(8)]
    spent.note(both)
    assert spent.total_s == pytest.approx(2.4 + 2 * 4.0)


def test_a_recordings_own_times_are_not_spent() -> None:
    spent = Spent()
    spent.plan(1.0)
    spent.note([])
    assert (spent.total_s, spent.pace) == (1.0, 1.0)


def test_what_one_type_measured_ranks_for_the_other() -> None:
    """The model ranks the best rivals last, on both types alike."""
    predicted = [100.0, *(50.0 + i for i in range(RIVALS))]
    true = [1.0, *(0.9 - 0.05 * i for i in range(RIVALS))]
    lists = {
        name: [problem(m=i + 1, device=name, predicted=predicted) for i in range(6)]
        for name in (TYPE, OTHER)
    }
    truths = Truths({(name, i + 1): true for name in lists for i in range(6)})
    search = make_search(lists)
    run(search, truths)
    for name in lists:
        winners = [entry.winner for entry in entries(search, name)]
        assert winners == [config(RIVALS)] * 6
    # Each type leads on three GEMMs with 8 rivals, and follows on three with 4.
    assert search.saved == 2 * 3 * 4
    counts = [entry.measured for name in lists for entry in entries(search, name)]
    assert sorted(counts) == [5] * 6 + [9] * 6


def test_a_gemm_that_one_type_cannot_run_is_tuned_on_the_other_alone() -> None:
    refused = Problem(
        listed=problem(m=1).listed, device_key=OTHER, default=None, reason="no such dtype"
    )
    search = make_search({TYPE: [problem(RIVALS, m=1)], OTHER: [refused]})
    run(search, Truths({(TYPE, 1): [1.0] + [0.8] * RIVALS}))
    assert search.races[OTHER] == {}
    assert not entries(search)[0].keeps_default


def test_a_recording_is_read_once() -> None:
    search = make_search({TYPE: problems(3)}, is_replay=True)
    measured = run(search, drawn(5, 3, of_engines))
    assert len(measured) == 1
    assert all(not entry.keeps_default for entry in entries(search))


# From here on with a store, a scheduler and leases.


@pytest.fixture
def plan(make_plan: Callable[..., Plan]) -> Plan:
    return make_plan(devices={"kind": "cuda", "second_board": 0.0})


@pytest.fixture
def board(gpu: Device) -> Device:
    return gpu


def fleet_of(truths: Truths, board: Device) -> FakeFleet:
    agents = {"paper/gpu0": FakeAgent(board)}
    return FakeFleet(truths.row, agents, batch=5)


def tune(
    plan: Plan, store: SampleStore, fleet: FakeFleet, search: Search, polls: int = 10_000
) -> bool:
    """A tuning that is stopped after some polls of the fleet."""

    def measure(cells: Sequence[Cell], _label: str) -> bool:
        due = [cell for cell in cells if cell.cell_id not in store.committed]
        if not due:
            return True
        scheduler: Scheduler = make_scheduler(plan, store, fleet, cells=due)
        return scheduler.run(stop=lambda: fleet.polls >= polls)

    return run_rounds(search, Readings(), measure, store.read)


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[[str], SampleStore]:
    return lambda name: SampleStore.open(f"{tmp_path}/{name}", create=True)


def test_stopped_twice_and_started_again_it_ends_with_the_same_entries(
    plan: Plan, board: Device, open_store: Callable[[str], SampleStore]
) -> None:
    truths = drawn(6, 5, of_engines)
    whole = make_search({TYPE: problems(5)})
    assert tune(plan, open_store("whole"), fleet_of(truths, board), whole)
    store = open_store("parts")
    for polls in (4, 9):
        assert not tune(
            plan, store, fleet_of(truths, board), make_search({TYPE: problems(5)}), polls
        )
    last = make_search({TYPE: problems(5)})
    fleet = fleet_of(truths, board)
    assert tune(plan, store, fleet, last)
    assert entries(last) == entries(whole)
    # Nothing was measured twice, and everything is in the store.
    ids = store.read()["cell_id"].to_pylist()
    assert sorted(ids) == sorted(open_store("whole").read()["cell_id"].to_pylist())
    assert 0 < sum(fleet.measured.values()) < len(ids)


def test_a_finished_tuning_measures_nothing_when_it_is_started_again(
    plan: Plan, board: Device, open_store: Callable[[str], SampleStore]
) -> None:
    truths, store = drawn(7, 2, of_engines), open_store("samples")
    first = make_search({TYPE: problems(2)})
    tune(plan, store, fleet_of(truths, board), first)
    again, fleet = make_search({TYPE: problems(2)}), fleet_of(truths, board)
    assert tune(plan, store, fleet, again)
    assert not fleet.measured
    assert entries(again) == entries(first)


def ratio_of(truths: Truths, entry: TunedEntry) -> float:
    return truths.ratios[TYPE, entry.gemm.m][entry.winner.tile_m - 1]


def best_of(truths: Truths, entry: TunedEntry) -> float:
    return min(truths.ratios[TYPE, entry.gemm.m])
