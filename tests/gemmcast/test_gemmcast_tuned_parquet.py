"""Tuned tables as Parquet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.tuned_parquet import SCHEMA, read_parquet, write_parquet
from gemmcast.tuned_table import Cost, TunedTable
from tests.small_tables import KEY, entry, gemm, table


def test_parquet_gives_a_table_back(tmp_path: Path) -> None:
    library = KernelConfig(family="cublaslt", kernel="default")
    cost = Cost(runtime_us=1.25, power_w=310.0)
    other = entry(7, gemm=gemm(7, beta=0.5), default=library, winner=library, winner_predicted=cost)
    for one in (table(1, 16), TunedTable(replace(KEY, triton=None), [other, entry(8)])):
        write_parquet(one, tmp_path / "table.parquet")
        assert read_parquet(tmp_path / "table.parquet") == one


def test_columns_can_be_read_without_gemmcast(tmp_path: Path) -> None:
    write_parquet(table(1, 16), tmp_path / "table.parquet")
    rows = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["gemm"]["m"] for row in rows] == [1, 16]
    assert rows[0]["key"]["device"] == KEY.device
    assert rows[0]["winner"]["tile_m"] == 16
    assert rows[0]["winner"]["split_k"] is None
    assert rows[0]["winner_measured"]["energy_mj"] is None


def test_an_empty_table_has_no_row_for_its_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no entry to write; write it as JSON"):
        write_parquet(TunedTable(KEY, []), tmp_path / "table.parquet")
    assert not list(tmp_path.iterdir())


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    with pytest.raises(InputError, match="can't be read"):
        read_parquet(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="can't be read"):
        read_parquet(path)
    pq.write_table(pa.table({"m": [1]}), path)
    with pytest.raises(InputError, match="is no tuned table"):
        read_parquet(path)


def test_rows_of_two_keys_and_of_a_newer_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(table(1), path)
    first = pq.read_table(path)
    write_parquet(table(2, key=replace(KEY, driver="590.1")), path)
    pq.write_table(pa.concat_tables([first, pq.read_table(path)]), path)
    with pytest.raises(InputError, match="is not the same in every row"):
        read_parquet(path)
    metadata = {**first.schema.metadata, b"gemmcast.schema_version": b"2"}
    pq.write_table(first.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match="schema_version = 2: .* is of a newer schema"):
        read_parquet(path)


def test_the_schema_has_every_field() -> None:
    assert SCHEMA.names[:4] == ["key", "gemm", "default", "winner"]
