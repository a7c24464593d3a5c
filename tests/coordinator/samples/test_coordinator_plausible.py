"""What a row may claim of its board: units, other boards' values, and contradictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.samples.importer import read_table
from gemmcast.arrow import read_samples
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.rows import Row

DATASETS = Path(__file__).parents[3] / "datasets"
Write = Callable[..., Path]
MakeRow = Callable[..., Row]
CUBE = {"m": 4096, "n": 4096, "k": 4096}
TINY = {"m": 2, "n": 8, "k": 8}
H100_FP16_TFLOPS = 989.4
CUBE_FLOPS = 2 * 4096**3


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({**CUBE, "runtime_us": 0.2}, "4096x4096x4096 fp16 nn at 687,195 TFLOP/s, .* says 989"),
        ({**TINY, "runtime_us": 0.00725}, "no kernel of a GPU takes less than 0.5 us"),
        ({**TINY, "runtime_us": 7.25, "sustained_runtime_us": 0.2}, "no kernel of a GPU .*"),
        ({"m": 1, "n": 65536, "k": 8192, "runtime_us": 60.0}, "at 17,0.* GB/s, .* says 3,352"),
        ({"power_w": 350_000.0}, "its power limit says 700 W"),
        ({"power_limit_w": 200.0, "power_w": 300.0}, "its power limit says 200 W"),
        ({"power_limit_w": 700_000.0}, "its datasheet says 700 W"),
        ({"dram_gbps": 3.0e12}, "its datasheet says 3352 GB/s"),
        ({"peak_tflops": 9.0e14}, "its datasheet says 989.4 TFLOP/s"),
        (
            {"power_w": 400.0, "sustained_runtime_us": 10.0, "energy_mj": 4.3},
            "power x time is 4 mJ",
        ),
        ({"power_w": 400.0, "energy_mj": 0.0029}, "power x time is 2.9 mJ"),
    ],
)
def test_what_the_board_cannot_do_is_refused_with_row_and_value(
    write: Write, own_row: MakeRow, values: Row, rule: str
) -> None:
    empty = {name: "" for name in values if name not in own_row()}
    good = {**own_row(), **empty}
    bad = {**good, **values}
    column = list(values)[-1]
    imported = read_table(write([good, {**good, "m": 8}, bad], "units.csv"))
    assert imported.table["m"].to_pylist() == [1024, 8]
    assert imported.skipped == {f"{column}: is the unit right?": 1}
    (note,) = [note for note in imported.notes if "left out" in note]
    assert note.startswith(f"row 3 left out: {column} = {float(values[column])}: ")
    with pytest.raises(InputError, match=f"^{column} = .*: one.csv, row 1: .*{rule}; is the unit"):
        read_table(write([bad], "one.csv"))


@pytest.mark.parametrize(
    "values",
    [
        {"power_w": 700.0, "power_limit_w": 700.0},
        {"power_w": 400.0, "sustained_runtime_us": 10.0, "energy_mj": 4.1},
        {"power_w": 400.0, "energy_mj": 5.0},
        {"occupancy": 1.0},
        # four times the memory's bandwidth, but out of the L2
        {"m": 1024, "n": 1024, "k": 8192, "runtime_us": 20.0},
    ],
)
def test_what_a_board_can_do_is_taken(write: Write, own_row: MakeRow, values: Row) -> None:
    assert read_table(write([{**own_row(), **values}], "good.csv")).skipped == {}


def test_the_bound_is_1_3_times_the_datasheet(write: Write, own_row: MakeRow) -> None:
    at_peak_us = CUBE_FLOPS / (H100_FP16_TFLOPS * 1e6)
    for factor, count in ((1.29, 0), (1.31, 1)):
        row = {**own_row(), **CUBE, "runtime_us": at_peak_us / factor}
        imported = read_table(write([own_row(), own_row(m=8), row], "bound.csv"))
        assert sum(imported.skipped.values()) == count


def test_a_dtype_without_a_datasheet_is_bounded_by_the_fastest(
    write: Write, own_row: MakeRow
) -> None:
    row = {**own_row(dtype="fp8_e4m3", family="cutlass", device="Tesla V100-SXM2-32GB"), **CUBE}
    with pytest.raises(InputError, match="at 274,878 TFLOP/s, its datasheet says 125; is the unit"):
        read_table(write([{**row, "runtime_us": 0.5}], "volta.csv"))


def test_an_unknown_board_is_bounded_by_its_description(
    write: Write, own_row: MakeRow, gpu: Device
) -> None:
    row = {**own_row(device=gpu.name), **CUBE, "runtime_us": 160.0}
    with pytest.raises(
        InputError, match="at 859 TFLOP/s, its description says 640; is the unit right?"
    ):
        read_table(write([row], "paper.csv"), device=gpu)


def test_a_file_of_which_most_rows_are_in_another_unit_is_refused(
    write: Write, own_row: MakeRow
) -> None:
    in_ms = [own_row(m=m, n=8, k=8, runtime_us=0.00725) for m in (8, 16, 32)]
    message = "^runtime_us = 0.00725: ms.csv, row 1 and 2 more of 5: .*; is the unit right?"
    with pytest.raises(InputError, match=message):
        read_table(write([*in_ms, own_row(), own_row(m=2)], "ms.csv"))
    assert len(read_table(write([*in_ms[:2], own_row(), own_row(m=2)], "half.csv")).table) == 2


def test_a_latency_in_seconds_is_refused(write: Write, aic_row: MakeRow) -> None:
    """AIConfigurator's are in milliseconds."""
    row = aic_row(4096, 4096, 4096, latency=0.0002)
    with pytest.raises(InputError, match="^runtime_us = 0.2: gemm.csv, row 1: .*is the unit right"):
        read_table(write([row], "gemm.csv"))


def test_a_cpu_is_not_held_to_its_measured_peak(
    write: Write, own_row: MakeRow, cpu: Device
) -> None:
    """Other processes may have run beside the measurement of the peak."""
    row = own_row(family="blas", dtype="fp32", runtime_us=200.0, device=cpu.name)
    assert len(read_table(write([row], "cpu.csv"), device=cpu).table) == 1
    on_gpu = own_row(family="cublas", device=cpu.name)
    message = "^family = 'cublas': gpu.csv, row 1: this family runs on cuda, .* is of kind cpu"
    with pytest.raises(InputError, match=message):
        read_table(write([on_gpu], "gpu.csv"), device=cpu)


@pytest.mark.parametrize("name", ["h100_sxm_again", "h200_sxm_again"])
def test_rows_that_were_measured_here_are_plausible(name: str) -> None:
    path = DATASETS / f"{name}.parquet"
    imported = read_table(path)
    assert imported.skipped == {}
    assert imported.table.equals(read_samples(path))
