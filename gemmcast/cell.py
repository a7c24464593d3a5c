"""One thing to measure: a Gemm with a KernelConfig, under conditions, on a kind of device.

`cell_id` names it for good: the same plan gives the same ids on every machine and in every program version, and the store
commits each id once. `target` keeps cells of different devices apart: a device's name, or the UUID of one GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.sample import digest


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What an agent is asked for."""

    gemm: Gemm
    config: KernelConfig
    target: str
    # name of the device it is to be measured on, or one GPU's UUID
    cache: str = "cold"
    # cold or warm
    power: bool = False
    # also meter power and sustained runtime
    repeat: int = 0
    # measured again on purpose: 0, 1, ...

    @cached_property
    def cell_id(self) -> str:
        return digest(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Cell:
        return Cell(**{**values, "gemm": Gemm(**values["gemm"]), "config": KernelConfig(**values["config"])})
