"""Which of two configurations is faster: paired readings of one board, and how sure they are.

    d[turn] = log(cost of one) - log(cost of the other)      both read in the same turn
    centre  = median of d          error = 1.2533 sigma / sqrt(n)      (sigma / sqrt(n) for n < 3)

In a turn both run within a fraction of a second, so clock, voltage and temperature are the same and
leave the difference. The median ignores the one burst in a hundred that ran at another clock.
sigma is the larger of what these differences show and what all pairs of the type have shown: three
readings that agree by chance do not make a certainty. Does not know what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final

MEDIAN_ERROR: Final = 1.2533
"""Standard error of a median over that of a mean."""
TO_SIGMA: Final = 1.4826
"""Standard deviation over the median absolute deviation, of a normal distribution."""
FEWEST_STEPS: Final = 12
"""Differences between successive readings, from which on the noise of a type is its own."""
LOWEST_NOISE: Final = 0.003
"""Repeatability of a burst on one board; no noise counts as smaller."""
FIRST_NOISE: Final = {"cuda": 0.013, "cpu": 0.05}
"""Noise of a difference before any is known, by kind of device: two bursts of an H100 that carry
other kernels' state repeat to 0.94 % each (docs/measuring.md)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The logarithm of a ratio of costs, as far as it is known."""

    centre: float
    """Below 0: the one is cheaper than the other."""
    error: float
    """Standard error."""
    readings: int

    def low(self, z: float) -> float:
        """Lower end of the interval of `z` standard errors."""
        return self.centre - z * self.error

    def high(self, z: float) -> float:
        """Upper end of it."""
        return self.centre + z * self.error


class Noise:
    """How far successive differences of a pair are apart, over all pairs of a type of device.

    Args:
        first: the noise before enough is known.
    """

    def __init__(self, first: float) -> None:
        self._first = first
        self._steps: list[float] = []
        self._sigma: float | None = None

    def add(self, differences: Sequence[float]) -> None:
        """The newest difference of a pair, the last one, beside the one before."""
        if len(differences) > 1:
            self._steps.append(abs(differences[-1] - differences[-2]) / sqrt(2))
            self._sigma = None

    @property
    def sigma(self) -> float:
        """Standard deviation of one difference."""
        if len(self._steps) < FEWEST_STEPS:
            return self._first
        if self._sigma is None:
            self._sigma = max(LOWEST_NOISE, TO_SIGMA * median(self._steps))
        return self._sigma


def difference(values: Sequence[float], noise: float) -> Difference:
    """Of the differences of all turns; at least one.

    Args:
        noise: standard deviation of one, as the type of device has shown it.
    """
    centre, count = median(values), len(values)
    own = TO_SIGMA * median(abs(value - centre) for value in values)
    sigma = max(own, noise)
    of_median = MEDIAN_ERROR if count > 2 else 1.0
    return Difference(centre, of_median * sigma / sqrt(count), count)
