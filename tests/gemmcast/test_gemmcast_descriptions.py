"""One description of each device, whatever rows name it and in whatever order they come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from gemmcast.config import KernelConfig
from gemmcast.descriptions import ESTIMATED, Descriptions, device_of
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.rows import known_columns
from gemmcast.sample import Sample

Row = dict[str, Any]
MakeRow = Callable[..., Row]
NAME = "GPU A"
MEASURED = {
    "peak_tflops": 100.0,
    "dram_gbps": 700.0,
    "l2_gbps": 1500.0,
    "idle_power_w": 30.0,
    "empty_kernel_us": 0.4,
    "empty_launch_us": 2.0,
    "clock_max_mhz": 500.0,
    "memory_bytes": 2**33,
    "l2_bytes": 2**24,
}
"""Descriptors, and what differs between two boards."""


@pytest.fixture
def row(gpu: Device) -> MakeRow:
    """A row of a board; fields of the device by name."""

    def make(dtype: str = "fp16", peak: float | None = 743.1, **changes: object) -> Row:
        board = replace(gpu, **{"peak_tflops": {dtype: peak} if peak else {}, **changes})
        gemm = Gemm(m=8, n=8, k=8, dtype=dtype)
        return Sample(**known_columns(gemm, KernelConfig(family="cublas"), board)).row()

    return make


@pytest.fixture
def foreign(row: MakeRow) -> MakeRow:
    """A row of a table from elsewhere: most is estimated, power is unknown."""

    def make(**changes: object) -> Row:
        unknown = {
            "uuid": ESTIMATED + NAME,
            "power_limit_w": None,
            "idle_power_w": None,
            "l2_gbps": None,
            "driver": None,
            "dram_gbps": 3600.0,
            "empty_launch_us": 3.0,
        }
        return row(**{**unknown, **changes})

    return make


def _every_order(rows: Sequence[Row]) -> list[Device]:
    """The device by each order of the rows; every order must give the same."""
    by_order = [Descriptions.of_rows(order).devices for order in itertools.permutations(rows)]
    for devices in by_order:
        assert devices == by_order[0]
    return by_order[0]


def test_a_foreign_row_displaces_no_reading(row: MakeRow, foreign: MakeRow, gpu: Device) -> None:
    (device,) = _every_order([foreign(), row(), foreign(peak=989.0)])
    assert device == replace(gpu, peak_tflops={"fp16": 743.1})


def test_a_foreign_row_adds_the_dtypes_that_no_board_was_measured_at(
    row: MakeRow, foreign: MakeRow
) -> None:
    (device,) = _every_order([foreign(dtype="bf16", peak=791.0), row()])
    assert device.peak_tflops == {"bf16": 791.0, "fp16": 743.1}


def test_the_median_of_boards_counts_each_board_once(row: MakeRow) -> None:
    fast = [row(uuid="GPU-1", dram_gbps=3000.0, peak=800.0) for _ in range(3)]
    others = [row(uuid="GPU-2", dram_gbps=2900.0, peak=740.0), row(uuid="GPU-3", dram_gbps=2950.0)]
    (device,) = _every_order([*fast, *others])
    assert (device.dram_gbps, device.peak_tflops) == (2950.0, {"fp16": 743.1})
    assert device.uuid == "GPU-1"


@pytest.mark.parametrize("seed", range(5))
def test_every_descriptor_is_the_median_of_the_boards_however_many_rows_they_have(
    row: MakeRow, seed: int
) -> None:
    """The second board has most rows; each value is unknown on one board of the five."""
    rows = []
    for board, count in enumerate((1, 50, 3, 1, 2)):
        values: dict[str, float | int | None] = {}
        for place, (name, unit) in enumerate(MEASURED.items()):
            values[name] = (board + 1) * unit if board != place % 5 else None
        rows += [{**row(uuid=f"GPU-{board}"), **values}] * count
    Random(seed).shuffle(rows)
    device = device_of(rows)
    for place, (name, unit) in enumerate(MEASURED.items()):
        known = [(board + 1) * unit for board in range(5) if board != place % 5]
        lower, upper = sorted(known)[1:3]
        is_peak = name == "peak_tflops"
        value = device.peak_tflops["fp16"] if is_peak else getattr(device, name)
        expected = lower if isinstance(unit, int) else pytest.approx((lower + upper) / 2)
        assert value == expected, name
    assert device.uuid == "GPU-1"


def test_boards_of_a_node_are_described_as_their_rows_are(row: MakeRow, gpu: Device) -> None:
    boards = [
        replace(gpu, uuid="GPU-1", dram_gbps=3000.0, peak_tflops={"fp16": 800.0}),
        replace(gpu, uuid="GPU-2", dram_gbps=2900.0, empty_kernel_us=None, peak_tflops={}),
        replace(gpu, uuid="GPU-3", dram_gbps=2950.0, empty_kernel_us=1.4, peak_tflops={}),
        replace(gpu, uuid="GPU-4", power_limit_w=500.0, peak_tflops={}),
    ]
    for order in itertools.permutations(boards):
        plain, capped = Descriptions.of_boards(order).devices
        assert (plain.name, plain.dram_gbps, plain.peak_tflops) == (NAME, 2950.0, {"fp16": 800.0})
        assert plain.empty_kernel_us == pytest.approx((gpu.empty_kernel_us + 1.4) / 2)
        assert (capped.name, capped.power_limit_w) == (f"{NAME} (500 W)", 500.0)
    assert Descriptions.of_boards([]).devices == []
    assert Descriptions.of_boards([gpu]).devices == [gpu]


def test_a_board_that_was_measured_twice_is_one_board(row: MakeRow) -> None:
    rows = [
        row(uuid="GPU-1", dram_gbps=3000.0),
        row(uuid="GPU-1", dram_gbps=3010.0),
        row(uuid="GPU-2", dram_gbps=2900.0),
    ]
    (device,) = _every_order(rows)
    assert device.dram_gbps == pytest.approx((3005.0 + 2900.0) / 2)


def test_a_null_never_displaces_a_reading(row: MakeRow) -> None:
    holes = row(uuid="GPU-2", power_limit_w=None, l2_gbps=None, idle_power_w=None, driver=None)
    (device,) = _every_order([holes, row()])
    assert (device.power_limit_w, device.l2_gbps) == (700.0, 5512.3)
    assert (device.idle_power_w, device.driver) == (71.3, "580.1")


def test_two_power_limits_are_two_devices(row: MakeRow, foreign: MakeRow) -> None:
    capped = row(power_limit_w=500.0, peak=600.0)
    plain, lower = _every_order([capped, row(), foreign()])
    assert (plain.name, plain.power_limit_w, plain.peak_tflops["fp16"]) == (NAME, 700.0, 743.1)
    assert (lower.name, lower.power_limit_w) == (f"{NAME} (500 W)", 500.0)
    assert lower.peak_tflops["fp16"] == 600.0
    assert plain.uuid != lower.uuid


def test_a_slice_is_another_device(row: MakeRow) -> None:
    part = row(uuid="MIG-1", mig=True, compute_units=16, dram_gbps=300.0, power_limit_w=None)
    plain, slice_ = _every_order([part, row()])
    assert (plain.name, plain.dram_gbps, plain.mig) == (NAME, 2987.6, False)
    assert slice_.name == f"{NAME} (MIG, 16 units, limit unknown)"
    assert (slice_.dram_gbps, slice_.compute_units, slice_.mig) == (300.0, 16, True)


def test_a_slice_of_ours_does_not_describe_the_whole_devices_of_others(
    row: MakeRow, foreign: MakeRow
) -> None:
    part = row(uuid="MIG-1", mig=True, compute_units=16, dram_gbps=300.0, power_limit_w=None)
    plain, slice_ = _every_order([part, foreign()])
    assert (plain.name, plain.compute_units, plain.dram_gbps) == (NAME, 132, 3600.0)
    assert (slice_.name, slice_.dram_gbps) == (f"{NAME} (MIG, 16 units)", 300.0)


def test_two_drivers_are_one_device_and_most_rows_name_it(row: MakeRow) -> None:
    rows = [row(driver="570"), row(driver="580"), row(driver="580")]
    (device,) = _every_order(rows)
    assert device.driver == "580"


def test_an_imported_table_with_a_limit_of_its_own_is_another_device(
    row: MakeRow, foreign: MakeRow
) -> None:
    """What it does not say is known of our boards."""
    plain, lower = _every_order([foreign(power_limit_w=350.0), row()])
    assert (plain.name, plain.power_limit_w) == (NAME, 700.0)
    assert (lower.name, lower.uuid) == (f"{NAME} (350 W)", f"{ESTIMATED}{NAME} (350 W)")
    assert (lower.power_limit_w, lower.dram_gbps, lower.idle_power_w) == (350.0, 2987.6, 71.3)


def test_the_parts_of_an_imported_table_are_one_device(foreign: MakeRow) -> None:
    parts = [
        foreign(peak=791.0, power_limit_w=None),
        foreign(peak=850.0, power_limit_w=700.0, empty_launch_us=2.1),
        foreign(peak=800.0, power_limit_w=700.0, dram_gbps=2600.0, empty_launch_us=6.3),
    ]
    (device,) = _every_order(parts)
    assert (device.name, device.power_limit_w) == (NAME, 700.0)
    assert (device.peak_tflops["fp16"], device.dram_gbps) == (850.0, 3600.0)
    assert device.empty_launch_us == 2.1


def test_devices_come_by_name_the_plain_one_first(row: MakeRow) -> None:
    rows = [row(name="GPU B"), row(power_limit_w=300.0), row()]
    names = [device.name for device in Descriptions.of_rows(rows).devices]
    assert names == [NAME, f"{NAME} (300 W)", "GPU B"]
    assert device_of(rows[1:]).power_limit_w == 700.0


def test_a_device_that_nobody_described_has_no_numbers(row: MakeRow) -> None:
    unknown = row(peak=None, power_limit_w=None, dram_gbps=0.0, compute_units=0)
    device = device_of([unknown])
    assert (device.dram_gbps, device.compute_units, device.peak_tflops) == (0.0, 0, {})
    assert device.power_limit_w is None
