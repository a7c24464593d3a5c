"""From a plan and a device to cells: always the same ones in the same order.

Cells of one shape and dtype stand together, because an agent then keeps its operands. Sampled
shapes come in random order and the sweeps of a plan side by side, so the cells of any beginning of
a run are a fair sample of all. Does not know which agent measures a cell, nor what is committed
already.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from coordinator.plan.configurations import Configurations
from coordinator.plan.schema import Plan
from coordinator.plan.shapes import shapes_of
from coordinator.plan.sweep import Sweep
from gemmcast.cell import Cell
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.draw import is_drawn
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm

MEMORY_SHARE = 0.9
"""Share of a device's memory that the operands of a cell may take."""
SECONDS_PER_CELL = {"cpu": 0.05, "cuda": 0.004}
"""Time of a cell besides its burst: preparing and checking; measured on an H100 and on 2 cores."""
ASSUMED_TFLOPS = {"cpu": 0.05, "cuda": 15.0}
"""Peak of a device that was not measured yet."""
ASSUMED_EFFICIENCY = 0.3
LAUNCHES_BESIDE_BURST = 6
STEP_S = 0.1
"""Seconds between two steps of the energy counter."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan comes to on one device."""

    cells: list[Cell]
    refused: dict[str, int]
    """Reason -> number of cells that are left out."""
    minutes: float
    """Estimate, for one device."""
    memory_bytes: int
    """Of the largest operand set, with the float64 copies for its check."""


def plan_cells(plan: Plan, device: Device) -> Planned:
    """The cells that a plan has for a device.

    Raises:
        InputError: a shape is larger than the device's memory.
    """
    cell_ids = set[str]()
    refused = Counter[str]()
    sweeps: list[list[Cell]] = []
    largest = 0
    for index, sweep in enumerate(plan.sweep):
        cells: list[Cell] = []
        for gemm, config in _product(plan, index, device):
            if isinstance(config, str):
                refused[config] += sweep.repeats
                continue
            largest = max(largest, _memory_bytes(gemm, device, index))
            for repeat in range(sweep.repeats):
                cell = _cell(plan, sweep, gemm, config, device, repeat)
                if cell.cell_id not in cell_ids:
                    cell_ids.add(cell.cell_id)
                    cells.append(cell)
        sweeps.append(cells)
    seconds = sum(seconds_of(plan, cell, device) for cells in sweeps for cell in cells)
    return Planned(_side_by_side(sweeps), dict(refused), seconds / 60, largest)


def _product(plan: Plan, index: int, device: Device) -> Iterator[tuple[Gemm, KernelConfig | str]]:
    """Problems with their configurations; a refused configuration is replaced by the reason."""
    sweep = plan.sweep[index]
    configurations = Configurations(plan, index, device)
    for gemm in _gemms(sweep, plan.seed):
        configs: Sequence[KernelConfig | str] = configurations.of(gemm)
        if not configs:
            dtype, layout = gemm.dtype, gemm.layout
            library = f"set {sweep.kernel_set} of {sweep.family}"
            reason = f"{library} has no {dtype} {layout} for {device.arch}"
            configs = [reason]
        refusal = _refusal(sweep, gemm, device)
        for config in configs:
            yield gemm, refusal or config


def _gemms(sweep: Sweep, seed: int) -> Iterator[Gemm]:
    scalars = sweep.scalars or ((sweep.alpha, sweep.beta),)
    for m, n, k in shapes_of(sweep.shapes, seed):
        variants = itertools.product(sweep.batch, sweep.dtypes, sweep.layouts, scalars)
        for batch, dtype, layout, (alpha, beta) in variants:
            yield Gemm(
                m=m, n=n, k=k, batch=batch, dtype=dtype, layout=layout, alpha=alpha, beta=beta
            )


def _refusal(sweep: Sweep, gemm: Gemm, device: Device) -> str | None:
    if not sweep.is_for(device.name):
        return f"{sweep.family} for {', '.join(sweep.devices or ())}; this is {device.name}"
    facts = FAMILIES[sweep.family]
    if device.kind != facts.device_kind:
        return f"family {sweep.family} needs a {facts.device_kind} device; this is {device.kind}"
    if gemm.dtype not in facts.dtypes:
        return f"family {sweep.family} has no {gemm.dtype}"
    if sweep.kernel_set is not None and device.arch is None:
        name = f"kernel_set {sweep.kernel_set}"
        return f"{name} depends on the architecture, and that of {device.name} is not known"
    return None


def _memory_bytes(gemm: Gemm, device: Device, index: int) -> int:
    """Of the operands and of their copies in float64. Raises InputError if the device has less."""
    elements = gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n
    needed = gemm.operand_bytes + 8 * gemm.batch * elements
    if needed > MEMORY_SHARE * device.memory_bytes:
        rule = (
            "its operands and their float64 copies for the check need "
            f"{needed / 2**30:.1f} GiB, {device.name} has {device.memory_bytes / 2**30:.1f}"
        )
        raise InputError(f"sweep.{index}.shapes", str(gemm), rule, "take smaller shapes")
    return needed


def _cell(
    plan: Plan, sweep: Sweep, gemm: Gemm, config: KernelConfig, device: Device, repeat: int
) -> Cell:
    cell = Cell(
        gemm=gemm,
        config=config,
        device_key=plan.devices.key_of(device),
        cache=plan.measure.cache,
        repeat=repeat,
    )
    # By the id of the cell without power, so that the same cells are metered in every run.
    name = f'{{"power":"{cell.cell_id}"}}'
    if device.has_power and is_drawn(name, sweep.power_share):
        return replace(cell, power=True)
    return cell


def _side_by_side(sweeps: Sequence[Sequence[Cell]]) -> list[Cell]:
    """Some of every sweep from the beginning to the end; cells of one problem stay together."""
    placed: list[tuple[float, list[Cell]]] = []
    for sweep in sweeps:
        problems = [list(cells) for _, cells in itertools.groupby(sweep, key=_gemm_of_cell)]
        for i, cells in enumerate(problems):
            placed.append(((i + 0.5) / len(problems), cells))
    placed.sort(key=_place)
    return [cell for _, cells in placed for cell in cells]


def _gemm_of_cell(cell: Cell) -> Gemm:
    return cell.gemm


def _place(placed: tuple[float, list[Cell]]) -> float:
    return placed[0]


def seconds_of(plan: Plan, cell: Cell, device: Device) -> float:
    """About how long the device takes for a cell: its burst, its power window, and the rest."""
    measure = plan.measure
    peak_tflops = device.peak_tflops.get(cell.gemm.dtype) or ASSUMED_TFLOPS[device.kind]
    launch_s = cell.gemm.flops / (ASSUMED_EFFICIENCY * peak_tflops * 1e12)
    burst_s = 0.5 * measure.burst_s if device.kind == "cpu" else measure.min_burst_s
    seconds = max(burst_s, LAUNCHES_BESIDE_BURST * launch_s) + SECONDS_PER_CELL[device.kind]
    if cell.power:
        seconds += measure.settle_s + (measure.power_steps + 1) * STEP_S
    return seconds
