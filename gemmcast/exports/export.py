"""What every format shares: one table in, texts by file name out, with what they leave out.

A format never writes: all files of all tables are made first, then written, each whole. What it
can't say is left out and counted, or refused where nothing would be left.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_table import TunedTable

UNSAFE: Final = re.compile(r"[\s/]+")
"""In a device's name; engines write `_` for each run of it in the name of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What a user says besides the tables. Each format reads its own."""

    experts: int | None = None
    """Experts of the layer on one device. (fused MoE)"""
    top_k: int | None = None
    """Experts that each token goes to. (fused MoE)"""
    intermediate: int | None = None
    """Columns of one expert's down projection on one device. [elements] (fused MoE)"""
    decides: str = "both"
    """`gate_up` or `down`: which of a layer's two products decides; `both`: only what both agree
    on. (fused MoE)"""
    kernel: str | None = None
    """Name of the Triton kernel whose entries are exported; None: the format's own. (engines)"""
    block_shape: tuple[int, int] | None = None
    """n and k of one scale of the weights. [elements] (fused MoE)"""
    timestamp: str = ""
    """When the table was written, ISO 8601. (T4)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What one table becomes in one format."""

    files: Mapping[str, str]
    """Path below the folder, with `/` -> text."""
    notes: tuple[str, ...] = ()
    """What the files do not say, one line each."""


@dataclass(slots=True)
class LeftOut:
    """Counts entries that a format can't say."""

    reasons: Counter[str] = field(default_factory=Counter)
    """Why -> how many."""

    def notes(self) -> list[str]:
        """One line a reason."""
        lines = []
        for reason, count in self.reasons.most_common():
            noun = "entry" if count == 1 else "entries"
            lines.append(f"{count} {noun} left out: {reason}")
        return lines

    def nothing_left(self, table: TunedTable, way_out: str) -> InputError:
        """The error for a table of which no entry can be said."""
        reasons = ", ".join(self.reasons) or "it is empty"
        count = f"none of the {len(table.entries)} entries of its table"
        rule = f"{count} can be written in this format ({reasons})"
        return InputError("device", table.key.device, rule, way_out)


def chosen(entry: TunedEntry) -> KernelConfig:
    """What a runtime should run: the winner where its gain was measured, else the default."""
    return entry.winner if entry.verified else entry.default


def device_words(device: str) -> str:
    """A device's name as engines write it in the name of a file."""
    return UNSAFE.sub("_", device)


def file_stem(table: TunedTable) -> str:
    """Device and objective in one word, for formats that do not prescribe the name."""
    words = f"{table.key.device}_{table.key.objective}"
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def merged(exports: Iterable[Export]) -> Export:
    """Exports of several tables as one.

    Raises:
        InputError: two tables say different things in one file.
    """
    files: dict[str, str] = {}
    notes: list[str] = []
    for export in exports:
        for name, text in export.files.items():
            if files.setdefault(name, text) != text:
                rule = "two tables give it, with different contents"
                way_out = "merge them first, or export one at a time to folders of their own"
                raise InputError("file", name, rule, way_out)
        notes += export.notes
    return Export(files=files, notes=tuple(notes))


def write(export: Export, folder: Path) -> list[Path]:
    """Write the files, each whole; returns their paths.

    Raises:
        InputError: the folder can't be written.
    """
    paths = []
    for name, text in export.files.items():
        path = folder / name
        try:
            write_atomically(path, text.encode())
        except OSError as error:
            rule = f"{name} can't be written there ({error.strerror})"
            way_out = "name a folder that you can write to, with room for it"
            raise InputError("--out", str(folder), rule, way_out) from None
        paths.append(path)
    return paths
