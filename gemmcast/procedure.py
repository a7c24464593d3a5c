"""How cells are measured: the settings that a plan's [measure] table gives to every agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """Bounds and targets of one measurement."""

    target_rse: float = 0.005
    # stop repeating when the median's relative standard error is below this
    burst_s: float = 0.03
    # ... or when this much time went into the burst
    min_burst_s: float = 0.017
    # ... but not before: on a GPU the host prepares the next cell meanwhile, so more batches cost nothing
    timeout_s: float = 60.0
    # a cell that runs longer is killed with its process
    settle_s: float = 0.25
    # load before a power window opens
    power_steps: int = 5
    # steps of the energy counter that a power window spans at least
