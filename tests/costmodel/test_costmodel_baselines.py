"""The opponents, each on a case that can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from costmodel.dataset import Dataset, dataset
from costmodel.evaluate.baselines import BASELINES, lookup, paper_forest, roofline
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm

Measure = Callable[..., dict[str, Any]]
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def row(measure: Measure, cpu: Device, gpu: Device) -> Make:
    """A sample of a cube, or of m, n, k."""

    def make(size: int | tuple[int, int, int], runtime_us: float, *, family: str = "blas", **options: Any) -> dict[str, Any]:
        m, n, k = (size, size, size) if isinstance(size, int) else size
        knobs = {name: options.pop(name) for name in ("cpu_threads", "tile_m", "kernel") if name in options}
        config = KernelConfig(**{"family": family, **({"cpu_threads": 1} if family == "blas" else {}), **knobs})
        cell = Cell(gemm=Gemm(m=m, n=n, k=k, dtype=options.pop("dtype", "fp32")), config=config, device_key="x")
        return measure(cell, cpu if family == "blas" else gpu, runtime_us=runtime_us, **options)

    return make


def _data(*rows: dict[str, Any]) -> Dataset:
    return dataset(to_table(list(rows)))


def test_all_three_are_always_in_the_table() -> None:
    assert list(BASELINES.items()) == [("lookup", lookup), ("roofline", roofline), ("paper_forest", paper_forest)]


def test_lookup_takes_the_nearest_shape_of_the_same_configuration(row: Make) -> None:
    train = _data(row(64, 10.0), row(1024, 1000.0), row(64, 6.0, cpu_threads=2), row((64, 64, 4096), 77.0))
    asked = [
        (row(100, 1.0), 10.0),
        (row(200, 1.0), 10.0),  # nearer in logarithms, though not in numbers
        (row(300, 1.0), 1000.0),
        (row((64, 64, 2000), 1.0), 77.0),
        (row(700, 1.0, cpu_threads=2), 6.0),  # the only one of its configuration
        (row(700, 1.0, cpu_threads=4), 1000.0),  # never measured: any configuration
        (row(700, 1.0, cpu_threads=4, tile_m=8), 1000.0),
    ]
    assert lookup(train, _data(*(one for one, _ in asked)), "runtime_us").tolist() == [value for _, value in asked]


def test_lookup_takes_a_librarys_own_choice_for_one_configuration_whatever_it_chose(row: Make) -> None:
    """Else a library's next shape would have to have the same kernel, and the opponent would be a weak one."""
    train = _data(row(64, 10.0, family="cublas", tile_m=32), row(1024, 1000.0, family="cublas", tile_m=128), row(256, 70.0, family="cublas"))
    assert lookup(train, _data(row(100, 1.0, family="cublas", tile_m=128), row(100, 1.0, family="cublas")), "runtime_us").tolist() == [10.0, 10.0]


def test_lookup_takes_the_same_configuration_of_another_device_before_any(row: Make) -> None:
    train = _data(row(64, 10.0), row(1024, 1000.0), row(600, 6.0, cpu_threads=2))
    here, elsewhere = row(700, 1.0), {**row(700, 1.0), "device": "another"}
    assert lookup(train, _data(here, elsewhere), "runtime_us").tolist() == [1000.0, 1000.0]
    both = _data(row(64, 10.0), {**row(1024, 1000.0), "device": "another"}, row(600, 6.0, cpu_threads=2))
    assert lookup(both, _data(here, elsewhere), "runtime_us").tolist() == [10.0, 1000.0]


def test_lookup_ignores_rows_where_the_target_was_not_read(row: Make) -> None:
    train = _data(row(64, 10.0, family="cublas", power_w=111.0), row(128, 10.0, family="cublas"))
    assert lookup(train, _data(row(128, 10.0, family="cublas")), "power_w").tolist() == [111.0]


def _floor_us(size: int, device: Device) -> float:
    return max(2 * size**3 / (device.peak_tflops["fp32"] * 1e6), 3 * size**2 * 4 / (device.dram_gbps * 1e3))


def test_roofline_learns_one_factor_a_family(row: Make, gpu: Device) -> None:
    sizes = (128, 512, 2048)
    train = _data(
        *(row(size, 3 * _floor_us(size, gpu), family="tiled", tile_m=16) for size in sizes),
        *(row(size, 1.5 * _floor_us(size, gpu), family="cublas") for size in sizes),
    )
    test = _data(row(64, 1.0, family="tiled", tile_m=8), row(4096, 1.0, family="cublas"), row(4096, 1.0, family="cublaslt"))
    overall = np.sqrt(3 * 1.5)  # the median of equally many of both, in logarithms
    want = [3 * _floor_us(64, gpu), 1.5 * _floor_us(4096, gpu), overall * _floor_us(4096, gpu)]
    np.testing.assert_allclose(roofline(train, test, "runtime_us"), want, rtol=1e-5)


def test_roofline_sees_both_sides_of_the_ridge(gpu: Device) -> None:
    assert _floor_us(64, gpu) == 3 * 64**2 * 4 / (2900 * 1e3)  # bytes
    assert _floor_us(4096, gpu) == 2 * 4096**3 / (50 * 1e6)  # flops


def test_roofline_of_power_energy_and_throughput(row: Make, gpu: Device) -> None:
    size, runtime_us = 2048, _floor_us(2048, gpu)
    train = _data(row(size, 2 * runtime_us, family="cublas", power_w=350.0, energy_mj=0.7 * runtime_us, sustained_runtime_us=2 * runtime_us))
    test = _data(row(1024, 1.0, family="cublas", power_w=1.0, energy_mj=1.0, sustained_runtime_us=1.0))
    found = {target: float(roofline(train, test, target)[0]) for target in ("power_w", "energy_mj", "tflops", "sustained_runtime_us")}
    want = {"power_w": 350.0, "energy_mj": 0.7 * _floor_us(1024, gpu), "tflops": 25.0, "sustained_runtime_us": 2 * _floor_us(1024, gpu)}
    assert found == pytest.approx(want, rel=1e-5)


def test_the_forest_is_the_papers(row: Make) -> None:
    rng = np.random.default_rng(0)
    shapes = [tuple(int(size) for size in rng.integers(16, 2000, 3)) for _ in range(40)]
    tiles = [8, 16, 32]
    rows = [row(shape, float(i + 1), family="tiled", tile_m=tiles[i % 3]) for i, shape in enumerate(shapes)]
    train, test = _data(*rows[:30]), _data(*rows[30:])

    def by_hand(start: int, end: int) -> list[list[float]]:
        found = []
        for i in range(start, end):
            m, n, k = shapes[i]
            flops, moved = 2 * m * n * k, 4 * (m * k + k * n + m * n)
            found.append([m, n, k, tiles[i % 3], n, k, flops / moved, moved, flops])  # a tile that is not given is the whole dimension
        return found

    forest = RandomForestRegressor(n_estimators=100, max_depth=6, random_state=0).fit(by_hand(0, 30), [float(i + 1) for i in range(30)])
    np.testing.assert_allclose(paper_forest(train, test, "runtime_us"), forest.predict(by_hand(30, 40)))
