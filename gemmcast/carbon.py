"""What the energy of GEMMs costs, and what making it emits.

    kWh = mJ / 3.6e9      cost = kWh x price      gCO2e = kWh x intensity of the grid

The energy is the boards' alone: no host, no cooling, nothing that is idle. One launch is too little
to read, so amounts are those of a million times. The interval is that of the energy; price and
intensity are taken as exact. A cost has the currency of the price, whatever that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

from gemmcast.cli_text import rounded
from gemmcast.errors import InputError

if TYPE_CHECKING:
    from gemmcast.forward_pass import Cost
    from gemmcast.prediction import Prediction

MJ_PER_KWH: Final = 3.6e9
TIMES: Final = 1_000_000
"""Launches, passes or lists that amounts are of."""
_ENERGY: Final = "energy_mj"
_SHOWN: Final = {"cost": "cost", "gco2e": "gCO2e"}


class Interval(NamedTuple):
    """A value, and the interval that holds nine of ten measurements."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        """All three multiplied."""
        return Interval(*(factor * number for number in self))

    @property
    def text(self) -> str:
        """`6.7 (6.1 to 7.4)`, with the digits that the interval allows."""
        value, low, high = rounded(*self)
        return f"{value} ({low} to {high})"


def _check(option: str, value: float | None, way_out: str) -> None:
    if value is not None and not (isfinite(value) and value >= 0):
        raise InputError(option, value, "must be a finite number, not negative", way_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a kilowatt-hour costs and emits; None: nobody wants that amount."""

    kwh_price: float | None = None
    """Price of a kilowatt-hour, in any currency."""
    gco2_per_kwh: float | None = None
    """Grams of CO2 equivalent that the grid emits for a kilowatt-hour."""

    def __post_init__(self) -> None:
        _check("--kwh-price", self.kwh_price, "give the price of a kWh, such as 0.25")
        _check("--gco2-per-kwh", self.gco2_per_kwh, "give grams of a kWh, such as 380")

    @property
    def per_kwh(self) -> Mapping[str, float]:
        """Name of an amount -> how much of it a kilowatt-hour is."""
        both = {"cost": self.kwh_price, "gco2e": self.gco2_per_kwh}
        return {name: rate for name, rate in both.items() if rate is not None}

    @property
    def per_mj(self) -> Mapping[str, float]:
        """Name of an amount -> how much of it TIMES millijoules are."""
        return {name: TIMES * rate / MJ_PER_KWH for name, rate in self.per_kwh.items()}

    def amounts(self, energy: Interval | None) -> dict[str, Interval | None]:
        """Name of an amount -> the amount, of TIMES times this energy [mJ]; None: unknown."""
        amounts: dict[str, Interval | None] = {}
        for name, factor in self.per_mj.items():
            amounts[name] = None if energy is None else energy.times(factor)
        return amounts

    def values(self, energy: Interval | None) -> dict[str, object]:
        """Keys of a command's JSON: `carbon`, where an amount is wanted."""
        if not self.per_kwh:
            return {}
        amounts = {
            name: None if amount is None else amount._asdict()
            for name, amount in self.amounts(energy).items()
        }
        return {"carbon": {"times": TIMES, "rates": dict(self.per_kwh), **amounts}}

    @staticmethod
    def title(name: str, of: str) -> str:
        """What an amount is called for people: `gCO2e of a million launches`."""
        return f"{_SHOWN[name]} of a million {of}"

    def lines(self, energy: Interval | None, of: str) -> Iterator[str]:
        """For people: `gCO2e of a million launches: 6.7 (6.1 to 7.4)`."""
        for name, amount in self.amounts(energy).items():
            text = amount.text if amount else "unknown, because no energy is predicted"
            yield f"{self.title(name, of)}: {text}"

    def change_values(self, energy_mj: tuple[float, float] | None) -> dict[str, object]:
        """Keys of a command's JSON: `carbon`, of an energy before and after; None: unknown."""
        if not self.per_kwh:
            return {}
        amounts: dict[str, object] = {}
        for name, factor in self.per_mj.items():
            amounts[name] = None
            if energy_mj is not None:
                before, after = (factor * number for number in energy_mj)
                amounts[name] = {"before": before, "after": after}
        return {"carbon": {"times": TIMES, "rates": dict(self.per_kwh), **amounts}}

    def change_lines(self, energy_mj: tuple[float, float] | None, of: str) -> Iterator[str]:
        """For people: `gCO2e of a million lists: 6.7 -> 6.1`."""
        for name, factor in self.per_mj.items():
            text = "unknown, because no energy is known"
            if energy_mj is not None:
                before, after = (factor * number for number in energy_mj)
                text = f"{before:.4g} -> {after:.4g}"
            yield f"{self.title(name, of)}: {text}"


NO_RATES: Final = Rates()
"""Nobody wants an amount."""


def energy_of(predicted: Prediction | Cost) -> Interval | None:
    """Energy of one launch, or of a pass on all its GPUs [mJ]; None where it is not predicted."""
    if predicted.energy_mj is None:
        return None
    return Interval(predicted.energy_mj, predicted.low[_ENERGY], predicted.high[_ENERGY])


def energy_of_list(predictions: Iterable[tuple[float, Prediction]]) -> Interval | None:
    """Sum of weight x energy [mJ], end by end: as if all errors went together.

    None where one of them is unknown, or there is none.
    """
    total = Interval(0.0, 0.0, 0.0)
    for weight, prediction in predictions:
        energy = energy_of(prediction)
        if energy is None:
            return None
        total = Interval(*(a + weight * b for a, b in zip(total, energy, strict=True)))
    return total if total.value else None
