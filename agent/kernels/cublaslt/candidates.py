"""What cuBLASLt offers for one problem: the heuristic's list and, lazily, what lies beyond it, by name or by knobs.

Beyond the list, configurations stand in a fixed shuffled order; the i-th that the library accepts is enumerated-i. A check costs
microseconds and most are refused, so only the first MAX_CHECKS places have numbers. What stands further on can be had by its knobs;
its name is "enumerated" alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from agent.kernels.cublaslt.library import Configured, Problem
from agent.kernels.cublaslt.names import KNOBS, Algorithm, Grid, Ids, Names, Table, grids, named, parse, shuffled, size, without
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError

MAX_CHECKS: Final = 2048
UNNUMBERED: Final = "enumerated"
NAMES: Final = "default, heuristic-1..., enumerated-0..., or no name and knobs"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a configuration resolved to."""

    name: str
    configured: Configured


class AlgorithmSpace:
    """Everything that can be asked for; remembers what was checked."""

    def __init__(self, problem: Problem, names: Names, algorithms: Callable[[], Sequence[Algorithm]], text: str) -> None:
        """`text` is the problem in words, with the library's version: it seeds the order."""
        self.problem = problem
        self._names, self._algorithms, self._text = names, algorithms, text
        self._checked: list[Configured | None] = []
        # of the first places of the order

    @cached_property
    def listed(self) -> list[Configured]:
        return self.problem.heuristic()

    @cached_property
    def _grids(self) -> list[Grid]:
        return grids(self._algorithms(), self._names, batched=self.problem.batched, alignment=self.problem.row_alignment)

    @cached_property
    def _numbered(self) -> Table:
        """The places that have numbers."""
        return self._unlisted(MAX_CHECKS + len(self.listed))[:MAX_CHECKS]

    @cached_property
    def _order(self) -> Table:
        return self._unlisted()

    def _unlisted(self, first: int | None = None) -> Table:
        return without(shuffled(self._grids, self._text, first), (one.ids for one in self.listed))

    @cached_property
    def _schemes(self) -> dict[int, int]:
        return {one.algo: one.scheme for one in self._algorithms()}

    def choose(self, config: KernelConfig) -> Choice:
        """Raises MeasurementError("unsupported", ...) for what is not on offer."""
        wanted = {knob: int(getattr(config, knob)) for knob in KNOBS}
        if config.kernel in ("", UNNUMBERED) and any(wanted.values()):
            return self._by_knobs(config, wanted)
        if (asked := parse(config.kernel)) is None:
            raise MeasurementError("unsupported", f"cublaslt has no kernel {config.kernel!r} without knobs: use {NAMES}")
        choice = self._beyond(asked[1]) if asked[0] == "enumerated" else self._from_list(asked[1])
        have = self.knobs(choice)
        if any(wanted[knob] not in (0, have[knob]) for knob in KNOBS):
            here = ", ".join(f"{knob}={value}" for knob, value in have.items())
            raise MeasurementError("unsupported", f"{choice.name} of {self._text} is {here}, not {config}: leave kernel open to ask by knobs")
        return choice

    def knobs(self, choice: Choice) -> dict[str, int]:
        return self._names.knobs(choice.configured.ids)

    def _from_list(self, index: int) -> Choice:
        if index >= len(self.listed):
            raise MeasurementError("unsupported", f"cublaslt's heuristic has {len(self.listed)} algorithms for {self._text}, no {named(index)}")
        return Choice(named(index), self.listed[index])

    def _beyond(self, index: int) -> Choice:
        found = -1
        for place in range(len(self._numbered)):
            one = self._at(place)
            found += one is not None
            if one is not None and found == index:
                return Choice(f"enumerated-{index}", one)
        tried = f"the {len(self._numbered)} checked of {size(self._grids)}"
        raise MeasurementError("unsupported", f"cublaslt accepts {found + 1} configurations beyond its list for {self._text} among {tried}")

    def _at(self, place: int) -> Configured | None:
        """Checked, with all before it."""
        while len(self._checked) <= place:
            self._checked.append(self._check(self._numbered[len(self._checked)]))
        return self._checked[place]

    def _check(self, row: Table) -> Configured | None:
        ids = Ids(*row.tolist())
        return self.problem.configured(ids, self._schemes[ids.algo])

    def _by_knobs(self, config: KernelConfig, wanted: Mapping[str, int]) -> Choice:
        """All nine as wanted, zeros too (a recorded row asked again), or else those that are not 0."""
        for exact in (True, False):
            found = None if config.kernel else self._listed_with(wanted, exact)
            found = found or self._beyond_with(wanted, exact)
            if found:
                return found
        searched = f"{len(self.listed)} listed and {len(self._order)} other configurations"
        raise MeasurementError("unsupported", f"cublaslt accepts no {config} for {self._text}: {searched} searched")

    def _listed_with(self, wanted: Mapping[str, int], exact: bool) -> Choice | None:
        rows = np.array([one.ids for one in self.listed], dtype=np.int32).reshape(-1, len(Ids._fields))
        places = np.flatnonzero(self._names.having(wanted, rows, exact=exact))
        return self._from_list(int(places[0])) if len(places) else None

    def _beyond_with(self, wanted: Mapping[str, int], exact: bool) -> Choice | None:
        for place in np.flatnonzero(self._names.having(wanted, self._order, exact=exact))[:MAX_CHECKS].tolist():
            one = self._check(self._order[place])
            if one is not None:
                return Choice(self._name_at(place), one)
        return None

    def _name_at(self, place: int) -> str:
        if place >= MAX_CHECKS:
            return UNNUMBERED
        self._at(place)
        return f"enumerated-{sum(one is not None for one in self._checked[:place])}"
