"""From races to entries of a table, and what they save over the whole list.

Does not know how anything was measured, nor where a table is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, log

from coordinator.tune.paired import Difference
from coordinator.tune.race import Race
from gemmcast.config import KernelConfig
from gemmcast.tuned_entry import Cost, TunedEntry

NORMAL_90 = 1.645
"""Standard errors to each side of an interval of 90 %."""
NOT_TRIED = "ranked behind"
Pick = Callable[[Cost], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One GEMM on one type of device."""

    entry: TunedEntry
    weight: float
    is_certain: bool
    """False: budget or interrupt came first, and the default stays for now."""
    left_out: dict[str, str]
    """Configuration -> why it did not win."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A sum over the list, weighted."""

    default: float
    tuned: float

    @property
    def share(self) -> float:
        """Of the default, what is saved. [0..1]"""
        return 1 - self.tuned / self.default if self.default else 0.0


def outcome_of(race: Race) -> Outcome:
    """The entry of a race that is over."""
    problem, verdict = race.problem, race.verdict
    assert verdict is not None
    assert problem.default is not None
    gain, low, high = _gain(verdict.difference)
    entry = TunedEntry(
        gemm=problem.gemm,
        default=problem.default.config,
        winner=verdict.winner,
        default_measured=race.default.cost(),
        winner_measured=_measured(race, verdict.winner),
        default_predicted=problem.default.predicted,
        winner_predicted=problem.predicted(verdict.winner),
        gain=gain,
        gain_low=low,
        gain_high=high,
        verified=verdict.is_verified,
        measured=race.measured(),
        possible=problem.possible,
        reason=verdict.reason,
        name=problem.listed.name,
    )
    left_out = {str(one.config): one.left_out for one in race.rivals if one.left_out}
    return Outcome(
        entry=entry,
        weight=problem.listed.weight,
        is_certain=verdict.is_certain,
        left_out=left_out,
    )


def mean_gain(outcomes: Sequence[Outcome]) -> float:
    """Geometric mean of the gains; 1 without any."""
    logs = [log(outcome.entry.gain) for outcome in outcomes]
    return exp(sum(logs) / len(logs)) if logs else 1.0


def time_us(cost: Cost) -> float | None:
    """Of one launch, as it runs for long where that is known. [us]"""
    return cost.sustained_runtime_us or cost.runtime_us


def energy_mj(cost: Cost) -> float | None:
    """Of one launch. [mJ]"""
    return cost.energy_mj


def saving(outcomes: Iterable[Outcome], pick: Pick, *, predicted: bool = False) -> Saving | None:
    """Of the whole list, as measured or as predicted; None where a GEMM has no such number."""
    default = tuned = 0.0
    for outcome in outcomes:
        entry = outcome.entry
        before = entry.default_predicted if predicted else entry.default_measured
        after = entry.winner_predicted if predicted else entry.winner_measured
        cost, cost_after = pick(before), pick(after)
        if cost is None or cost_after is None:
            return None
        default += outcome.weight * cost
        tuned += outcome.weight * cost_after
    return Saving(default, tuned) if default else None


def _measured(race: Race, winner: KernelConfig) -> Cost:
    tracks = [race.default, *race.rivals]
    return next(track.cost() for track in tracks if track.config == winner)


def _gain(difference: Difference | None) -> tuple[float, float, float]:
    """The gain and its interval."""
    if difference is None:
        return 1.0, 1.0, 1.0
    low, high = -difference.high(NORMAL_90), -difference.low(NORMAL_90)
    return exp(-difference.centre), exp(low), exp(high)
