"""How cells are measured: the settings that a plan's [measure] table gives to every agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """Bounds and goals of one measurement."""

    target_rse: float = 0.005
    """Relative standard error of the median at which the burst ends. [0..1]"""
    burst_s: float = 0.03
    """Longest time of a burst. [s]"""
    min_burst_s: float = 0.017
    """Shortest time of a burst. On a GPU the host prepares the next cell meanwhile, so that more
    launches cost nothing. [s]"""
    timeout_s: float = 60.0
    """Time after which a cell is killed with its process. [s]"""
    settle_s: float = 0.25
    """Load before a power window opens. [s]"""
    power_steps: int = 5
    """Steps of the energy counter that a power window spans at least."""
