"""One problem of a tuning: who drops out, who wins, and when the default stays."""

from __future__ import annotations

from math import log

import pytest

from coordinator.tune.outcome import Outcome, outcome_of
from coordinator.tune.problem import Rival
from coordinator.tune.race import Race
from coordinator.tune.readings import Reading
from coordinator.tune.search import Search
from coordinator.tune.track import Track
from gemmcast.cell import Cell
from tests.coordinator.tune_truths import TYPE, Truths, config, make_search, problem, run

M = 64


def race_of(
    ratios: list[float], *, objective: str = "time", **truth: object
) -> tuple[Race, list[list[Cell]]]:
    """A race over these costs of the rivals over the default's, run to its end."""
    search = make_search({TYPE: [problem(len(ratios), m=M)]}, objective=objective)
    truths = Truths({(TYPE, M): [1.0, *ratios]}, **truth)  # type: ignore[arg-type]
    cells = run(search, truths)
    return only_race(search), cells


def only_race(search: Search) -> Race:
    (race,) = search.races[TYPE].values()
    return race


def outcome(ratios: list[float], **options: object) -> Outcome:
    race, _ = race_of(ratios, **options)  # type: ignore[arg-type]
    return outcome_of(race)


def test_the_fastest_wins_with_its_gain_and_interval() -> None:
    entry = outcome([0.8, 0.5, 1.3]).entry
    assert entry.winner == config(2)
    assert entry.gain_low < 2.0 < entry.gain_high
    assert entry.gain == pytest.approx(2.0, rel=0.02)
    assert entry.verified
    assert (entry.measured, entry.possible) == (4, 14)
    assert entry.winner_measured.runtime_us == pytest.approx(50.0, rel=0.02)
    assert entry.default_measured.runtime_us == pytest.approx(100.0, rel=0.02)


@pytest.mark.parametrize("ratio", [1.0, 0.9985, 1.002])
def test_a_tie_keeps_the_default(ratio: float) -> None:
    entry = outcome([ratio, 1.2]).entry
    assert entry.keeps_default
    assert (entry.gain, entry.gain_low, entry.gain_high) == (1.0, 1.0, 1.0)
    assert entry.verified


def test_a_gain_of_two_per_cent_is_seen_through_the_noise() -> None:
    assert outcome([0.98]).entry.winner == config(1)


def test_turns_alternate_and_losers_drop_out_early() -> None:
    _, rounds = race_of([0.8, 0.5, 1.3])
    first = [cell.config for cell in rounds[0]]
    assert first == [config(0), config(1), config(2), config(3)]
    assert [cell.config for cell in rounds[-1]] == [config(0), config(2)] * 3
    # No cell is measured twice.
    ids = [cell.cell_id for cells in rounds for cell in cells]
    assert len(set(ids)) == len(ids) <= 4 + 3 + 6


def test_why_each_loser_was_left_out_is_said() -> None:
    left_out = outcome([0.5, 0.8], failures={config(3): ("incorrect", "off by 2")}).left_out
    assert left_out[str(config(2))].endswith(f"% behind {config(1)}")


def test_a_rival_that_fails_is_left_out_with_its_reason() -> None:
    failures = {config(1): ("out_of_memory", "no room"), config(3): ("crashed", "twice")}
    result = outcome([0.3, 0.6, 0.2], failures=failures)
    assert result.entry.winner == config(2)
    assert result.left_out[str(config(1))] == "out_of_memory: no room"
    assert result.left_out[str(config(3))] == "crashed: twice"
    assert result.entry.measured == 2


def test_those_that_do_not_run_are_replaced_by_the_next_best_guesses() -> None:
    predicted = [100.0 * 2**i for i in range(7)]
    search = make_search({TYPE: [problem(m=M, predicted=predicted)]}, top=3)
    failures = {config(i): ("unsupported", "not compiled") for i in (1, 2, 3, 4)}
    truths = Truths({(TYPE, M): [1.0, 0.3, 0.3, 0.3, 0.3, 0.9, 0.6]}, failures=failures)
    rounds = run(search, truths)
    # Three, then three in their place of which one fails and has nobody left to follow it.
    assert [len(cells) for cells in rounds[:2]] == [4, 4]
    result = outcome_of(only_race(search))
    assert result.entry.winner == config(6)
    assert (result.entry.measured, len(result.left_out)) == (3, 5)


def test_where_the_default_does_not_run_the_best_of_the_others_is_taken_unverified() -> None:
    failures = {config(0): ("unsupported", "not compiled")}
    entry = outcome([0.9, 0.7], failures=failures).entry
    assert entry.winner == config(2)
    assert not entry.verified
    assert "does not run (unsupported: not compiled)" in entry.reason


