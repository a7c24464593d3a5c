"""What a tuned table answers: an entry, the nearest of its layer, or a model's cautious pick.

Answers are made once. Those for entries are made before they are needed, those for other GEMMs are
remembered, so that a look-up is one look into a dict. Its keys are tuples of plain values: hashing
a Gemm and comparing two take three times as long. Does not know a table's key, nor its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal

from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_layers import Layers

if TYPE_CHECKING:
    from gemmcast.prediction import Prediction
    from gemmcast.predictor import Predictor

Source = Literal["entry", "nearest", "model"]
_values_of = attrgetter(*(field.name for field in fields(Gemm)))
_Asked = tuple[object, ...]
"""The values of a Gemm, and an operation."""
_REMEMBERED: Final = 65_536
"""Answers for GEMMs without an entry that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look-up answers."""

    config: KernelConfig
    """What to run."""
    source: Source
    """`entry`: tuned for this GEMM; `nearest`: for another m of this layer; `model`: predicted."""
    entry: TunedEntry | None = None
    """The entry that it comes from; None where the model chose."""
    prediction: Prediction | None = None
    """What the model predicts; None where an entry answers."""


class NoEntryError(InputError):
    """A tuned table has no entry for a layer, and no predictor to fall back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A model, for layers without an entry."""

    predictor: Predictor
    objective: str
    """Of the table."""
    device: Device | str
    """As for the predictor."""

    def pick(self, gemm: Gemm, families: Sequence[str] | None) -> Looked:
        """The model's cautious pick among what families make. Raises as `Predictor.pick` does."""
        choice = self.predictor.pick(
            gemm, objective=self.objective, device=self.device, families=families
        )
        return Looked(config=choice.config, source="model", prediction=choice.prediction)


class Answers:
    """The answers of a table, by GEMM and operation (`TunedEntry.operation`, or None).

    Args:
        entries: of the table.
        fallback: None for no model.
    """

    def __init__(self, entries: Sequence[TunedEntry], fallback: Fallback | None) -> None:
        self._entries = entries
        self._fallback = fallback
        self._layers = Layers(entries)
        self._most_known = 2 * len(entries) + _REMEMBERED
        self._known: dict[_Asked, Looked] = {}
        for entry in entries:
            looked = Looked(config=entry.winner, source="entry", entry=entry)
            self._known[*_values_of(entry.gemm), entry.operation] = looked
            if len(self._layers.operations_of(entry.gemm)) == 1:
                self._known[*_values_of(entry.gemm), None] = looked

    def get(self, gemm: Gemm, operation: str | None) -> Looked:
        """The answer for a GEMM. Raises as `TunedTable.lookup` does."""
        # Written out: a call of _values_of takes as long as all the rest.
        known = self._known.get(
            (
                gemm.m,
                gemm.n,
                gemm.k,
                gemm.batch,
                gemm.dtype,
                gemm.layout,
                gemm.alpha,
                gemm.beta,
                operation,
            )
        )
        return known or self._find(gemm, operation)

    def _find(self, gemm: Gemm, operation: str | None) -> Looked:
        """The answer for a GEMM without an entry."""
        entry = self._layers.nearest(gemm, operation)
        if entry is not None:
            looked = Looked(config=entry.winner, source="nearest", entry=entry)
        elif self._fallback is not None:
            looked = self._fallback.pick(gemm, self._families(gemm, operation))
        else:
            rule = "the table has no entry for its n x k, dtype and layout"
            way_out = f"tune it too, or give a Predictor; it has {self._layers.names()}"
            raise NoEntryError("gemm", str(gemm), rule, way_out)
        if len(self._known) < self._most_known:
            self._known[*_values_of(gemm), operation] = looked
        return looked

    def _families(self, gemm: Gemm, operation: str | None) -> list[str] | None:
        """What makes candidates: the Triton kernel of the operation, else the table's families.

        None for all, where the table is empty.
        """
        if operation is None:
            operation = self._layers.only_operation(gemm)
        if operation:
            return [f"triton:{operation}"]
        families: dict[str, None] = {}
        for entry in self._entries:
            if not entry.operation:
                families |= dict.fromkeys((entry.default.family, entry.winner.family))
        return list(families) or None
