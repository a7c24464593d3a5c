"""Which kernel to run for each GEMM: the answer of a tuning, for runtimes.

    table = TunedTable.open("h100.json", here=device)
    table.lookup(Gemm(m=17, n=4096, k=4096, dtype="bf16", layout="nt")).config

One way for every GEMM: its own entry; else the entry of the nearest m of the same layer, as engines
do; else, with a Predictor, the model's cautious pick; else an error. Needs NumPy and ONNX Runtime
only for the model. Does not know how anything was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gemmcast import feasible, modeldir, tuned_json
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.table_key import StaleTableError, TableKey, with_installed_triton
from gemmcast.tuned_entry import Cost, TunedEntry

if TYPE_CHECKING:
    from gemmcast.prediction import Prediction
    from gemmcast.predictor import Predictor

__all__ = ["Cost", "Looked", "StaleTableError", "TableKey", "TunedEntry", "TunedTable"]

Source = Literal["entry", "nearest", "model"]
_layer_of = attrgetter("n", "k", "batch", "dtype", "layout", "alpha", "beta")
_Layer = tuple[object, ...]
_SHOWN_LAYERS: Final = 5
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


class TunedTable:
    """The entries of one type of device and one objective, at most one for each problem.

    Any number of threads may share it. It never changes.

    Args:
        key: what the table holds for.
        entries: in any order; `entries` sorts them.
        predictor: answers for layers without an entry.

    Raises:
        InputError: two entries for one problem.
    """

    def __init__(
        self, key: TableKey, entries: Iterable[TunedEntry], *, predictor: Predictor | None = None
    ) -> None:
        self.key = key
        self.entries: tuple[TunedEntry, ...] = tuple(sorted(entries, key=_order))
        self.predictor = predictor
        self._check_unique()
        self._layers = _by_layer(self.entries)
        self._known: dict[tuple[Gemm, str | None], Looked] = {}
        self._most_known = 2 * len(self.entries) + _REMEMBERED
        self._index()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TunedTable):
            return NotImplemented
        return (self.key, self.entries) == (other.key, other.entries)

    def __hash__(self) -> int:
        return hash((self.key, self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    @staticmethod
    def read(path: str | Path) -> TunedTable:
        """A table from its file, to look at or to merge: it is not compared with this machine.

        Raises:
            InputError: the file can't be read, or is no tuned table.
        """
        return TunedTable.from_json(_bytes_of(Path(path)), str(path))

    @staticmethod
    def from_json(text: str | bytes, source: str = "the table") -> TunedTable:
        """The inverse of `to_json`. Raises InputError for any other text."""
        key, entries = tuned_json.from_json(text, source)
        return TunedTable(key, entries)

    @staticmethod
    def open(
        path: str | Path,
        here: Device | TableKey,
        *,
        allow_stale: bool = False,
        predictor: Predictor | None = None,
    ) -> TunedTable:
        """A table from its file, for use on this machine.

        Args:
            path: the file.
            here: the device that runs the kernels, or a key with what is known of this machine;
                a field that is None is not compared.
            allow_stale: take a table that was tuned elsewhere, or with other versions.
            predictor: answers for layers without an entry.

        Raises:
            InputError: the file can't be read, or is no tuned table.
            StaleTableError: a field of the key differs here.
        """
        table = TunedTable.read(path)
        if not allow_stale:
            table.key.check(_key_of(here), str(path))
        return TunedTable(table.key, table.entries, predictor=predictor)

    def lookup(self, gemm: Gemm, operation: str | None = None) -> Looked:
        """What to run for a GEMM.

        Its own entry; else that of the nearest m of its layer (the smaller of two as near) whose
        winner can run it, as engines do; else the model's pick.

        Args:
            gemm: the problem.
            operation: `TunedEntry.operation`; needed where the table has several for the layer.

        Raises:
            InputError: the table has no entry for the layer, and there is no predictor.
        """
        return self._known.get((gemm, operation)) or self._found(gemm, operation)

    def to_json(self) -> str:
        """JSON that `from_json` reads; equal tables give equal text."""
        return tuned_json.to_json(self.key, self.entries)

    def write(self, path: str | Path) -> None:
        """Write the table as JSON, whole or not at all."""
        modeldir.write_atomically(Path(path), self.to_json().encode())

    def _index(self) -> None:
        """Every entry's answer is made before it is needed: a look-up takes a microsecond."""
        for entry in self.entries:
            looked = Looked(config=entry.winner, source="entry", entry=entry)
            self._known[entry.gemm, entry.operation] = looked
            if len(self._layers[_layer_of(entry.gemm)]) == 1:
                self._known[entry.gemm, None] = looked

    def _found(self, gemm: Gemm, operation: str | None) -> Looked:
        """The answer for a GEMM without an entry, which is remembered."""
        looked = self._nearest(gemm, operation)
        if looked is None:
            raise self._no_entry(gemm)
        if len(self._known) < self._most_known:
            self._known[gemm, operation] = looked
        return looked

    def _nearest(self, gemm: Gemm, operation: str | None) -> Looked | None:
        entries = self._of_layer(gemm, operation)
        for entry in sorted(entries, key=lambda entry: abs(entry.gemm.m - gemm.m)):
            if feasible.impossible(gemm, entry.winner, None) is None:
                return Looked(config=entry.winner, source="nearest", entry=entry)
        return None

    def _of_layer(self, gemm: Gemm, operation: str | None) -> Sequence[TunedEntry]:
        """The entries of a layer, by m."""
        operations = self._layers.get(_layer_of(gemm), {})
        if operation is not None:
            return operations.get(operation, ())
        if len(operations) > 1:
            names = ", ".join(repr(name) for name in operations)
            rule = f"the table has several for {gemm}"
            raise InputError("operation", operation, rule, f"name one of {names}")
        return next(iter(operations.values()), ())

    def _no_entry(self, gemm: Gemm) -> InputError:
        layers = {f"{layer[0]}x{layer[1]} {layer[3]} {layer[4]}" for layer in self._layers}
        shown = ", ".join(sorted(layers)[:_SHOWN_LAYERS]) or "none"
        if len(layers) > _SHOWN_LAYERS:
            shown += ", ..."
        rule = (
            f"the table has no entry for a layer of this n x k, dtype and layout (it has {shown})"
        )
        return InputError("gemm", str(gemm), rule, "tune it too, or give a Predictor")

    def _check_unique(self) -> None:
        seen: set[tuple[Gemm, str]] = set()
        for entry in self.entries:
            if problem_of(entry) in seen:
                rule = "has two entries in one table"
                raise InputError("gemm", str(entry.gemm), rule, "merge two tables instead")
            seen.add(problem_of(entry))


def problem_of(entry: TunedEntry) -> tuple[Gemm, str]:
    """What a table has one entry for: the GEMM, and what is computed of it."""
    return entry.gemm, entry.operation


def _by_layer(entries: Iterable[TunedEntry]) -> dict[_Layer, dict[str, list[TunedEntry]]]:
    """Layer -> operation -> its entries, in their order."""
    layers: dict[_Layer, dict[str, list[TunedEntry]]] = {}
    for entry in entries:
        operations = layers.setdefault(_layer_of(entry.gemm), {})
        operations.setdefault(entry.operation, []).append(entry)
    return layers


def _key_of(here: Device | TableKey) -> TableKey:
    return here if isinstance(here, TableKey) else with_installed_triton(TableKey.of(here))


def _order(entry: TunedEntry) -> tuple[object, ...]:
    return entry.operation, *_layer_of(entry.gemm), entry.gemm.m


def _bytes_of(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > tuned_json.MAX_BYTES:
            raise tuned_json.too_large(str(path), size)
        return path.read_bytes()
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        raise InputError("table", str(path), rule, "name a tuned table") from None
