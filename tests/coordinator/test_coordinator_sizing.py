"""How large a plan is: on known devices, on several, and where nothing can be measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_fleet import FakeAgent, FakeFleet, Measure, make_scheduler

from coordinator.plan.known_devices import known_device, known_devices
from coordinator.plan.schema import Plan, parse_plan
from coordinator.plan.sizing import measurable, size_of
from coordinator.samples.activity import last_minute
from coordinator.samples.describing import measured_devices
from coordinator.samples.store import SampleStore
from gemmcast.arrow import read_samples
from gemmcast.descriptions import COLUMNS
from gemmcast.device import Device
from gemmcast.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
MEDIANS = ("dram_gbps", "idle_power_w", "l2_gbps", "peak_tflops")
EQUAL = (
    "name",
    "kind",
    "arch",
    "compute_units",
    "memory_bytes",
    "l2_bytes",
    "clock_max_mhz",
    "power_limit_w",
)
CUDA = """
name = "gpu"
[[sweep]]
family = "cutlass"
kernel_set = "default"
dtypes = ["fp16"]
shapes = { sample = 10, max = 4096, multiple = 8 }
power_share = 0.5
"""


def test_a_known_device_is_named_by_words() -> None:
    assert known_device("h100").name == "NVIDIA H100 80GB HBM3"
    assert known_device("nvidia H200").name == "NVIDIA H200"
    assert known_device("H100_SXM").name == "NVIDIA H100 80GB HBM3"
    candidates = "name one of: NVIDIA H100 80GB HBM3, NVIDIA H200; or name a JSON file"
    with pytest.raises(InputError, match=candidates):
        known_device("h900")


def test_known_devices_are_the_recorded_ones() -> None:
    """Medians over the boards of each recording, of which a few measured most of the rows."""
    for device, name in zip(known_devices(), ("h100_sxm", "h200_sxm"), strict=True):
        rows = read_samples(ROOT / "datasets" / f"{name}.parquet", COLUMNS)
        (recorded,) = measured_devices(rows)
        for field in EQUAL:
            assert getattr(device, field) == getattr(recorded, field), field
        for field in MEDIANS:
            assert getattr(device, field) == pytest.approx(getattr(recorded, field), rel=0.003), (
                field
            )


def test_a_file_describes_any_device(tmp_path: Path, gpu: Device) -> None:
    path = tmp_path / "device.json"
    path.write_text(gpu.to_json())
    assert known_device(str(path)) == gpu


def test_equal_devices_divide_a_plan(make_plan: Callable[..., Plan], gpu: Device) -> None:
    plan = make_plan(family="cublas", devices={"second_board": 0})
    one, four = size_of(plan, gpu), size_of(plan, gpu, 4)
    assert (one.cells, four.cells) == (20, 20)
    assert four.estimated_minutes == pytest.approx(one.estimated_minutes / 4)
    twice = make_plan(family="cublas", devices={"second_board": 1})
    alone, beside = size_of(twice, gpu), size_of(twice, gpu, 4)
    assert (alone.cells_on_two_devices, beside.cells_on_two_devices) == (0, 20)
    assert alone.estimated_minutes == pytest.approx(one.estimated_minutes)
    assert beside.estimated_minutes == pytest.approx(one.estimated_minutes / 2)
    every = make_plan(family="cublas", devices={"replicate": "per_gpu"})
    assert size_of(every, gpu, 4).estimated_minutes == pytest.approx(one.estimated_minutes)


def test_a_plan_of_which_nothing_can_be_measured_is_refused(cpu: Device) -> None:
    plan = parse_plan({"name": "p", "sweep": [{"family": "cublas", "shapes": {"sample": 7}}]})
    rule = (
        r"can measure none of its cells \(7 cells: family cublas needs a cuda device; this is cpu"
    )
    with pytest.raises(InputError, match=rule):
        measurable(plan, cpu)


def test_plan_is_sized_for_a_gpu_on_a_head_without_one(
    coordinator: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(CUDA)
    ended = coordinator("plan", path, "--device", "h100", "--json")
    values = json.loads(ended.stdout)
    assert values["device"] == "NVIDIA H100 80GB HBM3"
    assert values["cells"] > 100 and values["refused"] == {}
    assert 0 < values["cells_with_power"] < values["cells"]
    path.write_text(CUDA.replace("[[sweep]]", 'devices = { kind = "cpu" }\n[[sweep]]'))
    ended = coordinator("plan", path)
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1].startswith("size it for other devices with --device h100")


def test_the_rate_of_a_store_is_that_of_its_last_minute() -> None:
    old = [f"2026-01-01T11:00:{second:02}.000+00:00" for second in range(60)]
    new = [f"2026-01-01T12:00:{second:02}.000+00:00" for second in range(0, 60, 2)]
    agents = [*(60 * ["a"]), *(15 * ["b"]), *(15 * ["c"]), None]
    assert last_minute([*old, *new, None], agents) == (pytest.approx(0.5), 2)
    assert last_minute([], []) == (None, 0)


def test_a_fleet_that_can_measure_nothing_ends_the_run_with_the_reasons(
    tmp_path: Path, measure: Measure, cpu: Device, make_plan: Callable[..., Plan]
) -> None:
    store = SampleStore.open(tmp_path / "samples", create=True)
    fleet = FakeFleet(measure, {"node0/cpu": FakeAgent(cpu)})
    scheduler = make_scheduler(make_plan(family="cublas"), store, fleet)
    with pytest.raises(InputError, match="the fleet can measure none of its cells .20 cells: "):
        scheduler.run(stop=lambda: False)
    assert store.counts() == {}
