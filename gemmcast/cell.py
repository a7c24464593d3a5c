"""One thing to measure: a Gemm with a KernelConfig, under conditions, on a kind of device.

`cell_id` names it permanently: the same plan gives the same ids on every machine and in every
program version, and the store commits each id once. The id is a hash over the names that fields had
in schema 1, so that renaming a field changes no id.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.renames import first_config
from gemmcast.sample import digest


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What an agent measures."""

    gemm: Gemm
    """The problem."""
    config: KernelConfig
    """The kernel and its knobs."""
    device_key: str
    """Where it is measured: the name of a type of device, or the UUID of one GPU."""
    cache: str = "cold"
    """State of the L2 cache before each launch: cold or warm."""
    power: bool = False
    """Whether power and sustained runtime are measured too."""
    repeat: int = 0
    """Number of this measurement where a cell is measured more than once on purpose: 0, 1, ..."""

    @cached_property
    def cell_id(self) -> str:
        """Sixteen hexadecimal digits, the same on every machine and in every version."""
        return digest(
            {
                "gemm": asdict(self.gemm),
                "config": first_config(asdict(self.config)),
                "target": self.device_key,
                "cache": self.cache,
                "power": self.power,
                "repeat": self.repeat,
            }
        )
