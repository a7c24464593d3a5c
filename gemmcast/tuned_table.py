"""Which kernel to run for each GEMM: the answer of a tuning, for runtimes.

    table = TunedTable.open("h100.json")
    table.lookup(Gemm(m=17, n=4096, k=4096, dtype="bf16", layout="nt")).config

One way for every GEMM: its own entry; else the nearest entry of its layer, as engines choose; else,
with a Predictor, the model's cautious pick; else an error. NumPy and ONNX Runtime are needed for
the model alone. Does not know how anything was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmcast import modeldir, tuned_json
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.local_gpus import local_keys
from gemmcast.table_key import StaleTableError, TableKey, check_one_of, key_here
from gemmcast.tuned_entry import Cost, TunedEntry
from gemmcast.tuned_lookup import Answers, Fallback, Looked, NoEntryError

if TYPE_CHECKING:
    from gemmcast.predictor import Predictor
    from gemmcast.table_following import TableFollower

__all__ = [
    "Cost",
    "Looked",
    "NoEntryError",
    "StaleTableError",
    "TableKey",
    "TunedEntry",
    "TunedTable",
]

_sorted_by = attrgetter("n", "k", "dtype", "layout", "alpha", "beta", "batch", "m")
Problem = tuple[Gemm, str]
"""What a table has one entry for: a GEMM, and what is computed of it."""


class TunedTable:
    """The entries of one type of device and one objective, at most one for each problem.

    Any number of threads may share it. It never changes.

    Args:
        key: what the table holds for.
        entries: in any order; `entries` sorts them.
        predictor: answers for layers without an entry.
        device: as for the predictor; None: the one that the key names.

    Raises:
        InputError: two entries for one problem.
    """

    def __init__(
        self,
        key: TableKey,
        entries: Iterable[TunedEntry],
        *,
        predictor: Predictor | None = None,
        device: Device | None = None,
    ) -> None:
        self.key = key
        self.entries: tuple[TunedEntry, ...] = tuple(sorted(entries, key=_order))
        self._check_unique()
        fallback = None
        if predictor is not None:
            on = device or key.device
            fallback = Fallback(predictor=predictor, objective=key.objective, device=on)
        self._answers = Answers(self.entries, fallback)

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
        here: Device | TableKey | None = None,
        *,
        allow_stale: bool = False,
        predictor: Predictor | None = None,
    ) -> TunedTable:
        """A table from its file, for use on this machine.

        Args:
            path: the file.
            here: the device that runs the kernels, or a key with what is known of this machine;
                a field that is None is not compared. None: the NVIDIA GPUs of this machine, of
                which one must fit; where there are none, nothing is compared.
            allow_stale: take a table that was tuned elsewhere, or with other versions.
            predictor: answers for layers without an entry.

        Raises:
            InputError: the file can't be read, or is no tuned table.
            StaleTableError: a field of the key differs here.
        """
        table = TunedTable.read(path)
        if not allow_stale:
            keys = local_keys() if here is None else [key_here(here)]
            check_one_of(table.key, keys, str(path))
        device = here if isinstance(here, Device) else None
        return table.with_model(predictor, device)

    @staticmethod
    def following(
        directory: str | Path,
        here: Device | TableKey | None = None,
        *,
        objective: str = "time",
        allow_stale: bool = False,
        predictor: Predictor | None = None,
    ) -> TableFollower:
        """The newest table of a node's model directory, replaced when another is pushed.

        Args:
            directory: the node's model directory.
            here: as for `open`; None: the devices that the directory describes.
            objective: of the table.
            allow_stale: as for `open`.
            predictor: as for `open`.

        Raises:
            InputError: the directory has no table, none of this objective, or a damaged one.
            StaleTableError: its tables are of other devices or versions.
        """
        from gemmcast.table_following import TableFollower

        keys = [] if here is None else [key_here(here)]
        return TableFollower(
            Path(directory), keys, objective, allow_stale=allow_stale, predictor=predictor
        )

    def lookup(self, gemm: Gemm, operation: str | None = None) -> Looked:
        """What to run for a GEMM.

        Its own entry; else that of its layer with the nearest number of rows, as engines choose
        (gemmcast/tuned_layers.py); else the model's cautious pick.

        Args:
            gemm: the problem.
            operation: what is computed, as `TunedEntry.operation`; needed where the table has
                several for the layer.

        Raises:
            NoEntryError: the table has no entry for the layer, and there is no predictor.
            InputError: `operation` is needed, or what `Predictor.pick` raises.
        """
        return self._answers.get(gemm, operation)

    def with_model(self, predictor: Predictor | None, device: Device | None = None) -> TunedTable:
        """The table with a predictor for layers without an entry.

        Args:
            predictor: the model.
            device: as it describes the device; None: the one of the key's name.
        """
        return TunedTable(self.key, self.entries, predictor=predictor, device=device)

    def merged_with(self, *others: TunedTable) -> TunedTable:
        """One table of several, such as those of several nodes.

        Of the entries for one problem the best founded stays (`TunedEntry.evidence`), so the order
        of the tables does not matter.

        Raises:
            InputError: the tables have different keys; it names the field and both values.
        """
        best: dict[Problem, TunedEntry] = {}
        for table in (self, *others):
            self.key.check_same(table.key)
            for entry in table.entries:
                rival = best.get(_problem_of(entry), entry)
                best[_problem_of(entry)] = max(entry, rival, key=attrgetter("evidence"))
        return TunedTable(self.key, best.values())

    def to_json(self) -> str:
        """JSON that `from_json` reads; equal tables give equal text."""
        return tuned_json.to_json(self.key, self.entries)

    def values(self) -> dict[str, Any]:
        """What `to_json` writes, as JSON values."""
        return tuned_json.values_of(self.key, self.entries)

    def write(self, path: str | Path) -> None:
        """Write the table as JSON, whole or not at all."""
        modeldir.write_atomically(Path(path), self.to_json().encode())

    def _check_unique(self) -> None:
        seen: set[Problem] = set()
        for entry in self.entries:
            if _problem_of(entry) in seen:
                rule = "has two entries in one table"
                raise InputError("gemm", str(entry.gemm), rule, "keep one, or merge two tables")
            seen.add(_problem_of(entry))


def _problem_of(entry: TunedEntry) -> Problem:
    return entry.gemm, entry.operation


def _order(entry: TunedEntry) -> tuple[object, ...]:
    return entry.operation, *_sorted_by(entry.gemm)


def _bytes_of(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > tuned_json.MAX_BYTES:
            raise tuned_json.too_large(str(path), size)
        return path.read_bytes()
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        raise InputError("table", str(path), rule, "name a tuned table") from None
