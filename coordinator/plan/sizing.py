"""How large a plan is on a type of device: cells, minutes, memory, and what is refused.

Equal devices divide the cells of a plan, and some cells are measured on two of them; with
`replicate = "per_gpu"` each measures all of them.
Does not know where the devices come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.plan.budget import Budget
from coordinator.plan.cells import Planned, plan_cells, seconds_of
from coordinator.plan.schema import Plan
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSize:
    """What a plan comes to on some equal devices."""

    device: str
    """Name of the product."""
    devices: int
    cells: int
    cells_in_budget: int
    """How many of them are measured, about so many where the budget is a time."""
    cells_with_power: int
    cells_on_two_devices: int
    shapes: int
    configurations: int
    estimated_minutes: float
    """Until the last of the devices is done."""
    memory_mib: float
    """Of the largest operand set, with the float64 copies for its check."""
    refused: dict[str, int]
    """Reason -> cells that are left out."""


def size_of(plan: Plan, device: Device, devices: int = 1) -> PlanSize:
    """The size of a plan on some devices like this one.

    Raises:
        InputError: a shape is larger than the device's memory.
    """
    planned = plan_cells(plan, device)
    drawn = sum(map(plan.devices.has_second_board, planned.cells)) if devices > 1 else 0
    measurements = 1 + drawn / max(1, len(planned.cells))
    share = _share_in_budget(plan, device, planned.cells)
    divided_by = devices if plan.devices.replicate == "per_type" else 1
    return PlanSize(
        device=device.name,
        devices=devices,
        cells=len(planned.cells),
        cells_in_budget=round(share * len(planned.cells)),
        cells_with_power=sum(cell.power for cell in planned.cells),
        shapes=len({cell.gemm.shape_key for cell in planned.cells}),
        configurations=len({cell.config for cell in planned.cells}),
        cells_on_two_devices=drawn,
        estimated_minutes=share * planned.minutes * measurements / divided_by,
        memory_mib=planned.memory_bytes / 2**20,
        refused=planned.refused,
    )


def _share_in_budget(plan: Plan, device: Device, cells: Sequence[Cell]) -> float:
    budget = plan.measure.budget_of(device)
    if budget is None or not cells:
        return 1.0
    seconds = np.array([seconds_of(plan, cell, device) for cell in cells])
    return Budget.of(budget, len(cells)).share_of(seconds)


def refuse_empty(plan: Plan, where: str, refused: dict[str, int]) -> None:
    """Raise InputError for a plan of which nothing can be measured.

    Args:
        where: the device or the cluster.
        refused: reason -> cells.
    """
    reasons = "; ".join(f"{count} cells: {reason}" for reason, count in refused.items())
    rule = f"{where} can measure none of its cells ({reasons or 'it has none'})"
    raise InputError("plan", plan.name, rule, "take a plan for this device, or other nodes")


def measurable(plan: Plan, device: Device) -> Planned:
    """The cells of a plan on a device. Raises InputError where it can measure none of them."""
    planned = plan_cells(plan, device)
    if not planned.cells:
        refuse_empty(plan, device.name, planned.refused)
    return planned
