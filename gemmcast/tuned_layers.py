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
    """Entries of a table, by kernel (`TunedEntry.kernel`) and layer."""

    def __init__(self, entries: Iterable[TunedEntry]) -> None:
        self._entries: dict[str, dict[Layer, list[TunedEntry]]] = {}
        for entry in entries:
            of_kernel = self._entries.setdefault(entry.kernel, {})
            of_kernel.setdefault(_layer_of(entry.gemm, entry.kernel), []).append(entry)

    @property
    def kernels(self) -> list[str]:
        """Those of all entries."""
        return list(self._entries)

    def kernels_of(self, gemm: Gemm) -> list[str]:
        """Those that have entries for the layer of a GEMM."""
        found: list[str] = []
        for kernel, layers in self._entries.items():
            if _layer_of(gemm, kernel) in layers:
                found.append(kernel)
        return found

    def nearest(self, gemm: Gemm, kernel: str | None) -> TunedEntry | None:
        """The entry of the layer with the nearest number of rows whose winner can run the GEMM.

        Args:
            gemm: the problem.
            kernel: what is meant; None where the layer has entries of one kernel only.

        Raises:
            InputError: the layer has entries of several kernels.
        """
        for entry in sorted(self._of_layer(gemm, kernel), key=lambda one: _distance(one, gemm)):
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

    def _of_layer(self, gemm: Gemm, kernel: str | None) -> Sequence[TunedEntry]:
        kernels = self.kernels_of(gemm) if kernel is None else [kernel]
        if len(kernels) > 1:
            names = ", ".join(repr(name) for name in kernels)
            rule = f"the table has entries of several for {gemm}"
            raise InputError("kernel", kernel, rule, f"name one of {names}")
        found: list[TunedEntry] = []
        for name in kernels:
            found += self._entries.get(name, {}).get(_layer_of(gemm, name), ())
        return found


def rows_of(gemm: Gemm) -> int:
    """Rows of A in all matrices: what engines call tokens, times the experts of each."""
    return gemm.m * gemm.batch


def _layer_of(gemm: Gemm, kernel: str) -> Layer:
    batch = 0 if kernel == GROUPED else gemm.batch
    return batch, gemm.n, gemm.k, gemm.dtype, gemm.layout, gemm.alpha, gemm.beta


def _distance(entry: TunedEntry, gemm: Gemm) -> tuple[int, int, int]:
    rows = rows_of(entry.gemm)
    return abs(rows - rows_of(gemm)), rows, abs(entry.gemm.batch - gemm.batch)
