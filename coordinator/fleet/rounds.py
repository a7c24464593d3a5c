"""The cells of one type of device that a budget holds back, and which of them come next.

A run with a budget takes cells in rounds: each has those that say most of all the cells that are
left, given what is measured. With `target_interval` cells drop out that the newest model is sure
of. No round waits for a training. Cells with power are ranked among themselves and keep their share
of the plan: they cost forty times as much, and only they say something of power. What was measured
is known from the store, so a run that is started again goes on. Knows nothing of Ray.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from coordinator.fleet.leases import Leases
from coordinator.plan.acquire import NORMAL_90, Indices, choose, doubt_of
from coordinator.plan.budget import Budget
from coordinator.plan.cells import ASSUMED_TFLOPS, seconds_of
from coordinator.plan.schema import Plan
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError
from gemmcast.gemm import DTYPES
from gemmcast.query import CONTRACT, Rows, from_columns
from gemmcast.rows import known_columns

if TYPE_CHECKING:
    from gemmcast.modelfile import LoadedModel

log = logging.getLogger(__name__)

MOST_CANDIDATES: Final = 4_000
"""Cells that one round is chosen from, drawn from those that are left."""
LONGEST: Final = 256
"""Cells of a round at most: with so many candidates half a second of work, which nothing is leased
meanwhile. A GPU takes five seconds for them."""
MOST_KNOWN: Final = 20_000
"""Measured cells that a round takes into account, drawn from all."""
UNKNOWN_GBPS: Final = 1.0
"""Bandwidth of a device that was not measured: it is the same for all of its cells."""

Mask = npt.NDArray[np.bool_]
"""[n_cells]"""


class Rounds:
    """See the head of this file.

    Args:
        plan: with a budget for this type of device.
        device: one of the type that measures the cells.
        cells: all that the plan has for it.
        answered: the ids of cells that have an answer; others may be among them. It grows.
    """

    def __init__(
        self, plan: Plan, device: Device, cells: Sequence[Cell], answered: Collection[str]
    ) -> None:
        budget = plan.measure.budget_of(device)
        assert budget is not None
        self._cells = cells
        self._seed = plan.seed
        self._target = plan.measure.target_interval
        self._budget = Budget.of(budget, len(cells))
        self._queries = queries_of(cells, device)
        self._seconds = np.array([seconds_of(plan, cell, device) for cell in cells])
        self._units = self._budget.units(self._seconds)
        self._has_power = np.array([cell.power for cell in cells], dtype=bool)
        both = (self._has_power, ~self._has_power)
        self._kinds = [kind for kind in both if kind.any()]
        self._answered = answered
        self._is_taken = np.array([cell.cell_id in answered for cell in cells], dtype=bool)
        self._waiting: list[int] = []
        self._model: LoadedModel | None = None
        self._is_over = False

    def note_model(self, model: LoadedModel) -> None:
        """From here on this model says which cells it is sure of."""
        self._model = model
        self._is_over = False

    def next(self, count: int) -> list[Cell]:
        """The next round, at most so many cells, in the order of the plan; none: it is over."""
        self._is_over = self._is_over or self._is_spent()
        if self._is_over:
            return []
        count = min(count, LONGEST)
        ranked = [deque(self._ranked(kind, count).tolist()) for kind in self._kinds]
        chosen: list[int] = []
        while len(chosen) < count and any(ranked):
            with_cells = [kind for kind, cells in enumerate(ranked) if cells]
            behind = min(with_cells, key=self._share_spent)
            candidate = ranked[behind].popleft()
            if not self._has_room(candidate):
                break
            self._is_taken[candidate] = True
            chosen.append(candidate)
        self._waiting += chosen
        self._is_over = not chosen
        return [self._cells[i] for i in sorted(chosen)]

    def left_out(self) -> int:
        """Cells that will have no answer at the end, as far as it can be foreseen."""
        left = self._units[~self._is_taken]
        if self._is_over or not len(left):
            return len(left)
        room = max(0.0, self._budget.limit - self._spent())
        return max(0, len(left) - round(room / float(left.mean())))

    def text(self) -> str:
        """What the answered cells have spent, for people."""
        waiting = [i for i in self._waiting if self._cells[i].cell_id not in self._answered]
        self._waiting = waiting
        return self._budget.text(self._spent() - float(self._units[waiting].sum()))

    def _ranked(self, kind: Mask, count: int) -> Indices:
        """Of the cells of a kind its share of a round, those that say most first."""
        rng = np.random.default_rng([self._seed, int(self._is_taken.sum())])
        candidates = _drawn(rng, kind & ~self._is_taken, MOST_CANDIDATES)
        # A cell with power says its runtime too.
        is_known = self._is_taken & (kind | self._has_power)
        known = _drawn(rng, is_known, MOST_KNOWN)
        candidates = candidates[self._is_unsure(candidates)]
        part = ceil(count * kind.mean()) + 1
        best = choose(
            self._queries[candidates],
            self._queries[known],
            min(count, part),
            seconds=self._seconds[candidates],
            seed=self._seed,
        )
        return candidates[best]

    def _is_unsure(self, candidates: Indices) -> Mask:
        """[n] Whether the newest model's interval is wider than the target."""
        if self._target is None or self._model is None or not len(candidates):
            return np.ones(len(candidates), dtype=bool)
        doubt = doubt_of(self._model.run(self._queries[candidates]))
        return np.expm1(NORMAL_90 * doubt) > self._target

    def _share_spent(self, kind: int) -> float:
        units = self._units * self._kinds[kind]
        return float(units[self._is_taken].sum() / units.sum())

    def _spent(self) -> float:
        return float(self._units[self._is_taken].sum())

    def _is_spent(self) -> bool:
        """Whether not even the cheapest cell has room."""
        left = np.where(self._is_taken, np.inf, self._units)
        return not self._has_room(int(np.argmin(left)))

    def _has_room(self, candidate: int) -> bool:
        """Whether the candidate brings what is spent nearer to the limit."""
        half = float(self._units[candidate]) / 2
        return self._spent() + half <= self._budget.limit


