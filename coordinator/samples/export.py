"""A workspace's samples as a dataset: one Parquet file, and a card that says where it comes from.

The file holds every row with the columns of docs/schema.md, the oldest first, so that a replay can
read it. The card is a page of Markdown with the same name (coordinator/samples/dataset_card.py).
Does not know the store, nor how the samples were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.samples.dataset_card import DatasetCounts, counts, dataset_card
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically

COMPRESSION_LEVEL: Final = 9


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
        InputError: the name does not end with .parquet, or there are no samples.
    """
    if path.suffix != ".parquet":
        rule = "a dataset is a Parquet file"
        raise InputError("FILE", str(path), rule, "name it SOMETHING.parquet")
    ordered = in_order(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(ordered, sink, compression="zstd", compression_level=COMPRESSION_LEVEL)
    write_atomically(path, sink.getvalue().to_pybytes())
    rows = ordered.to_pylist()
    counted = counts(rows)
    page = dataset_card(path.stem, rows, counted, measure)
    write_atomically(path.with_suffix(".md"), page.encode())
    return counted


def in_order(table: pa.Table) -> pa.Table:
    """Samples in the order of files: the oldest first.

    Raises:
        InputError: there are none.
    """
    if len(table) == 0:
        way_out = "run a plan first: python -m coordinator run PLAN.toml"
        raise InputError("samples", 0, "there are no samples to write", way_out)
    return table.sort_by([("measured_at", "ascending"), ("cell_id", "ascending")])
