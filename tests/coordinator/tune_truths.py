"""Problems whose true costs are made up, and readings of them with noise.

A configuration is `tiled` with tile_m = its number: 0 is the default's, so the first is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from coordinator.tune.problem import Problem, Rival
from coordinator.tune.readings import Reading, Readings
from coordinator.tune.search import Search, Settings
from coordinator.tune.turns import Limits
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm
from gemmcast.objective import Objective
from gemmcast.rows import Row, blank
from gemmcast.tuned_entry import Cost

TYPE = "Paper GPU 80GB"
DEFAULT_US = 100.0
POWER_W = 300.0
CELL_S = 0.02


def config(number: int) -> KernelConfig:
    return KernelConfig(family="tiled", tile_m=number + 1, tile_n=16, tile_k=16)


def problem(
    rivals: int = 4,
    *,
    m: int = 64,
    device: str = TYPE,
    weight: float = 1.0,
    predicted: Sequence[float] = (),
) -> Problem:
    """`predicted`: runtimes of the default and of each rival; the best guess comes first."""
    costs = [Cost(runtime_us=one) for one in predicted] or [Cost()] * (rivals + 1)
    everyone = [Rival(config=config(i), predicted=cost) for i, cost in enumerate(costs)]
    others = sorted(everyone[1:], key=lambda one: one.predicted.runtime_us or 0.0)
    return Problem(
        listed=ListedGemm(gemm=Gemm(m=m, n=16, k=16), weight=weight),
        device_key=device,
        default=everyone[0],
        rivals=tuple(others),
        possible=len(everyone) + 10,
    )


@dataclass
class Truths:
    """(type of device, m) -> cost of each configuration over the default's."""

    ratios: Mapping[tuple[str, int], Sequence[float]]
    noise: float = 0.004
    seed: int = 0
    failures: dict[KernelConfig, tuple[str, str]] = field(default_factory=dict)
    """Configuration -> status and reason."""
    power_w: dict[KernelConfig, float] = field(default_factory=dict)
    """Of those that do not draw POWER_W."""

    def ratio(self, cell: Cell) -> float:
        return self.ratios[cell.device_key, cell.gemm.m][cell.config.tile_m - 1]

    def runtime_us(self, cell: Cell) -> float:
        """The same for a cell whenever it is read; one in a hundred is far off."""
        rng = np.random.default_rng([self.seed, int(cell.cell_id, 16)])
        error = self.noise * rng.standard_normal() / np.sqrt(2)
        if rng.random() < 0.01:
            error += 0.1 * rng.standard_normal()
        return float(DEFAULT_US * self.ratio(cell) * np.exp(error))

    def reading(self, cell: Cell, board: str = "GPU-0") -> Reading:
        if cell.config in self.failures:
            status, reason = self.failures[cell.config]
            return Reading(status=status, reason=reason, board=board)
        return Reading(status="ok", board=board, cost=self._cost(cell))

    def row(self, cell: Cell, device: Device) -> Row:
        """The same as a sample."""
        row = blank(cell, device, "agent")
        status, reason = self.failures.get(cell.config, ("ok", None))
        if status != "ok":
            return {**row, "status": status, "reason": reason}
        cost = self._cost(cell)
        names = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")
        return {**row, **{name: getattr(cost, name) for name in names}}

    def _cost(self, cell: Cell) -> Cost:
        runtime_us = self.runtime_us(cell)
        if not cell.power:
            return Cost(runtime_us=runtime_us)
        power_w = self.power_w.get(cell.config, POWER_W)
        return Cost(
            runtime_us=runtime_us,
            sustained_runtime_us=runtime_us,
            power_w=power_w,
            energy_mj=runtime_us * power_w * 1e-3,
        )


def make_search(
    problems: Mapping[str, Sequence[Problem]],
    *,
    objective: str = "time",
    top: int = 8,
    budget_s: float | None = None,
    is_replay: bool = False,
) -> Search:
    wanted = Objective.parse(objective)
    settings = Settings(
        objective=wanted,
        limits=Limits.of(wanted, is_replay=is_replay),
        top=top,
        series={name: 1000 + crc32(name.encode()) for name in problems},
        budget_s=budget_s,
        is_replay=is_replay,
    )
    kinds = dict.fromkeys(problems, "cuda")
    return Search(problems, kinds, settings, lambda cell: 40 * CELL_S if cell.power else CELL_S)


def run(search: Search, truths: Truths, rounds: int = 100) -> list[list[Cell]]:
    """Round by round; returns the cells of each."""
    readings = Readings()
    measured: list[list[Cell]] = []
    while len(measured) < rounds and (cells := search.next_round()):
        readings.note({cell.cell_id: truths.reading(cell) for cell in cells})
        search.note(readings)
        measured.append(cells)
    return measured
