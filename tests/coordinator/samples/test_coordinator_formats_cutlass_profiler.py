"""Tables of CUTLASS' profiler: what becomes of a row, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.samples.importer import read_table
from gemmcast.errors import InputError
from gemmcast.kernel_names import algorithm
from gemmcast.rows import Row

Write = Callable[..., Path]
DEVICE = {"device": "NVIDIA H100 80GB HBM3"}
PINGPONG = (
    "cutlass3x_sm90_tensorop_gemm_bf16_bf16_f32_bf16_bf16_128x64x64_2x1x1_0_tnt_align8_"
    "warpspecialized_pingpong_epi_tma"
)
AMPERE = "cutlass_tensorop_bf16_s16816gemm_bf16_256x128_32x3_tn_align8"


def row(**values: object) -> Row:
    """As CUTLASS 4 writes it."""
    return {
        "Problem": 1,
        "Provider": "CUTLASS",
        "OperationKind": "gemm",
        "Operation": PINGPONG,
        "Disposition": "passed",
        "Status": "success",
        "gemm_kind": "universal",
        "m": 512,
        "n": 4096,
        "k": 2048,
        "A": "bf16:row",
        "B": "bf16:column",
        "C": "bf16:row",
        "D": "bf16:row",
        "alpha": 1,
        "beta": 0,
        "split_k_mode": "serial",
        "split_k_slices": 1,
        "batch_count": 1,
        "raster_order": "heuristic",
        "swizzle_size": 4,
        "op_class": "tensorop",
        "accum": "f32",
        "cta_m": 128,
        "cta_n": 64,
        "cta_k": 64,
        "cluster_m": 2,
        "cluster_n": 1,
        "cluster_k": 1,
        "stages": 0,
        "warps_m": 4,
        "warps_n": 1,
        "warps_k": 1,
        "inst_m": 64,
        "inst_n": 64,
        "inst_k": 16,
        "min_cc": 90,
        "max_cc": 90,
        "Bytes": 23068672,
        "Flops": 8594128896,
        "Flops/Byte": 372,
        "Runtime": 0.025,
        "GB/s": 859.4,
        "GFLOPs": 343765.1,
        **values,
    }


def ampere() -> Row:
    """A CUTLASS 2.x kernel, which writes C column-major."""
    return row(
        Operation=AMPERE,
        C="bf16:column",
        D="bf16:column",
        cta_m=256,
        cta_n=128,
        cta_k=32,
        cluster_m=1,
        stages=3,
        warps_m=4,
        warps_n=2,
    )


def one(path: Path) -> Row:
    (sample,) = read_table(path, constants=DEVICE).table.to_pylist()
    found: Row = sample
    return found


def test_a_row_major_kernel_is_read_as_it_stands(write: Write) -> None:
    imported = read_table(write([row()], "out.gemm.csv"), constants=DEVICE)
    assert imported.format == "cutlass-profiler"
    (sample,) = imported.table.to_pylist()
    expected = {
        "m": 512,
        "n": 4096,
        "k": 2048,
        "batch": 1,
        "dtype": "bf16",
        "layout": "nt",
        "beta": 0.0,
        "family": "cutlass",
        "kernel": PINGPONG,
        "tile_m": 128,
        "tile_n": 64,
        "tile_k": 64,
        "warp_m": 0,
        "cluster_m": 2,
        "cluster_n": 1,
        "swizzle": 4,
        "split_k": 1,
        "cache": "warm",
        "status": "ok",
        "runtime_us": 25.0,
        "library": "CUTLASS profiler",
    }
    assert {name: sample[name] for name in expected} == expected
    # as many as fit: what our own kernel of this tile has
    assert sample["stages"] == 8
    ours = "wgmma_bf16_nt_128x64x64_2x1_pingpong_z4_a8"
    code = algorithm("cutlass", sample["kernel"], sample["algo_id"])
    assert code == algorithm("cutlass", ours, 0) > 0


def test_a_column_major_kernel_computes_the_transpose(write: Write) -> None:
    name = PINGPONG.replace("tnt", "tnn")
    sample = one(write([row(Operation=name, C="void:column", D="bf16:column")], "out.csv"))
    assert (sample["m"], sample["n"], sample["layout"]) == (4096, 512, "nt")
    assert (sample["tile_m"], sample["tile_n"]) == (64, 128)
    assert (sample["cluster_m"], sample["cluster_n"]) == (1, 2)


def test_a_kernel_of_cutlass_2_transposes_itself(write: Write) -> None:
    """Within, it computes C^T with the tile that it reports (GemmUniversalAdapter)."""
    sample = one(write([ampere()], "out.csv"))
    assert (sample["m"], sample["n"], sample["layout"]) == (4096, 512, "nt")
    tile = [sample[f"tile_{side}"] for side in "mnk"]
    warp = [sample[f"warp_{side}"] for side in "mnk"]
    assert (tile, warp, sample["stages"]) == ([256, 128, 32], [64, 64, 32], 3)
    assert (sample["cluster_m"], sample["kernel"]) == (0, AMPERE)


@pytest.mark.parametrize(
    ("a", "b", "c", "layout"),
    [
        ("row", "row", "row", "nn"),
        ("column", "row", "row", "tn"),
        ("row", "row", "column", "tt"),
        ("column", "row", "column", "tn"),
        ("column", "column", "column", "nn"),
    ],
)
def test_layouts(write: Write, a: str, b: str, c: str, layout: str) -> None:
    values = {"A": f"bf16:{a}", "B": f"bf16:{b}", "C": f"bf16:{c}", "D": f"bf16:{c}"}
    assert one(write([row(**values)], "out.csv"))["layout"] == layout


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ({"A": "f16:row", "B": "f16:column", "D": "f16:row"}, "fp16"),
        ({"A": "e4m3:row", "B": "e4m3:column"}, "fp8_e4m3"),
        (
            {
                "A": "f32:row",
                "B": "f32:column",
                "D": "f32:row",
                "op_class": "simt",
                "Operation": "cutlass_simt_sgemm_128x128_8x2_tn_align1",
                "stages": 2,
            },
            "fp32",
        ),
        (
            {
                "A": "f32:row",
                "B": "f32:column",
                "D": "f32:row",
                "Operation": "cutlass_tensorop_s1688tf32gemm_128x128_16x4_tn_align4",
                "stages": 4,
            },
            "tf32",
        ),
    ],
)
def test_dtypes(write: Write, values: Row, dtype: str) -> None:
    assert one(write([row(**values, Runtime=0.5)], "out.csv"))["dtype"] == dtype


def test_a_table_kept_as_parquet_gives_the_same_rows(write: Write) -> None:
    """There, numbers are numbers."""
    rows = [row(), ampere()]
    tables = []
    for name in ("out.csv", "out.parquet"):
        imported = read_table(write(rows, name), constants=DEVICE)
        assert imported.format == "cutlass-profiler"
        tables.append(imported.table.drop_columns("agent"))
    assert tables[0].equals(tables[1])


def test_older_tables_have_neither_d_nor_clusters(write: Write) -> None:
    older = ampere()
    for name in ("D", "cluster_m", "cluster_n", "cluster_k", "swizzle_size", "raster_order"):
        del older[name]
    sample = one(write([older], "out.csv"))
    assert (sample["m"], sample["swizzle"], sample["tile_m"]) == (4096, 0, 256)


def test_cublas_beside_is_a_library_and_not_the_kernel(write: Write) -> None:
    sample = one(write([row(Provider="cuBLAS")], "out.csv"))
    assert (sample["family"], sample["kernel"], sample["tile_m"]) == ("cublas", "default", 0)


def test_a_wrong_result_is_a_row_with_its_status(write: Write) -> None:
    rows = [row(Disposition="incorrect"), row(Disposition="not_verified", m=64)]
    statuses = read_table(write(rows, "out.csv"), constants=DEVICE).table["status"]
    assert statuses.to_pylist() == ["incorrect", "ok"]


def test_what_has_no_equivalent_is_left_out_and_counted(write: Write) -> None:
    rows = [
        row(),
        row(OperationKind="conv2d"),
        row(Status="error_not_supported"),
        row(Provider="Device"),
        row(D="f32:row"),
        row(A="e5m2:row"),
        row(accum="f16"),
        row(B="bf16:nk2"),
        row(
            A="f32:row",
            B="f32:column",
            D="f32:row",
            Operation="cutlass_tensorop_s1688gemm_128x128_16x4_tn_align4",
        ),
    ]
    imported = read_table(write(rows, "out.csv"), constants=DEVICE)
    assert len(imported.table) == 1
    assert imported.skipped == {
        "OperationKind conv2d is no dense GEMM": 1,
        "Status error_not_supported": 1,
        "Provider Device has no equivalent": 1,
        "bf16:row x bf16:column to f32:row has no equivalent": 1,
        "e5m2:row x bf16:column to bf16:row has no equivalent": 1,
        "accumulated in f16": 1,
        "a layout that is neither row nor column": 1,
        "f32:row x f32:column to f32:row has no equivalent": 1,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Runtime": "0"}, "runtime_us = 0.0: must be above 0"),
        ({"Runtime": "-nan"}, "must be finite"),
        ({"m": "0"}, "m = 0: must be a whole number"),
        ({"cta_m": "-128"}, "tile_m = '-128': must not be negative"),
    ],
)
def test_a_bad_value_costs_its_row(write: Write, values: Row, message: str) -> None:
    imported = read_table(write([row(), row(**values)], "out.csv"), constants=DEVICE)
    assert len(imported.table) == 1
    (note,) = [note for note in imported.notes if "left out" in note]
    assert message in note


def test_a_table_that_can_not_be_used_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="none of its 1 rows can be used: OperationKind conv2d"):
        read_table(write([row(OperationKind="conv2d")], "out.csv"), constants=DEVICE)
    without = row()
    del without["A"]
    with pytest.raises(InputError, match="column = 'A': out.csv has no such column"):
        read_table(write([without], "out.csv"), constants=DEVICE)
    with pytest.raises(InputError, match="device = None: .*--set device=NAME"):
        read_table(write([row()], "out.csv"))
