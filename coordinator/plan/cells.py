"""The planner: a plan and a device become cells, always the same ones in the same order.

Cells of one shape and dtype stand together, because an agent then keeps its operands. Sampled shapes come in random order and the
sweeps of a plan side by side, so that any beginning of a run is a fair sample of all of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coordinator.plan.schema import Plan, Shapes, Sweep
from gemmcast.cell import Cell
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.sample import digest

MEMORY_SHARE = 0.9
HEURISTIC_LIST = 8
# algorithms that cuBLASLt's heuristic gives at most
SECONDS_PER_CELL = {"cpu": 0.05, "cuda": 0.004}
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
    known = set[str]()
    sweeps: list[list[Cell]] = [[] for _ in plan.sweep]
    refused: dict[str, int] = {}
    largest = 0
    for index, sweep in enumerate(plan.sweep):
        for gemm, config in _product(plan, index, device):
            if isinstance(config, str):
                refused[config] = refused.get(config, 0) + sweep.repeats
                continue
            needed = gemm.operand_bytes + _checked_bytes(gemm)
            if needed > MEMORY_SHARE * device.memory_bytes:
                size, room = needed / 2**30, device.memory_bytes / 2**30
                rule = f"its operands and their float64 copies for the check need {size:.1f} GiB, {device.name} has {room:.1f}"
                raise InputError(f"sweep.{index}.shapes", str(gemm), rule, "take smaller shapes")
            largest = max(largest, needed)
            for repeat in range(sweep.repeats):
                cell = _cell(plan, sweep, gemm, config, device, repeat)
                if cell.cell_id not in known:
                    known.add(cell.cell_id)
                    sweeps[index].append(cell)
    listed = _side_by_side(sweeps)
    return Planned(listed, refused, sum(_seconds(plan, cell, device) for cell in listed) / 60, largest)


def _side_by_side(sweeps: Sequence[Sequence[Cell]]) -> list[Cell]:
    """Some of every sweep from the beginning to the end; cells of one problem stay together."""
    problems = [[list(cells) for _, cells in itertools.groupby(sweep, key=lambda cell: cell.gemm)] for sweep in sweeps]
    placed = [((i + 0.5) / len(groups), group) for groups in problems for i, group in enumerate(groups)]
    return [cell for _, group in sorted(placed, key=lambda one: one[0]) for cell in group]


def shapes_of(shapes: Shapes, seed: int) -> list[tuple[int, int, int]]:
    """The (m, n, k) of a [shapes] table, without repeats."""
    found = list(shapes.list) + list(itertools.product(shapes.m, shapes.n, shapes.k)) + [(m, n, k) for m in shapes.m for n, k in shapes.nk]
    drawn = _sample(shapes, seed if shapes.seed is None else shapes.seed)
    known = set(found)
    return list(dict.fromkeys(found)) + list(itertools.islice((shape for shape in drawn if not (shape in known or known.add(shape))), shapes.sample))  # type: ignore[func-returns-value]


def _sample(shapes: Shapes, seed: int) -> Iterator[tuple[int, int, int]]:
    """Endless unless the table leaves no room for new shapes."""
    rng = np.random.default_rng(seed)
    low, high = np.log(shapes.min), np.log(shapes.max + 1)
    for _ in range(1000 * max(shapes.sample, 1)):
        m, n, k = (_rounded(min(int(np.exp(value)), shapes.max), shapes) for value in rng.uniform(low, high, 3))
        if shapes.max_gflop is None or 2e-9 * m * n * k <= shapes.max_gflop:
            yield m, n, k


def _rounded(size: int, shapes: Shapes) -> int:
    """To the nearest multiple within the bounds."""
    step = shapes.multiple
    return min(max(round(size / step), -(-shapes.min // step)), shapes.max // step) * step


def _product(plan: Plan, index: int, device: Device) -> Iterator[tuple[Gemm, KernelConfig | str]]:
    """Problems and configurations; in place of a configuration the reason why it is refused."""
    sweep = plan.sweep[index]
    configs = _Configs(plan, index, device)
    for m, n, k in shapes_of(sweep.shapes, plan.seed):
        for batch, dtype, layout in itertools.product(sweep.batch, sweep.dtypes, sweep.layouts):
            for alpha, beta in sweep.scalars or ((sweep.alpha, sweep.beta),):
                gemm = Gemm(m=m, n=n, k=k, batch=batch, dtype=dtype, layout=layout, alpha=alpha, beta=beta)
                reason = _refusal(sweep, gemm, device)
                found: Sequence[KernelConfig | str] = configs.of(gemm)
                if not found:
                    found = (f"set {sweep.kernel_set} of CUTLASS has no {dtype} {layout} for {device.arch}",)
                for config in found:
                    yield gemm, reason or config


class _Configs:
    """A sweep's configurations on one device: kernels times knobs, and of these a draw for each problem."""

    def __init__(self, plan: Plan, index: int, device: Device) -> None:
        self._plan, self._index, self._sweep, self._device = plan, index, plan.sweep[index], device
        self._known: dict[tuple[str, str], list[KernelConfig]] = {}

    def of(self, gemm: Gemm) -> list[KernelConfig]:
        key = (gemm.dtype, gemm.layout)
        if key not in self._known:
            self._known[key] = [replace(kernel, **knobs) for kernel in self._kernels(gemm) for knobs in self._knobs()]
        return self._drawn(gemm, self._known[key])

    def _kernels(self, gemm: Gemm) -> list[KernelConfig]:
        sweep = self._sweep
        if sweep.kernel_set is not None and self._device.arch is not None and self._device.kind == "cuda":
            from agent.kernels.cutlass.generate import configs

            try:
                return configs(sweep.kernel_set, self._device.arch, gemm.dtype, gemm.layout)
            except InputError:  # no such set for this architecture: the others of a fleet may have it
                return []
        names = sweep.kernel if sweep.candidates is None else candidate_names(sweep.candidates)
        return [KernelConfig(family=sweep.family, kernel=self._pinned(name)) for name in names]

    def _pinned(self, kernel: str) -> str:
        """An own kernel by its content, so that an edited one is a new cell; as it was recorded, on a replay."""
        if self._sweep.family != "custom" or self._plan.devices.kind == "replay":
            return kernel
        from agent.kernels.custom import read_own

        try:
            return read_own(kernel).name
        except InputError as error:
            raise InputError(f"sweep.{self._index}.kernel", kernel, str(error), "correct the description (docs/own-kernels.md)") from None

    def _knobs(self) -> Iterator[dict[str, Any]]:
        names = list(self._sweep.knobs)
        for values in itertools.product(*self._sweep.knobs.values()):
            knobs: dict[str, Any] = dict(zip(names, values, strict=True))
            if "tile" in knobs:
                tile = knobs.pop("tile")
                knobs = {"tile_m": tile, "tile_n": tile, "tile_k": tile, **knobs}
            yield knobs

    def _drawn(self, gemm: Gemm, configs: list[KernelConfig]) -> list[KernelConfig]:
        """As many as `per_shape` says, by a hash that knows nothing of other shapes; the library's own default always."""
        most = self._sweep.per_shape
        if most is None or most >= len(configs):
            return configs
        # an own kernel by its path alone: an edited one is to meet the shapes of the one before
        words = [str(replace(config, kernel=config.kernel.partition("@")[0])) for config in configs]
        order = {i: digest({"seed": self._plan.seed, "gemm": str(gemm), "config": text}) for i, text in enumerate(words)}
        first = [i for i, config in enumerate(configs) if config.kernel == "default"]
        chosen = (first + sorted((i for i in order if i not in first), key=order.__getitem__))[:most]
        return [configs[i] for i in sorted(chosen)]