class HeldBack:
    """What budgets hold back in a run, of every type of device.

    Args:
        leases: whose queues the rounds go to.
    """

    def __init__(self, plan: Plan, leases: Leases) -> None:
        self._plan = plan
        self._leases = leases
        self._rounds: dict[str, Rounds] = {}
        self._model: LoadedModel | None = None

    def add(
        self, device_key: str, device: Device, cells: Sequence[Cell], answered: Collection[str]
    ) -> None:
        """The cells of one more type of device; see `Rounds`."""
        rounds = Rounds(self._plan, device, cells, answered)
        if self._model is not None:
            rounds.note_model(self._model)
        self._rounds[device_key] = rounds

    def note_model(self, data: bytes, version: str) -> None:
        """The newest model says which cells it is sure of, if it can be read."""
        if self._plan.measure.target_interval is None:
            return
        model = _loaded(data, version)
        if model is None:
            return
        self._model = model
        for rounds in self._rounds.values():
            rounds.note_model(model)

    def begin_rounds(self) -> None:
        """Fill the queues that are nearly empty."""
        for device_key, rounds in self._rounds.items():
            lacking = self._leases.lacking(device_key)
            if lacking:
                self._leases.add_cells(device_key, rounds.next(lacking))

    def left_out(self) -> int:
        """Cells that will have no answer at the end, as far as it can be foreseen."""
        return sum(rounds.left_out() for rounds in self._rounds.values())

    def text(self) -> str:
        """What is spent of each budget, for people; empty without one."""
        spent = {key: rounds.text() for key, rounds in self._rounds.items()}
        if len(spent) < 2:
            return "".join(spent.values())
        return ", ".join(f"{key}: {text}" for key, text in spent.items())


def queries_of(cells: Sequence[Cell], device: Device) -> Rows:
    """[n_cells, n_fields]; what was not measured of the device is assumed, alike for all cells."""
    assumed_tflops = ASSUMED_TFLOPS[device.kind]
    peaks = {dtype: device.peak_tflops.get(dtype) or assumed_tflops for dtype in DTYPES}
    described = replace(
        device,
        peak_tflops=peaks,
        dram_gbps=device.dram_gbps or UNKNOWN_GBPS,
        compute_units=device.compute_units or 1,
    )
    columns: dict[str, list[object]] = defaultdict(list)
    for cell in cells:
        known = known_columns(cell.gemm, cell.config, described)
        for name, value in {**known, "cache": cell.cache}.items():
            columns[name].append(value)
    return from_columns(columns)


def _loaded(data: bytes, version: str) -> LoadedModel | None:
    # ONNX Runtime takes a while to import, and most runs have no budget.
    from gemmcast.modelfile import LoadedModel

    try:
        model = LoadedModel(data, f"version {version}", version)
    except GemmcastError as error:
        log.warning("the cells that model %s is sure of are not known: %s", version, error)
        return None
    # An older contract reads other queries.
    return model if model.contract == CONTRACT else None


def _drawn(rng: np.random.Generator, mask: Mask, most: int) -> Indices:
    """At most so many of the places of a mask, in order."""
    places = np.flatnonzero(mask)
    if len(places) <= most:
        return places
    return np.sort(rng.choice(places, most, replace=False))
