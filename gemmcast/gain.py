"""How much one configuration gains over another of the same GEMM on one device, and how surely.

    gain      = cost of the default / cost of the other        1.25 saves a fifth
    low, high = gain x exp(-/+ left x sqrt(a^2 + b^2))         a, b: half widths, in logarithms
    left      = NEAR + (FAR - NEAR) x min(1, |log gain| / APART)

Both predictions are of one problem on one device, so a part of their errors is the same and cancels
in the ratio. The more alike two configurations run, the more: what is left grows with the promised
gain. Of the gains that a model promised on layers that it was not trained on, nine of ten lay above
`low` (docs/decisions/0026-cautious-picks.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Final

import numpy as np
import numpy.typing as npt

from gemmcast.modelfile import Answers
from gemmcast.objective import Objective

NEAR: Final = 0.3
"""Half width of a gain's interval over that of two independent errors, where both cost the same."""
FAR: Final = 0.6
"""The same where their costs are APART, or further."""
APART: Final = 0.2
"""A difference of costs, in logarithms."""

Values = npt.NDArray[np.float64]
"""[n_configs]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Cost of the default over the cost of the choice, in the objective."""

    ratio: float = 1.0
    """1.25 saves a fifth; 1 where the choice is the default."""
    low: float = 1.0
    """Nine of ten measured gains are above it."""
    high: float = 1.0
    """The upper end, as far away."""

    @property
    def is_sure(self) -> bool:
        """Whether the choice is better even at the lower end."""
        return self.low > 1.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What configurations cost in an objective."""

    values: Values
    """The products of the objective's outputs; NaN where the model does not predict one."""
    half_widths: Values
    """Of their intervals, in logarithms."""

    @staticmethod
    def of(answers: Answers, outputs: tuple[str, ...], objective: Objective) -> Costs:
        """Of a model's answers.

        Args:
            answers: output -> [n_configs], and `high`[n_configs, n_outputs].
            outputs: the model's, in the order of `high`.
            objective: what is minimised.
        """
        values = np.ones(len(answers["high"]))
        half_widths = np.zeros(len(values))
        for name in objective.outputs:
            of_output = answers[name].astype(np.float64)
            high = answers["high"][:, outputs.index(name)]
            values *= of_output
            # Factors of a product err together: power and energy both have the runtime in them.
            half_widths += np.log(high / of_output)
        return Costs(values, half_widths)

    def gains(self, default: int) -> Gains:
        """Of every configuration over the default."""
        logs = np.log(self.values[default] / self.values)
        both = np.hypot(self.half_widths, self.half_widths[default])
        both[default] = 0.0
        left = NEAR + (FAR - NEAR) * np.minimum(1.0, np.abs(logs) / APART)
        return Gains(logs, left * both)


@dataclass(frozen=True, slots=True)
class Gains:
    """Of all configurations over the default."""

    logs: Values
    """Of the gains."""
    half_widths: Values
    """Of their intervals, in logarithms."""

    @property
    def are_sure(self) -> npt.NDArray[np.bool_]:
        """[n_configs] Whether they are above 1 even at the lower end."""
        return self.logs > self.half_widths

    def of(self, choice: int) -> Gain:
        """The gain of one configuration."""
        log, half_width = float(self.logs[choice]), float(self.half_widths[choice])
        return Gain(ratio=exp(log), low=exp(log - half_width), high=exp(log + half_width))


NO_GAIN: Final = Gain()
"""Of the default over itself."""