def test_where_nothing_runs_the_default_stays_unverified() -> None:
    failures = {config(i): ("unsupported", "not compiled") for i in range(3)}
    entry = outcome([0.9, 0.7], failures=failures).entry
    assert entry.keeps_default
    assert not entry.verified
    assert entry.measured == 0
    assert entry.reason.startswith("nothing runs")


def test_a_default_that_ran_and_then_fails_once_is_still_the_default() -> None:
    search = make_search({TYPE: [problem(1, m=M)]})
    truths = Truths({(TYPE, M): [1.0, 1.001]})
    run(search, truths, rounds=1)
    truths.failures[config(0)] = ("timeout", "ran longer than 60 s")
    run(search, truths, rounds=1)
    truths.failures.clear()
    run(search, truths)
    assert outcome_of(only_race(search)).entry.keeps_default


def test_readings_of_two_boards_are_no_pair() -> None:
    search = make_search({TYPE: [problem(1, m=M)]})
    race = only_race(search)
    truths = Truths({(TYPE, M): [1.0, 0.5]})
    for turn in race.next_turns():
        default, rival = turn.cells(race.problem, 0)
        readings = {
            default.config: truths.reading(default, "GPU-0"),
            rival.config: truths.reading(rival, "GPU-1"),
        }
        race.note(turn, readings)
    race.decide()
    assert race.raced == {}
    race.stop("stopped")
    assert outcome_of(race).entry.keeps_default


def test_two_rivals_are_compared_over_the_turns_of_both() -> None:
    one, other = (Track(Rival(config=config(i))) for i in (1, 2))
    reading = Reading(status="ok")
    for turn, value in enumerate((1.0, 2.0, 4.0)):
        one.note(turn, reading, value, default=1.0)
    assert other.from_other(one, 0.01) is None
    other.note(2, reading, 8.0, default=1.0)
    apart = other.from_other(one, 0.01)
    assert apart is not None
    assert (apart.centre, apart.readings) == (pytest.approx(log(2.0)), 1)


def test_the_winner_of_many_is_judged_on_fresh_readings() -> None:
    race, rounds = race_of([0.9, 0.9, 0.9, 0.9])
    assert race.verdict is not None
    assert race.verdict.difference is not None
    # Of the final alone, not of the race before it.
    finals = [cells for cells in rounds if {cell.config for cell in cells} == two(race)]
    assert race.verdict.difference.readings == sum(map(len, finals)) // 2


def two(race: Race) -> set[object]:
    assert race.verdict is not None
    return {config(0), race.verdict.winner}


@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_only_finalists_are_metered(objective: str) -> None:
    race, rounds = race_of([0.61, 0.9, 1.2, 0.6, 1.4], objective=objective)
    metered = {cell.config for cells in rounds for cell in cells if cell.power}
    assert metered == {config(0), config(1), config(4)}
    assert not any(cell.power for cell in rounds[0])
    entry = outcome_of(race).entry
    assert entry.winner == config(4)
    assert entry.winner_measured.energy_mj == pytest.approx(18.0, rel=0.03)


def test_under_a_limit_the_fastest_that_keeps_it_wins_even_over_a_faster_default() -> None:
    power_w = {config(2): 190.0, config(3): 150.0}
    result = outcome([0.5, 1.2, 1.5], objective="time-under-watts=200", power_w=power_w)
    assert result.entry.winner == config(2)
    assert result.entry.gain == pytest.approx(1 / 1.2, rel=0.02)
    assert result.entry.reason == "the default draws 300 W"
    assert result.left_out[str(config(1))] == "draws 300 W"


def test_under_a_limit_that_the_default_keeps_a_winner_is_faster() -> None:
    power_w = {config(1): 500.0}
    entry = outcome([0.5, 0.7, 1.2], objective="time-under-watts=400", power_w=power_w).entry
    assert entry.winner == config(2)
    assert outcome(
        [0.5, 1.1], objective="time-under-watts=400", power_w=power_w
    ).entry.keeps_default


def test_no_winner_draws_more_than_the_limit() -> None:
    entry = outcome([0.5], objective="time-under-watts=200").entry
    assert entry.keeps_default
    assert entry.reason == "none stays below the limit; the default draws 300 W"


def test_cut_short_it_keeps_what_is_certain() -> None:
    for ratio, winner in ((0.5, config(1)), (0.99, config(0))):
        search = make_search({TYPE: [problem(1, m=M)]})
        run(search, Truths({(TYPE, M): [1.0, ratio]}), rounds=1)
        search.stop("stopped")
        result = outcome_of(only_race(search))
        assert result.entry.winner == winner
        assert result.is_certain == (ratio == 0.5)


def test_without_rivals_there_is_nothing_to_measure() -> None:
    race, rounds = race_of([])
    assert rounds == []
    entry = outcome_of(race).entry
    assert entry.keeps_default
    assert not entry.verified
