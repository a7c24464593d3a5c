"""When a difference of costs is certain, and what a verdict says.

All intervals are in logarithms: below 0 the one is cheaper. Knows neither turns nor stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log1p
from typing import Final

from coordinator.tune.paired import Difference
from gemmcast.config import KernelConfig

Z: Final = 3.2
"""Standard errors of a certainty in the final; test_coordinator_tune_search.py tries it on lists
where no rival gains anything."""
Z_OF_MANY: Final = 3.5
"""The same where the readings that chose a rival also judge it."""
Z_DROP: Final = 2.5
"""Standard errors by which a rival is slower before it drops out."""
LONELY: Final = 3.0
"""How many times as far off a single reading may be: one burst in a hundred runs at another
clock."""
MARGIN: Final = log1p(0.003)
"""A gain below a board's own repeatability is none."""
SAME: Final = log1p(0.005)
"""Rivals no further apart than this count as equal."""
ESTIMATED: Final = log1p(0.05)
"""How far an estimate by predicted power may be off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to run, and why."""

    winner: KernelConfig
    reason: str
    """For people."""
    difference: Difference | None = None
    """Of the winner from the default; None where it is the default, or that does not run."""
    is_verified: bool = True
    """Whether it rests on readings."""
    is_certain: bool = True
    """False: it was cut short, so the default stays for now."""


def is_gain(one: Difference, z: float = Z) -> bool:
    """Whether it surely costs less than the default, by more than MARGIN."""
    return -one.high(z) > MARGIN


def is_gain_of_many(one: Difference) -> bool:
    """The same of the best of several, by the readings that made it the best."""
    return is_gain(one, Z_OF_MANY * _lonely(one))


def is_no_gain(one: Difference, tolerance: float) -> bool:
    """Whether it surely gains nothing on the default."""
    return -one.low(Z_DROP * _lonely(one)) < MARGIN - tolerance


def is_behind(one: Difference, tolerance: float) -> bool:
    """Whether it surely costs more than the best."""
    return one.low(Z_DROP * _lonely(one)) > tolerance


def may_be_ahead(one: Difference) -> bool:
    """Whether it may cost less than the best, by more than SAME."""
    return -one.low(Z_DROP * _lonely(one)) > SAME


def percent(one: Difference) -> str:
    """What it gains: `+12.3 %`."""
    return f"{100 * expm1(-one.centre):+.1f} %"


def _lonely(one: Difference) -> float:
    return LONELY if one.readings == 1 else 1.0
