"""How far a runtime can be trusted: what another board of the same type, another day, would show.

    GPU:  u^2 = BETWEEN_BOARDS^2 + STATE^2 + rse^2     STATE is 0 after a power window
    CPU:  u   = CPU_FACTOR rse

u is a relative standard uncertainty (k = 1; JCGM 100, the GUM), so two readings of a cell differ by
less than 2 sqrt(u1^2 + u2^2) in 95 of 100 cases. rse is the relative standard error of the median
within one burst. That is the least of it: a burst of 30 ms sees one board in one state.

The constants of a GPU were fitted to pairs of readings of one cell: h100_sxm against h100_sxm_again
and h100_repeatability, under datasets/. They were tried on h200_sxm and h100_demo, which had no
part in the fit. The differences have heavier tails than a normal distribution. So the constants are
those of the 95 %, and more than 68 % lie within one u. benchmarks/uncertainty.py prints the shares
and fits the constants anew; docs/measuring.md has the figures.
Does not know rows, nor how a burst is timed.
"""

from __future__ import annotations

from math import hypot
from typing import Final

BETWEEN_BOARDS: Final = 0.006
"""Boards, temperatures and days: what is left after a power window."""
STATE: Final = 0.010
"""The voltage in which other kernels left the board (docs/measuring.md, "Clocks"). A power window
brings it to the kernel's own."""
CPU_FACTOR: Final = 3.0
"""A CPU is shared, and no second one has been measured: readings of one host, minutes apart, differ
by three times what the batches of one burst do."""


def runtime_uncertainty(rse: float, *, after_window: bool, device_kind: str) -> float:
    """The relative standard uncertainty of a runtime.

    Args:
        rse: relative standard error of the median within the burst.
        after_window: whether the burst came after a power window of the same kernel.
        device_kind: `cuda` or `cpu`.
    """
    if device_kind == "cpu":
        return CPU_FACTOR * rse
    state = 0.0 if after_window else STATE
    return hypot(BETWEEN_BOARDS, state, rse)
