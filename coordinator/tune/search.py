"""All problems of a tuning on all types of device, round by round.

A round has the next turns of every problem that has no verdict. The next one follows from the
committed readings alone, so a tuning that is started again goes through the same rounds, and
measures only what the store lacks. Of several types each leads on a share of the GEMMs; when all
leaders have their verdicts, the others follow with fewer rivals (coordinator/tune/transfer.py).
Knows no fleet and no store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.tune.guesses import next_guesses
from coordinator.tune.paired import FIRST_NOISE, Noise
from coordinator.tune.problem import Problem, Rival
from coordinator.tune.race import Race
from coordinator.tune.readings import Reading, Readings
from coordinator.tune.spent import Spent
from coordinator.tune.transfer import reranked
from coordinator.tune.turns import Limits, Turn
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.gemm_list import ListedGemm
from gemmcast.objective import Objective

BEYOND = "beyond the budget"
ROUNDS_OF_ALL = 1.5
"""Turns that a rival takes part in before it drops out, on average: what is set aside of the budget
for each GEMM."""
FEWEST_FOLLOWING = 2
SecondsOf = Callable[[Cell], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says of the search."""

    objective: Objective
    limits: Limits
    top: int
    """Rivals in the first turn of each problem."""
    series: Mapping[str, int]
    """Type of device -> number of its first turn."""
    budget_s: float | None = None
    """Time of each type of device. [s]"""
    is_replay: bool = False
    """Whether readings come from recordings, so that their times are not of here."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who takes part in a race."""

    rivals: Sequence[Rival]
    """From the first turn on."""
    most: int
    """How many may take part in all."""


@dataclass(slots=True)
class _Due:
    """A turn of the present round."""

    race: Race
    turn: Turn
    cells: list[Cell]