def candidate_names(count: int) -> list[str]:
    """cuBLASLt's algorithms as agent/kernels/cublaslt names them: the default, the heuristic's others, and beyond."""
    listed = ["default", *(f"heuristic-{i}" for i in range(1, HEURISTIC_LIST))]
    return [*listed, *(f"enumerated-{i}" for i in range(count - len(listed)))][:count]


def _refusal(sweep: Sweep, gemm: Gemm, device: Device) -> str | None:
    facts = FAMILIES[sweep.family]
    if device.kind != facts.device_kind:
        return f"family {sweep.family} needs a {facts.device_kind} device; this is {device.kind}"
    if gemm.dtype not in facts.dtypes:
        return f"family {sweep.family} has no {gemm.dtype}"
    if sweep.kernel_set is not None and device.arch is None:
        return f"kernel_set {sweep.kernel_set} is by architecture, and that of {device.name} is not known"
    return None


def _cell(plan: Plan, sweep: Sweep, gemm: Gemm, config: KernelConfig, device: Device, repeat: int) -> Cell:
    device_key = device.uuid if plan.devices.spread == "each" else device.name
    cell = Cell(gemm=gemm, config=config, device_key=device_key, cache=plan.measure.cache, repeat=repeat)
    # a share chosen by the cell's own name: the same cells in every run
    metered = device.has_power and int(digest({"power": cell.cell_id}), 16) / 16**16 < sweep.power_share
    return Cell(gemm=gemm, config=config, device_key=device_key, cache=plan.measure.cache, repeat=repeat, power=metered)


def _checked_bytes(gemm: Gemm) -> int:
    return 8 * gemm.batch * (gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n)


def _seconds(plan: Plan, cell: Cell, device: Device) -> float:
    peak = device.peak_tflops.get(cell.gemm.dtype) or GUESSED_TFLOPS[device.kind]
    run_s = cell.gemm.flops / (0.3 * peak * 1e12)
    power_s = plan.measure.settle_s + (plan.measure.power_steps + 1) * STEP_S if cell.power else 0.0
    burst_s = 0.5 * plan.measure.burst_s if device.kind == "cpu" else plan.measure.min_burst_s
    return max(burst_s, 6 * run_s) + SECONDS_PER_CELL[device.kind] + power_s
