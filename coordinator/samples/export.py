"""A workspace's samples as a dataset: one Parquet file, and a card that says where it comes from.

The file holds every row with the columns of docs/schema.md, the oldest first, so that a replay can
read it. The card is a page of Markdown with the same name (coordinator/samples/dataset_card.py).
Does not know the store, nor how the samples were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.samples.dataset_card import WRITTEN_BY, dataset_card
from coordinator.samples.dataset_counts import DatasetCounts, counts
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically

COMPRESSION_LEVEL: Final = 9
UNITS: Final = {
    "us": "us",
    "s": "s",
    "mhz": "MHz",
    "w": "W",
    "mj": "mJ",
    "c": "°C",
    "gbps": "GB/s",
    "tflops": "TFLOP/s",
    "bytes": "bytes",
}
"""Last word of a column's name -> its unit, as field metadata of the file."""


def write_dataset(
    table: pa.Table, path: Path, measure: Mapping[str, object] | None = None
) -> DatasetCounts:
    """Write the dataset `path` (.parquet) and its card (.md).

    Args:
        table: samples, with the columns of the sample schema.
        measure: the plan's [measure] table, for the card.

    Returns:
        What the dataset holds.

    Raises:
        InputError: the name does not end with .parquet, it cannot be written, its card would
            replace another page, or there are no samples.
    """
    refuse_directory(path)
    if path.suffix != ".parquet":
        rule = "a dataset is a Parquet file"
        raise InputError("FILE", str(path), rule, "name it SOMETHING.parquet")
    card = path.with_suffix(".md")
    _check_card(card)
    ordered = in_order(table)
    counted = counts(ordered)
    page = dataset_card(path.stem, ordered.to_pylist(), counted, measure)
    write_files({path: dataset_bytes(ordered), card: page.encode()})
    return counted


def dataset_bytes(table: pa.Table) -> bytes:
    """The Parquet file of a dataset: rows and columns as they are, and the units."""
    sink = pa.BufferOutputStream()
    named = with_units(table)
    pq.write_table(named, sink, compression="zstd", compression_level=COMPRESSION_LEVEL)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def with_units(table: pa.Table) -> pa.Table:
    """The same table; columns that have a unit have it as metadata of their field."""
    fields = []
    for column in table.schema:
        unit = UNITS.get(column.name.rpartition("_")[2])
        fields.append(column if unit is None else column.with_metadata({"unit": unit}))
    return table.cast(pa.schema(fields))


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all; nothing where one of them is a directory.

    Raises:
        InputError: one of them cannot be written.
    """
    for path in contents:
        refuse_directory(path)
    for path, data in contents.items():
        try:
            write_atomically(path, data)
        except OSError as error:
            raise _unwritable(path, error) from None


def refuse_directory(path: Path) -> None:
    """Refuse a file whose name is a directory's, or one that no file can have."""
    try:
        is_directory = path.is_dir()
    except OSError as error:
        raise _unwritable(path, error) from None
    if is_directory:
        raise InputError("FILE", str(path), "is a directory", "name a file in it, or another one")


def refuse_unwritable(path: Path) -> None:
    """Refuse a file that can't be written, before it is computed; makes its folder.

    Raises:
        InputError: it is a directory, or its folder takes no files.
    """
    refuse_directory(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> InputError:
    rule = f"can't be written ({error.strerror})"
    way_out = "name a file in a folder that you can write to, with room for it"
    return InputError("FILE", str(path), rule, way_out)


def _check_card(card: Path) -> None:
    """Refuse a card that would replace a page which is no card."""
    try:
        page = card.read_text(errors="replace")
    except OSError:
        # none there, or none that can be read: the writer says which
        return
    if not any(line.startswith(WRITTEN_BY) for line in page.splitlines()):
        rule = f"its card, {card.name}, would replace a page that is no card of a dataset"
        raise InputError("FILE", str(card.with_suffix(".parquet")), rule, "choose another name")


def in_order(table: pa.Table) -> pa.Table:
    """Samples in the order of files: the oldest first.

    Raises:
        InputError: there are none.
    """
    if len(table) == 0:
        way_out = "run a plan first: python -m coordinator run PLAN.toml"
        raise InputError("samples", 0, "there are no samples to write", way_out)
    return table.sort_by([("measured_at", "ascending"), ("cell_id", "ascending")])
