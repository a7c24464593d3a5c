"""One line of a tuned table: what to run for one GEMM, and what that gains.

The winner is what to run. It is the default unless something else is surely better, so a table is
never worse than the default. Knows no device and no file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm

PLAIN: Final = "matmul"
"""The Triton kernel that computes what a library computes."""
_COST_FIELDS: Final = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")
_LARGEST: Final = 1e18
_CORRECT: Final = "correct the entry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one launch costs. None: neither measured nor predicted."""

    runtime_us: float | None = None
    """Time of one launch in a short burst. [us]"""
    sustained_runtime_us: float | None = None
    """Time of one launch in an endless row of launches. [us]"""
    power_w: float | None = None
    """Mean board power in that row, idle power included. [W]"""
    energy_mj: float | None = None
    """Energy of one launch. [mJ]"""

    def __post_init__(self) -> None:
        for name in _COST_FIELDS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _positive(name, getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedEntry:
    """What to run for one GEMM."""

    gemm: Gemm
    """The problem."""
    default: KernelConfig
    """What the library, or the engine that has the kernel, would run."""
    winner: KernelConfig
    """What to run: the default, unless another one is surely better."""
    default_measured: Cost = field(default_factory=Cost)
    """What the default cost when it was measured beside the winner."""
    winner_measured: Cost = field(default_factory=Cost)
    """What the winner cost then."""
    default_predicted: Cost = field(default_factory=Cost)
    """What a model predicts for the default."""
    winner_predicted: Cost = field(default_factory=Cost)
    """What it predicts for the winner."""
    gain: float = 1.0
    """Cost of the default over the cost of the winner, in the table's objective: 1.25 saves a
    fifth. 1 where the winner is the default."""
    gain_low: float = 1.0
    """Lower end of the gain's interval (90 %)."""
    gain_high: float = 1.0
    """Upper end of it."""
    verified: bool = False
    """Whether the gain was measured, winner and default on one board. Else a model predicts it."""
    measured: int = 0
    """Configurations that were measured."""
    possible: int = 0
    """Configurations that can run this GEMM there."""
    reason: str = ""
    """Why this is the winner, or why the default was kept; for people."""
    name: str = ""
    """What the list of GEMMs calls the problem."""

    def __post_init__(self) -> None:
        for name in ("gain", "gain_low", "gain_high"):
            object.__setattr__(self, name, _positive(name, getattr(self, name)))
        if not self.gain_low <= self.gain <= self.gain_high:
            interval = f"{self.gain_low:g} to {self.gain_high:g}"
            raise InputError("gain", self.gain, f"lies outside its interval {interval}", _CORRECT)
        if type(self.verified) is not bool:
            raise InputError("verified", self.verified, "must be true or false", _CORRECT)
        for name in ("measured", "possible"):
            _check_count(name, getattr(self, name))
        if self.measured > self.possible:
            rule = f"more than the {self.possible} that are possible"
            raise InputError("measured", self.measured, rule, _CORRECT)
        for name in ("reason", "name"):
            if not isinstance(getattr(self, name), str):
                raise InputError(name, getattr(self, name), "must be a text", _CORRECT)

    @property
    def operation(self) -> str:
        """What is computed: empty for a plain GEMM, else the default's Triton kernel: `grouped` for
        a mixture of experts, `scaled_block` for fp8 with block scales, or one of yours."""
        is_plain = self.default.family != "triton" or self.default.kernel in ("", PLAIN)
        return "" if is_plain else self.default.kernel

    @property
    def evidence(self) -> tuple[bool, int, float, str]:
        """Orders entries for one problem: the largest is the best founded.

        A measured gain before a predicted one, then more measured configurations, then the narrower
        interval. The text decides between equals, so that the order of a merge does not matter.
        """
        width = (self.gain_high - self.gain_low) / self.gain
        return self.verified, self.measured, -width, repr(self)

    @property
    def keeps_default(self) -> bool:
        """Whether nothing is surely better than the default."""
        return self.winner == self.default


def _positive(name: str, value: object) -> float:
    # `type` and not `isinstance`: True is an int, too.
    if type(value) not in (int, float) or not 0 < value < _LARGEST:  # type: ignore[operator]
        rule = f"must be a number above 0 and below {_LARGEST:g}"
        raise InputError(name, value, rule, _CORRECT)
    return float(value)  # type: ignore[arg-type]


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or value < 0:
        raise InputError(name, value, "must be a whole number, 0 or more", _CORRECT)
