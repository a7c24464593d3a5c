"""The entries of a tuned table by layer, and the nearest one of a layer.

A layer is everything of a GEMM but m: the weights of one layer of a network. Of a mixture of
experts it is everything but m and batch, because the batch is the number of experts that get rows.
Nearest is the one with the nearest number of rows, m x batch, as engines choose; of two as near the
one with fewer. Does not know a table's key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from gemmcast import feasible
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.tuned_entry import TunedEntry

GROUPED: Final = "grouped"
_SHOWN: Final = 5

Layer = tuple[object, ...]


class Layers:
    """Entries of a table, by operation (`TunedEntry.operation`) and layer."""

    def __init__(self, entries: Iterable[TunedEntry]) -> None:
        self._entries: dict[str, dict[Layer, list[TunedEntry]]] = {}
        for entry in entries:
            of_operation = self._entries.setdefault(entry.operation, {})
            of_operation.setdefault(_layer_of(entry.gemm, entry.operation), []).append(entry)

    def only_operation(self, gemm: Gemm) -> str:
        """That of all entries, for a GEMM of another layer.

        Raises:
            InputError: the entries have several.
        """
        if len(self._entries) > 1:
            raise _several(list(self._entries), gemm)
        return next(iter(self._entries), "")

    def operations_of(self, gemm: Gemm) -> list[str]:
        """Those that have entries for the layer of a GEMM."""
        named: list[str] = []
        for operation, layers in self._entries.items():
            if _layer_of(gemm, operation) in layers:
                named.append(operation)
        return named

    def nearest(self, gemm: Gemm, operation: str | None) -> TunedEntry | None:
        """The entry of the layer with the nearest number of rows whose winner can run the GEMM.

        Args:
            gemm: the problem.
            operation: what is meant; None where the layer has entries of one operation only.

        Raises:
            InputError: the layer has entries of several operations.
        """
        for entry in sorted(self._of_layer(gemm, operation), key=lambda one: _distance(one, gemm)):
            if feasible.impossible(gemm, entry.winner, None) is None:
                return entry
        return None

    def names(self) -> str:
        """Some layers, for messages."""
        names: set[str] = set()
        for layers in self._entries.values():
            for entries in layers.values():
                gemm = entries[0].gemm
                names.add(f"{gemm.n}x{gemm.k} {gemm.dtype} {gemm.layout}")
        shown = sorted(names)[:_SHOWN]
        if len(names) > _SHOWN:
            shown.append("...")
        return ", ".join(shown) or "none"

    def _of_layer(self, gemm: Gemm, operation: str | None) -> Sequence[TunedEntry]:
        operations = self.operations_of(gemm) if operation is None else [operation]
        if len(operations) > 1:
            raise _several(operations, gemm)
        entries: list[TunedEntry] = []
        for name in operations:
            entries += self._entries.get(name, {}).get(_layer_of(gemm, name), ())
        return entries


def rows_of(gemm: Gemm) -> int:
    """Rows of A in all matrices: what engines call tokens, times the experts of each."""
    return gemm.m * gemm.batch


def _several(operations: Sequence[str], gemm: Gemm) -> InputError:
    names = ", ".join(repr(name) for name in operations)
    rule = f"the table has several that {gemm} may mean"
    return InputError("operation", None, rule, f"name one of {names}")


def _layer_of(gemm: Gemm, operation: str) -> Layer:
    batch = 0 if operation == GROUPED else gemm.batch
    return batch, gemm.n, gemm.k, gemm.dtype, gemm.layout, gemm.alpha, gemm.beta


def _distance(entry: TunedEntry, gemm: Gemm) -> tuple[int, int, int]:
    rows = rows_of(entry.gemm)
    return abs(rows - rows_of(gemm)), rows, abs(entry.gemm.batch - gemm.batch)
