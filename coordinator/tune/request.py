"""What a user wants tuned: the list, what is minimised, how much may be measured, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from coordinator.plan.budget import Budget
from coordinator.plan.schema import Plan, parse_plan
from coordinator.tune.devices import TunedOn
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm_list import ListedGemm
from gemmcast.objective import Objective
from gemmcast.sample import digest
from gemmcast.triton_sets import TRITON_SETS

MOST_TOP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One tuning, as it was ordered."""

    gemms: Sequence[ListedGemm]
    """The list, every GEMM once."""
    objective: Objective
    families: Sequence[str] | None
    """FAMILY or FAMILY:KERNEL; None: all that can."""
    top: int
    """Rivals that are measured beside the default in the first turn."""
    budget_s: float | None
    """Time of each type of device. [s]"""
    devices: TunedOn
    kernel_set: str | None = None
    """Of Triton's configurations only those of this set: what was built on the nodes."""
    again: bool = False
    """Measure what an equal tuning has measured before once more."""

    def __post_init__(self) -> None:
        if not 1 <= self.top <= MOST_TOP:
            rule = f"must be from 1 to {MOST_TOP}"
            raise InputError("--top", self.top, rule, "8 leaves 0.3 % at most on average")
        if self.kernel_set not in (None, *TRITON_SETS):
            way_out = f"use one of {', '.join(TRITON_SETS)}"
            raise InputError("--kernel-set", self.kernel_set, "no set of Triton kernels", way_out)

    @property
    def is_replay(self) -> bool:
        """Whether recorded tables answer."""
        return self.devices.kind == "replay"

    def plan(self) -> Plan:
        """The plan that a fleet is opened with; its sweeps only make it complete."""
        shape = {"list": [[16, 16, 16]]}
        sweeps = [{"family": family, "shapes": shape} for family in ("blas", "cublas")]
        plan = parse_plan({"name": f"tune-{self.objective.name}", "sweep": sweeps})
        return plan.model_copy(update={"devices": self.devices})

    def digest(self, device: Device) -> str:
        """Names what is tuned on a type of device: an equal one goes on where the last one ended.

        Versions of driver and libraries are part of it: readings of another version do not count.
        """
        return digest(
            {
                "gemms": [asdict(listed) for listed in self.gemms],
                "objective": str(self.objective),
                "families": list(self.families) if self.families else None,
                "top": self.top,
                "kernel_set": self.kernel_set,
                "device": device.name,
                "versions": [device.driver, device.cuda, device.library],
                "power_limit_w": device.power_limit_w,
                "tables": [table.dataset for table in self.devices.tables],
            }
        )


def parse_budget(text: str | None) -> float | None:
    """`10m` as seconds. Raises InputError for anything but a time."""
    if text is None:
        return None
    way_out = "give a time of each type of device, such as 90s, 10m or 2h"
    try:
        budget = Budget.of(text, cells=1)
    except ValueError:
        raise InputError("--budget", text, "is no time", way_out) from None
    return budget.limit
