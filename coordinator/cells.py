"""The planner: a plan and a device become cells, always the same ones in the same order.

Cells of one shape and dtype stand together, because an agent then keeps its operands. Sampled shapes come in random order, so
that any beginning of a sweep is a fair sample of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordinator.plan import Plan, Shapes, Sweep
from gemmcast.cell import Cell
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.sample import digest

MEMORY_SHARE = 0.9
SECONDS_PER_CELL = {"cpu": 0.05, "cuda": 0.03}
# besides the burst itself: preparing, checking; seen on an H100 and on 2 cores
GUESSED_TFLOPS = {"cpu": 0.05, "cuda": 15.0}
# where no peak was measured yet
STEP_S = 0.1
# of the energy counter


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan comes to on one device."""

    cells: list[Cell]
    refused: dict[str, int]
    # reason -> cells that are not run
    minutes: float
    # estimated, on one device
    memory_bytes: int
    # of the largest operand set, with the float64 copies that it is checked in


def plan_cells(plan: Plan, device: Device) -> Planned:
    """Raises InputError for a shape larger than the device's memory."""
    cells: dict[str, Cell] = {}
    refused: dict[str, int] = {}
    largest = 0
    for index, sweep in enumerate(plan.sweep):
        for gemm, config in _product(plan, sweep):
            if reason := _refusal(sweep, gemm, device):
                refused[reason] = refused.get(reason, 0) + sweep.repeats
                continue
            needed = gemm.operand_bytes + _checked_bytes(gemm)
            if needed > MEMORY_SHARE * device.memory_bytes:
                size, room = needed / 2**30, device.memory_bytes / 2**30
                rule = f"its operands and their float64 copies for the check need {size:.1f} GiB, {device.name} has {room:.1f}"
                raise InputError(f"sweep.{index}.shapes", str(gemm), rule, "take smaller shapes")
            largest = max(largest, needed)
            for repeat in range(sweep.repeats):
                cell = _cell(plan, sweep, gemm, config, device, repeat)
                cells.setdefault(cell.cell_id, cell)
    listed = list(cells.values())
    return Planned(listed, refused, sum(_seconds(plan, cell, device) for cell in listed) / 60, largest)


def shapes_of(shapes: Shapes, seed: int) -> list[tuple[int, int, int]]:
    """The (m, n, k) of a [shapes] table, without repeats."""
    found = list(shapes.list) + list(itertools.product(shapes.m, shapes.n, shapes.k))
    drawn = _sample(shapes, seed if shapes.seed is None else shapes.seed)
    known = set(found)
    return list(dict.fromkeys(found)) + list(itertools.islice((shape for shape in drawn if not (shape in known or known.add(shape))), shapes.sample))  # type: ignore[func-returns-value]


def _sample(shapes: Shapes, seed: int) -> Iterator[tuple[int, int, int]]:
    """Endless unless the table leaves no room for new shapes."""
    rng = np.random.default_rng(seed)
    low, high = np.log(shapes.min), np.log(shapes.max + 1)
    for _ in range(1000 * max(shapes.sample, 1)):
        m, n, k = (min(int(np.exp(value)), shapes.max) for value in rng.uniform(low, high, 3))
        if shapes.max_gflop is None or 2e-9 * m * n * k <= shapes.max_gflop:
            yield m, n, k


def _product(plan: Plan, sweep: Sweep) -> Iterator[tuple[Gemm, KernelConfig]]:
    configs = list(_configs(sweep))
    for m, n, k in shapes_of(sweep.shapes, plan.seed):
        for batch, dtype, layout in itertools.product(sweep.batch, sweep.dtypes, sweep.layouts):
            gemm = Gemm(m=m, n=n, k=k, batch=batch, dtype=dtype, layout=layout, alpha=sweep.alpha, beta=sweep.beta)
            for config in configs:
                yield gemm, config


def _configs(sweep: Sweep) -> Iterator[KernelConfig]:
    names = list(sweep.knobs)
    for values in itertools.product(*sweep.knobs.values()):
        knobs: dict[str, Any] = dict(zip(names, values, strict=True))
        if "tile" in knobs:
            tile = knobs.pop("tile")
            knobs = {"tile_m": tile, "tile_n": tile, "tile_k": tile, **knobs}
        yield KernelConfig(family=sweep.family, kernel=sweep.kernel, **knobs)


def _refusal(sweep: Sweep, gemm: Gemm, device: Device) -> str | None:
    facts = FAMILIES[sweep.family]
    if device.kind != facts.device_kind:
        return f"family {sweep.family} needs a {facts.device_kind} device; this is {device.kind}"
    if gemm.dtype not in facts.dtypes:
        return f"family {sweep.family} has no {gemm.dtype}"
    return None


def _cell(plan: Plan, sweep: Sweep, gemm: Gemm, config: KernelConfig, device: Device, repeat: int) -> Cell:
    target = device.uuid if plan.devices.spread == "each" else device.name
    cell = Cell(gemm=gemm, config=config, target=target, cache=plan.measure.cache, repeat=repeat)
    # a share chosen by the cell's own name: the same cells in every run
    metered = int(digest({"power": cell.cell_id}), 16) / 16**16 < sweep.power_share
    return Cell(gemm=gemm, config=config, target=target, cache=plan.measure.cache, repeat=repeat, power=metered)


def _checked_bytes(gemm: Gemm) -> int:
    return 8 * gemm.batch * (gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n)


def _seconds(plan: Plan, cell: Cell, device: Device) -> float:
    peak = device.peak_tflops.get(cell.gemm.dtype) or GUESSED_TFLOPS[device.kind]
    run_s = cell.gemm.flops / (0.3 * peak * 1e12)
    power_s = plan.measure.settle_s + (plan.measure.power_steps + 1) * STEP_S if cell.power else 0.0
    return max(0.5 * plan.measure.burst_s, 6 * run_s) + SECONDS_PER_CELL[device.kind] + power_s
