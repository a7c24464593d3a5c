"""One problem, from its first turn to its verdict.

    race    turns of the default and every rival; what is surely slower than the best one, or surely
            no better than the default, drops out at once. After each of the first turns those come
            in that the readings so far make promising (coordinator/tune/guesses.py)
    final   fresh turns of the default and the finalists. They alone decide: the best of many is
            the luckiest, too, and its readings from the race would flatter it

A rival wins as soon as that is certain (coordinator/tune/rules.py). Until then more turns follow;
where they end without that it is a tie, and a tie keeps the default. What comes next is a function
of the readings alone. Knows neither cells nor a fleet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from math import expm1, inf

from coordinator.tune.guesses import next_guesses
from coordinator.tune.paired import Difference, Noise
from coordinator.tune.problem import Problem, Rival, estimated_cost
from coordinator.tune.readings import Reading
from coordinator.tune.rules import (
    ESTIMATED,
    Z_OF_MANY,
    Verdict,
    is_behind,
    is_gain,
    is_gain_of_many,
    is_no_gain,
    may_be_ahead,
    percent,
)
from coordinator.tune.track import Track
from coordinator.tune.turns import Limits, Turn
from gemmcast.config import KernelConfig
from gemmcast.objective import Objective
from gemmcast.tuned_entry import Cost

REPLACED = 3
"""Configurations that may take the place of some that do not run, for each of the first turn."""


class Stage(Enum):
    """How far a problem is."""

    RACE = "race"
    FINAL = "final"
    OVER = "over"


Best = tuple[Track, Difference]
"""A rival, and how much it differs from the default."""


class Race:
    """See the head of this file.

    Args:
        problem: with a default.
        rivals: of the problem, those that take part from the first turn on.
        most: how many may take part in all, without those that replace what does not run.
        noises: of bursts, and of power windows: (False, True) -> what they have shown so far.
    """

    def __init__(
        self,
        problem: Problem,
        rivals: Sequence[Rival],
        most: int,
        objective: Objective,
        limits: Limits,
        noises: Mapping[bool, Noise],
    ) -> None:
        assert problem.default is not None
        self.problem = problem
        self.default = Track(problem.default)
        self.rivals = [Track(rival) for rival in rivals]
        self.verdict: Verdict | None = None
        self._first = len(rivals)
        self.most = min(most, len(problem.rivals))
        """Rivals that may take part, without those that replace others."""
        self._failed = 0
        self._replaced = 0
        self._objective = objective
        self._limits = limits
        self._noises = noises
        self._stage = Stage.RACE
        self._is_metered = limits.is_race_metered
        self._turns = 0
        self._begun = 0
        self._raced_best: Best | None = None
        self.raced: dict[KernelConfig, float] = {}
        """Differences from the default in the race, for other types of device."""
        if not self.rivals:
            self._keep("it is the only configuration", is_verified=False)

    @property
    def live(self) -> list[Track]:
        """Rivals that may still win."""
        return [track for track in self.rivals if not track.left_out]

    def next_turns(self) -> list[Turn]:
        """What is measured next; nothing when there is a verdict."""
        if self.verdict is not None:
            return []
        is_race = self._stage is Stage.RACE
        count = 1 if is_race else min(self._limits.look, self._limits.final - self._begun)
        running = self.live
        if self._limits.is_replay:
            # A recording has one reading of each cell.
            running = [track for track in running if not track.was_measured]
        configs = (self.default.config, *(track.config for track in running))
        first = 0 if self._limits.is_replay else self._turns
        return [Turn(first + i, configs, self._is_metered) for i in range(count)]

    def note(self, turn: Turn, readings: Mapping[KernelConfig, Reading]) -> None:
        """The readings of a turn of `next_turns`; some may be missing."""
        self._turns = turn.number + 1
        self._begun += 1
        beside = readings.get(self.default.config)
        base: float | None = None
        if beside is not None:
            base = self._take(self.default, turn, beside, None)
        for track in self.live:
            reading = readings.get(track.config)
            if reading is None:
                continue
            is_beside = beside is not None and beside.board == reading.board
            self._take(track, turn, reading, base if is_beside else None)

    def decide(self) -> None:
        """Drop rivals, go on to the final, or come to a verdict."""
        if self._stage is Stage.OVER:
            return
        if self.default.left_out:
            self._decide_without_default()
        elif self._stage is Stage.RACE:
            self._decide_race()
        else:
            self._decide_final()

    def stop(self, why: str) -> None:
        """Cut it short: what is certain by now counts, else the default stays."""
        if self._stage is Stage.OVER:
            return
        best = self._certain()
        if best is not None and not self.default.left_out:
            self._win(*best)
            return
        is_measured = self.default.was_measured
        self._keep(f"{why}: nothing is certain yet", is_certain=False, is_verified=is_measured)

    def measured(self) -> int:
        """Configurations with a good reading."""
        return sum(track.was_measured for track in (self.default, *self.rivals))

    @property
    def _noise(self) -> float:
        return self._noises[self._is_metered].sigma

    def _take(
        self, track: Track, turn: Turn, reading: Reading, default: float | None
    ) -> float | None:
        """Note one reading; returns what is minimised of it."""
        is_proven = track is self.default and track.was_measured
        if reading.is_refusal and not is_proven:
            track.left_out = reading.text
            self._failed += track is not self.default
            return None
        value = self._value(track, reading.cost) if reading.is_ok else None
        if not reading.is_ok or value is None:
            return None
        differences = track.note(turn.number, reading, value, default)
        if default is not None:
            self._noises[turn.is_metered].add(differences)
        return value

    def _value(self, track: Track, cost: Cost) -> float | None:
        if self._is_metered:
            return self._objective.of(cost)
        return self._objective.of(estimated_cost(cost, track.rival.predicted))

    def _decide_race(self) -> None:
        is_last = self._begun >= self._limits.race
        self._note_raced()
        has_new = self._bring_in(self._replacements() + self._newcomers())
        self._drop_above_limit()
        if not self._objective.is_capped or self._is_metered:
            # Else a slower one may be the fastest that draws so little.
            self._drop_slower()
            self._drop_no_better()
        if not self.live:
            self._keep(self._why_none())
            return
        if has_new or not (is_last or self._limits.is_replay or self._is_settled()):
            return
        if self._limits.final:
            self._begin_final()
        else:
            self._decide_by_race()

    def _replacements(self) -> int:
        """How many are to take the place of those that did not run."""
        count = min(self._failed, REPLACED * self._first - self._replaced)
        self._failed = 0
        self._replaced += count
        return count

    def _newcomers(self) -> int:
        """How many more are to take part after this turn."""
        if self._begun > self._limits.widenings:
            return 0
        room = self.most + self._replaced - len(self.rivals)
        return max(0, min(-(-self._first // 2), room))

    def _bring_in(self, count: int) -> bool:
        """Bring in the best guesses by what was measured; whether there are any."""
        if not count:
            return False
        tried = [track.config for track in self.rivals]
        guesses = next_guesses(self.problem, self.raced, tried, count, self._objective)
        self.rivals += map(Track, guesses)
        return bool(guesses)

    def _decide_by_race(self) -> None:
        best = self._best()
        if best is None:
            self._keep(self._unpaired(), is_verified=False)
        elif is_gain(best[1], Z_OF_MANY) or self._is_over_limit():
            self._win(*best)
        else:
            self._keep(_tie(*best))

    @property
    def _tolerance(self) -> float:
        is_estimate = self._objective.is_metered and not self._is_metered
        return ESTIMATED if is_estimate else 0.0

    def _certain(self) -> Best | None:
        """The best rival, if it is certain by the final, or before that by the race."""
        best = self._best()
        if self._stage is Stage.FINAL and best is not None:
            return best if is_gain(best[1]) else None
        raced = self._raced_best if self._stage is Stage.FINAL else best
        if raced is None or self._tolerance:
            return None
        return raced if is_gain_of_many(raced[1]) else None

    def _begin_final(self) -> None:
        self._raced_best = None if self._tolerance else self._best()
        ranked = sorted(self.live, key=self._standing)
        for track in ranked[self._limits.finalists :]:
            track.left_out = "not among the best of the race"
        for track in (self.default, *self.live):
            track.start_over()
        self._stage = Stage.FINAL
        self._is_metered = self._objective.is_metered
        self._begun = 0

    def _decide_final(self) -> None:
        self._drop_above_limit()
        self._drop_no_better()
        best = self._best()
        is_last = self._begun >= self._limits.final
        if not self.live:
            self._keep(self._why_none())
        elif best is not None and (is_gain(best[1]) or self._is_over_limit()):
            self._win(*best)
        elif is_last and best is None:
            self._keep(self._unpaired(), is_certain=False, is_verified=False)
        elif is_last and best is not None:
            self._keep(_tie(*best))

    def _decide_without_default(self) -> None:
        """The default does not run: the best of those that do, by their own readings."""
        why = f"the default does not run ({self.default.left_out})"
        running = [track for track in self.live if track.level() is not None]
        if not running:
            self._keep(f"nothing runs; {why}", is_verified=False)
            return
        best = min(running, key=_level)
        reason = f"{why}; the best of {len(running)} that do"
        self._end(Verdict(winner=best.config, reason=reason, is_verified=False))

    def _note_raced(self) -> None:
        for track in self.rivals:
            one = track.from_default(self._noise)
            if one is not None:
                self.raced[track.config] = one.centre

    def _drop_slower(self) -> None:
        """Those that are surely slower than the best one."""
        best = self._best()
        if best is None:
            return
        leader = best[0]
        for track in self.live:
            behind = track.from_other(leader, self._noise) if track is not leader else None
            if behind is not None and is_behind(behind, self._tolerance):
                share = 100 * expm1(behind.centre)
                track.left_out = f"{share:.1f} % behind {leader.config}"

    def _drop_no_better(self) -> None:
        """Those that surely gain nothing on the default."""
        if self._is_over_limit():
            return
        for track in self.live:
            one = track.from_default(self._noise)
            if one is not None and is_no_gain(one, self._tolerance):
                track.left_out = f"no better than the default ({percent(one)})"

    def _drop_above_limit(self) -> None:
        for track in self.live:
            power_w = track.cost().power_w
            if not self._objective.admits(track.cost()):
                track.left_out = f"draws {power_w:.0f} W"

    def _is_over_limit(self) -> bool:
        """Whether the default draws more than it may, so that any that does not is better."""
        return not self._objective.admits(self.default.cost())

    def _is_settled(self) -> bool:
        """Whether no other rival can be better than the leader by more than SAME."""
        best = self._best()
        if best is None:
            return False
        for track in self.live:
            if track is best[0]:
                continue
            behind = track.from_other(best[0], self._noise)
            if behind is None or may_be_ahead(behind):
                return False
        return True

    def _best(self) -> Best | None:
        """The live rival with the lowest cost beside the default's."""
        pairs = [(track, track.from_default(self._noise)) for track in self.live]
        known = [(track, one) for track, one in pairs if one is not None]
        return min(known, key=_centre, default=None)

    def _standing(self, track: Track) -> tuple[bool, float]:
        """Sorts by: predicted above a limit of power, cost."""
        one = track.from_default(self._noise)
        centre = inf if one is None else one.centre
        return not self._objective.admits(track.rival.predicted), centre

    def _unpaired(self) -> str:
        return f"no pair of readings{' with power' if self._is_metered else ''}"

    def _why_none(self) -> str:
        default_w = self.default.cost().power_w
        if self._is_over_limit():
            return f"none stays below the limit; the default draws {default_w:.0f} W"
        return f"none of {len(self.rivals)} others is better"

    def _win(self, track: Track, one: Difference) -> None:
        pairs = f"{one.readings} pair{'s' if one.readings > 1 else ''} of readings"
        reason = f"certain after {pairs}"
        if self._is_over_limit():
            reason = f"the default draws {self.default.cost().power_w:.0f} W"
        self._end(Verdict(winner=track.config, reason=reason, difference=one))

    def _keep(self, reason: str, *, is_certain: bool = True, is_verified: bool = True) -> None:
        winner = self.default.config
        self._end(
            Verdict(winner=winner, reason=reason, is_certain=is_certain, is_verified=is_verified)
        )

    def _end(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self._stage = Stage.OVER


def _centre(best: Best) -> float:
    return best[1].centre


def _level(track: Track) -> float:
    level = track.level()
    assert level is not None
    return level


def _tie(track: Track, one: Difference) -> str:
    return f"tie with {track.config} ({percent(one)} after {one.readings})"
