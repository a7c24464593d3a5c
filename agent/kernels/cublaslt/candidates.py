"""The algorithms of cuBLASLt for one problem: the heuristic's list, and lazily all others.

The others stand in a fixed shuffled order (enumeration.py); the i-th that the library accepts is
`enumerated-i`. A check costs microseconds and most fail, so only the first MAX_CHECKS places have
numbers. A configuration further on can be selected by its knobs; its name is plain `enumerated`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from agent.kernels.cublaslt import enumeration
from agent.kernels.cublaslt.enumeration import IdAxes
from agent.kernels.cublaslt.library import ConfiguredAlgorithm, Problem
from agent.kernels.cublaslt.names import (
    LT_KNOBS,
    Capabilities,
    IdDecoder,
    Ids,
    IdTable,
    heuristic_name,
)
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.kernel_names import library_name

MAX_CHECKS: Final = 2048
UNNUMBERED: Final = "enumerated"
KERNEL_NAMES: Final = "default, heuristic-1..., enumerated-0..., or no name and knobs"


@dataclass(frozen=True, slots=True)
class SelectedAlgorithm:
    """What a configuration resolved to."""

    name: str
    """`default`, `heuristic-i`, `enumerated-i` or `enumerated`."""
    configured: ConfiguredAlgorithm


class AlgorithmSpace:
    """Every algorithm of one problem; remembers what the library has checked.

    Args:
        capabilities: gives those of the dtype's algorithms; called when they are needed first.
        text: the problem in words, with the library's version: it seeds the order.
    """

    def __init__(
        self,
        problem: Problem,
        decoder: IdDecoder,
        capabilities: Callable[[], Sequence[Capabilities]],
        text: str,
    ) -> None:
        self.problem = problem
        self._decoder = decoder
        self._capabilities = capabilities
        self._text = text
        self._checked: list[ConfiguredAlgorithm | None] = []
        """Of the first places of the order; None where the library refuses."""

    @cached_property
    def listed(self) -> list[ConfiguredAlgorithm]:
        """The heuristic's list."""
        return self.problem.heuristic()

    def select(self, config: KernelConfig) -> SelectedAlgorithm:
        """Resolve the configuration's name, or its knobs where the name leaves them open.

        Raises:
            MeasurementError: "unsupported" where the library has no such algorithm.
        """
        wanted = {knob: int(getattr(config, knob)) for knob in LT_KNOBS}
        if config.kernel in ("", UNNUMBERED) and any(wanted.values()):
            return self._by_knobs(config, wanted)
        name = library_name(config.kernel)
        if name is None:
            reason = f"cublaslt has no kernel {config.kernel!r} without knobs: use {KERNEL_NAMES}"
            raise MeasurementError("unsupported", reason)
        if name.source == "enumerated":
            selected = self._from_enumeration(name.place)
        else:
            selected = self._from_list(name.place)
        self._check_knobs(selected, config, wanted)
        return selected

    def knobs(self, selected: SelectedAlgorithm) -> dict[str, int]:
        """Every one of LT_KNOBS."""
        return self._decoder.knobs(selected.configured.ids)

    def _check_knobs(
        self, selected: SelectedAlgorithm, config: KernelConfig, wanted: Mapping[str, int]
    ) -> None:
        """A name and knobs may stand together where they agree."""
        resolved = self.knobs(selected)
        if all(wanted[knob] in (0, resolved[knob]) for knob in LT_KNOBS):
            return
        shown = ", ".join(f"{knob}={value}" for knob, value in resolved.items())
        reason = f"{selected.name} of {self._text} is {shown}, not {config}"
        way_out = "leave kernel open to select by knobs"
        raise MeasurementError("unsupported", f"{reason}: {way_out}")

    def _from_list(self, index: int) -> SelectedAlgorithm:
        name = heuristic_name(index)
        if index >= len(self.listed):
            count = len(self.listed)
            reason = f"cublaslt's heuristic has {count} algorithms for {self._text}, no {name}"
            raise MeasurementError("unsupported", reason)
        return SelectedAlgorithm(name, self.listed[index])

    def _from_enumeration(self, index: int) -> SelectedAlgorithm:
        accepted = 0
        for place in range(len(self._numbered)):
            configured = self._at(place)
            if configured is None:
                continue
            if accepted == index:
                return SelectedAlgorithm(f"enumerated-{index}", configured)
            accepted += 1
        checked = f"the {len(self._numbered)} checked of {enumeration.size(self._axes)}"
        reason = f"cublaslt accepts {accepted} configurations outside its list for {self._text}"
        raise MeasurementError("unsupported", f"{reason} among {checked}")

    def _by_knobs(self, config: KernelConfig, wanted: Mapping[str, int]) -> SelectedAlgorithm:
        """First with all nine knobs as wanted, zeros too (those of a recorded row); else with those
        that are not 0."""
        for exact in (True, False):
            selected = None
            if not config.kernel:
                selected = self._listed_with(wanted, exact)
            if selected is None:
                selected = self._enumerated_with(wanted, exact)
            if selected is not None:
                return selected
        searched = f"{len(self.listed)} listed and {len(self._order)} other configurations"
        reason = f"cublaslt accepts no {config} for {self._text}: {searched} searched"
        raise MeasurementError("unsupported", reason)

    def _listed_with(self, wanted: Mapping[str, int], exact: bool) -> SelectedAlgorithm | None:
        ids = [configured.ids for configured in self.listed]
        table = np.array(ids, dtype=np.int32).reshape(-1, len(Ids._fields))
        places = np.flatnonzero(self._decoder.rows_with(wanted, table, exact=exact))
        return self._from_list(int(places[0])) if len(places) else None

    def _enumerated_with(self, wanted: Mapping[str, int], exact: bool) -> SelectedAlgorithm | None:
        places = np.flatnonzero(self._decoder.rows_with(wanted, self._order, exact=exact))
        for place in places[:MAX_CHECKS].tolist():
            configured = self._check(self._order[place])
            if configured is not None:
                return SelectedAlgorithm(self._name_at(place), configured)
        return None

    def _name_at(self, place: int) -> str:
        if place >= MAX_CHECKS:
            return UNNUMBERED
        self._at(place)
        accepted = [configured for configured in self._checked[:place] if configured is not None]
        return f"enumerated-{len(accepted)}"

    def _at(self, place: int) -> ConfiguredAlgorithm | None:
        """The configuration at a numbered place, checked, with all places before it."""
        while len(self._checked) <= place:
            row = self._numbered[len(self._checked)]
            self._checked.append(self._check(row))
        return self._checked[place]

    def _check(self, row: IdTable) -> ConfiguredAlgorithm | None:
        ids = Ids(*row.tolist())
        return self.problem.configure(ids, self._schemes[ids.algo])

    @cached_property
    def _schemes(self) -> dict[int, int]:
        """algo -> reduction scheme."""
        return {one.algo: one.scheme for one in self._capabilities()}

    @cached_property
    def _axes(self) -> list[IdAxes]:
        return enumeration.axes_of(
            self._capabilities(),
            self._decoder,
            batched=self.problem.batched,
            alignment=self.problem.row_alignment,
        )

    @cached_property
    def _order(self) -> IdTable:
        """All places."""
        return self._unlisted()

    @cached_property
    def _numbered(self) -> IdTable:
        """The places that have numbers."""
        return self._unlisted(MAX_CHECKS + len(self.listed))[:MAX_CHECKS]

    def _unlisted(self, first: int | None = None) -> IdTable:
        """The order, without what the heuristic lists."""
        rows = enumeration.shuffled(self._axes, self._text, first)
        return enumeration.without(rows, (configured.ids for configured in self.listed))
