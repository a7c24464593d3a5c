"""What a model may be asked, in words: ranges, layouts and kernels of its training rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest

from costmodel.dataset import training_set
from costmodel.scope import scope
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

SMALL = Gemm(m=1, n=16, k=32, dtype="fp32", layout="nn")
LARGE = Gemm(m=4096, n=8192, k=512, dtype="fp16", layout="tn", batch=3, beta=1.0)


@pytest.fixture
def table(measure: Callable[..., Row], gpu: Device) -> pa.Table:
    """Five rows of one device, one of them failed, and one of another device."""
    tiled = KernelConfig(family="tiled", tile_m=16, tile_n=16, tile_k=16)
    flat = KernelConfig(family="tiled", tile_m=8, tile_n=32, tile_k=4)
    chosen = KernelConfig(family="cublas", algo_id=66)
    listed = KernelConfig(family="cutlass", kernel="simt_a", tile_m=64)
    asked = [(SMALL, tiled), (SMALL, flat), (LARGE, chosen), (LARGE, listed)]
    rows = []
    for gemm, config in asked:
        rows.append(measure(Cell(gemm=gemm, config=config, device_key=gpu.name), gpu))
    warm = Cell(gemm=SMALL, config=chosen, device_key=gpu.name, cache="warm")
    rows.append(measure(warm, gpu))
    beyond = Cell(gemm=replace(SMALL, m=9999), config=tiled, device_key=gpu.name)
    rows.append(measure(beyond, gpu, status="timeout"))
    other = replace(gpu, name="Another GPU", uuid="GPU-other")
    rows.append(measure(Cell(gemm=SMALL, config=tiled, device_key=other.name), other))
    return to_table(rows)


def test_each_family_of_each_device_has_its_own(table: pa.Table, gpu: Device) -> None:
    by_device = scope(training_set(table))
    families = {device: list(by_family) for device, by_family in by_device.items()}
    assert families == {"Another GPU": ["tiled"], gpu.name: ["cublas", "cutlass", "tiled"]}
    assert by_device[gpu.name]["cublas"] == {
        "rows": 2,
        "layouts": {"fp16": ["tn"], "fp32": ["nn"]},
        "m": [1, 4096],
        "n": [16, 8192],
        "k": [32, 512],
        "batch": [1, 3],
        "beta": [0.0, 1.0],
        "cache": ["cold", "warm"],
        "kernels": ["algo_id=66"],
    }


def test_kernels_are_named_as_a_configuration_names_them(table: pa.Table, gpu: Device) -> None:
    families = scope(training_set(table))[gpu.name]
    assert families["cutlass"]["kernels"] == ["simt_a"]
    tiles = ["tile=16", "tile_m=8,tile_n=32,tile_k=4"]
    assert families["tiled"]["kernels"] == tiles
    for tile in tiles:
        assert KernelConfig.parse(f"tiled:{tile}").tile_m
