"""What a prediction looks like as text: units, and the digits that its interval allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from gemmcast.prediction import Prediction

UNITS: Final = {
    "runtime_us": "us",
    "tflops": "TFLOP/s",
    "sustained_runtime_us": "us",
    "power_w": "W",
    "energy_mj": "mJ",
}
EXTRAPOLATING: Final = (
    "extrapolating: a size, device, kernel or dtype outside the training range; "
    "the intervals are not reliable"
)


def show(prediction: Prediction) -> str:
    """One indented line per predicted value."""
    return "\n".join(f"     {line}" for line in _lines(prediction))


def _lines(prediction: Prediction) -> Iterator[str]:
    """One line per predicted value, with the interval that holds nine of ten measurements."""
    for name, low in prediction.low.items():
        high = prediction.high[name]
        value, *bounds = rounded(getattr(prediction, name), low, high)
        yield f"{name:21} {value:>12} {UNITS[name]:8} ({bounds[0]} to {bounds[1]})"
    if prediction.extrapolating:
        yield EXTRAPOLATING


def rounded(value: float, low: float, high: float) -> list[str]:
    """Value, low and high with the digits that the interval allows.

    Half the interval keeps two digits, and so does each number.
    """
    half = (high - low) / 2
    texts = []
    for number in (value, low, high):
        decimals = max(_decimals(half), _decimals(number))
        texts.append(f"{round(number, decimals):.{max(0, decimals)}f}")
    return texts


def _decimals(number: float) -> int:
    """Places behind the point that leave two digits; negative: before the point."""
    if not 0 < abs(number) < math.inf:
        return 0
    return 1 - math.floor(math.log10(abs(number)))


def saved(share: float) -> str:
    """`5.9 % saved`, or `5.5 % more` of a negative share."""
    return f"{100 * abs(share):.1f} % {'more' if share < 0 else 'saved'}"