class Search:
    """See the head of this file.

    Args:
        problems: of each type of device in the order of the list, every type with all lines.
        kinds: type of device -> its kind.
        seconds_of: about how long a device takes for a cell.
    """

    def __init__(
        self,
        problems: Mapping[str, Sequence[Problem]],
        kinds: Mapping[str, str],
        settings: Settings,
        seconds_of: SecondsOf,
    ) -> None:
        self.problems = problems
        self._kinds = kinds
        self.settings = settings
        self._seconds_of = seconds_of
        self._noises = {name: _noises(kinds[name]) for name in problems}
        self._due: list[_Due] = []
        self._is_following = False
        self._spent = {name: Spent() for name in problems}
        self.saved = 0
        """First readings of rivals that another type's readings made needless."""
        self.races: dict[str, dict[int, Race]] = {name: {} for name in problems}
        """Type of device -> place in the list -> its race; none without a default."""
        self._begin(self._leaders())

    def spent_s(self, name: str) -> float:
        """Time that a type of device has measured, over all of its boards. [s]"""
        return self._spent[name].total_s

    @property
    def undecided(self) -> list[Race]:
        """Races without a verdict."""
        races = [race for of_type in self.races.values() for race in of_type.values()]
        return [race for race in races if race.verdict is None]

    def progress(self) -> str:
        """`12 of 108 GEMMs decided`, over all types of device."""
        races = sum(map(len, self.races.values()))
        return f"{races - len(self.undecided)} of {races} GEMMs decided"

    def next_round(self) -> list[Cell]:
        """The cells of the next round; none: everything is decided."""
        while not self.undecided and not self._is_following:
            self._is_following = True
            self._begin(self._followers())
        self._due = []
        for name, races in self.races.items():
            for place in self._by_importance(name, races):
                self._add_turns(name, races[place])
        return [cell for due in self._due for cell in due.cells]

    def note(self, readings: Readings) -> None:
        """The readings of the round, and what follows from them."""
        by_type: dict[str, list[Reading]] = defaultdict(list)
        for due in self._due:
            found: dict[KernelConfig, Reading] = {}
            for cell in due.cells:
                reading = readings.of(cell)
                if reading is not None:
                    found[cell.config] = reading
            due.race.note(due.turn, found)
            by_type[due.race.problem.device_key] += found.values()
        for name, of_type in by_type.items():
            self._spent[name].note([] if self.settings.is_replay else of_type)
        # First all readings, then all decisions: they see the same noise.
        for race in dict.fromkeys(due.race for due in self._due):
            race.decide()
        self._due = []

    def stop(self, why: str) -> None:
        """No more rounds: what is certain counts, else defaults stay."""
        for race in self.undecided:
            race.stop(why)

    def _add_turns(self, name: str, race: Race) -> None:
        """Put a race's next turns into the round, if the budget has room for them."""
        added: list[_Due] = []
        for turn in race.next_turns():
            cells = turn.cells(race.problem, self.settings.series[name])
            added.append(_Due(race, turn, cells))
        seconds = sum(self._seconds_of(cell) for one in added for cell in one.cells)
        if not self._has_room(name, seconds):
            race.stop(BEYOND)
            return
        self._spent[name].plan(seconds)
        self._due += added

    def _has_room(self, name: str, seconds: float) -> bool:
        budget_s = self.settings.budget_s
        spent = self._spent[name]
        return budget_s is None or spent.total_s + spent.pace * seconds <= budget_s

    def _leaders(self) -> dict[str, dict[int, Chosen]]:
        """Type -> place -> rivals, of the problems that lead."""
        chosen: dict[str, dict[int, Chosen]] = {name: {} for name in sorted(self.problems)}
        for place, name in self._leading().items():
            chosen[name][place] = self._alone(self.problems[name][place])
        return chosen

    def _alone(self, problem: Problem) -> Chosen:
        """Of a problem that nothing else was measured for."""
        top, objective = self.settings.top, self.settings.objective
        return Chosen(next_guesses(problem, {}, (), top, objective), most_of(top))

    def _leading(self) -> dict[int, str]:
        """Place -> the type that leads there: in turn, of those that can run it."""
        names = sorted(self.problems)
        leading: dict[int, str] = {}
        for place in range(max(map(len, self.problems.values()), default=0)):
            turned = names[place % len(names) :] + names[: place % len(names)]
            able = [one for one in turned if self.problems[one][place].default is not None]
            if able:
                leading[place] = able[0]
        return leading

    def _followers(self) -> dict[str, dict[int, Chosen]]:
        """The same of all other problems."""
        chosen: dict[str, dict[int, Chosen]] = {name: {} for name in self.problems}
        for place, leader in self._leading().items():
            for name in sorted(self.problems):
                problem = self.problems[name][place]
                if name != leader and problem.default is not None:
                    chosen[name][place] = self._following(name, leader, place)
        return chosen

    def _following(self, name: str, leader: str, place: int) -> Chosen:
        problem, top = self.problems[name][place], self.settings.top
        race = self.races[leader].get(place)
        shared = {rival.config for rival in problem.rivals} & set(race.raced if race else ())
        if race is None or 2 * len(shared) < len(race.raced) or not shared:
            # What was measured there says little of what is possible here.
            return self._alone(problem)
        raced = {config: race.raced[config] for config in shared}
        ranked = reranked(problem, race.problem, raced, self.settings.objective)
        count = min(top, max(FEWEST_FOLLOWING, -(-top // 2)))
        self.saved += max(0, min(most_of(top), len(ranked)) - count)
        return Chosen(ranked[:count], count)

    def _begin(self, chosen: Mapping[str, Mapping[int, Chosen]]) -> None:
        budget_s = self.settings.budget_s
        for name, of_type in chosen.items():
            spent = self._spent[name]
            reserved_s = spent.total_s
            for place in self._by_importance(name, of_type):
                race = self._race(name, place, of_type[place])
                reserved_s += spent.pace * self._typical_s(race)
                if budget_s is not None and reserved_s > budget_s:
                    race.stop(BEYOND)
                self.races[name][place] = race

    def _race(self, name: str, place: int, chosen: Chosen) -> Race:
        settings = self.settings
        return Race(
            self.problems[name][place],
            chosen.rivals,
            chosen.most,
            settings.objective,
            settings.limits,
            self._noises[name],
        )

    def _typical_s(self, race: Race) -> float:
        """About what a race takes: a turn and a half of everyone, then the shortest final."""
        limits = self.settings.limits
        turns = race.next_turns()
        if not turns:
            return 0.0
        first = turns[0].configs
        finalists = first[: limits.finalists + 1]
        final = Turn(0, finalists, self.settings.objective.is_metered)
        first_s = sum(map(self._seconds_of, turns[0].cells(race.problem, 0)))
        final_s = sum(map(self._seconds_of, final.cells(race.problem, 0)))
        everyone_s = first_s * (1 + race.most) / len(first)
        return ROUNDS_OF_ALL * everyone_s + min(limits.look, limits.final) * final_s

    def _by_importance(self, name: str, places: Iterable[int]) -> list[int]:
        """The most time in the whole list first: what the budget lacks is missing at the end."""
        problems = self.problems[name]
        return sorted(places, key=lambda place: (-_importance(problems[place]), place))


def most_of(top: int) -> int:
    """Rivals that may take part where `top` begin; with the default two and a half times `top`."""
    return max(top, 5 * top // 2 - 1)


def _importance(problem: Problem) -> float:
    listed: ListedGemm = problem.listed
    predicted = problem.default.predicted.runtime_us if problem.default else None
    return listed.weight * (predicted or listed.gemm.flops)


def _noises(kind: str) -> dict[bool, Noise]:
    """Of bursts and of power windows."""
    return {is_metered: Noise(FIRST_NOISE[kind]) for is_metered in (False, True)}
