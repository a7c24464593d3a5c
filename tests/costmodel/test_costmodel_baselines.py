"""The baselines, each on a case that can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.baselines import BASELINES, lookup, paper_forest, roofline
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

Measure = Callable[..., Row]
Make = Callable[..., Row]


@pytest.fixture
def row(measure: Measure, cpu: Device, gpu: Device) -> Make:
    """A sample of a cube, or of m, n, k."""

    def make(
        size: int | tuple[int, int, int],
        runtime_us: float,
        *,
        family: str = "blas",
        dtype: str = "fp32",
        cpu_threads: int = 1,
        tile_m: int = 0,
        **columns: object,
    ) -> Row:
        m, n, k = (size, size, size) if isinstance(size, int) else size
        on_cpu = family == "blas"
        config = KernelConfig(
            family=family,
            cpu_threads=cpu_threads if on_cpu else 0,
            tile_m=tile_m,
        )
        gemm = Gemm(m=m, n=n, k=k, dtype=dtype)
        cell = Cell(gemm=gemm, config=config, device_key="x")
        return measure(cell, cpu if on_cpu else gpu, runtime_us=runtime_us, **columns)

    return make


def _data(*rows: Row) -> TrainingSet:
    return training_set(to_table(list(rows)))


def _lookup_us(training: TrainingSet, *rows: Row) -> list[float]:
    return lookup(training, _data(*rows), "runtime_us").tolist()


def test_all_three_are_always_in_the_table() -> None:
    assert list(BASELINES.items()) == [
        ("lookup", lookup),
        ("roofline", roofline),
        ("paper_forest", paper_forest),
    ]


def test_lookup_takes_the_nearest_shape_of_the_same_configuration(row: Make) -> None:
    training = _data(
        row(64, 10.0),
        row(1024, 1000.0),
        row(64, 6.0, cpu_threads=2),
        row((64, 64, 4096), 77.0),
    )
    assert _lookup_us(training, row(100, 1.0)) == [10.0]

    # nearer in logarithms, though not in numbers
    assert _lookup_us(training, row(200, 1.0)) == [10.0]
    assert _lookup_us(training, row(300, 1.0)) == [1000.0]
    assert _lookup_us(training, row((64, 64, 2000), 1.0)) == [77.0]

    # the only one of its configuration
    assert _lookup_us(training, row(700, 1.0, cpu_threads=2)) == [6.0]

    # never measured: any configuration
    assert _lookup_us(training, row(700, 1.0, cpu_threads=4)) == [1000.0]
    assert _lookup_us(training, row(700, 1.0, cpu_threads=4, tile_m=8)) == [1000.0]


def test_lookup_predicts_many_rows_at_once(row: Make) -> None:
    training = _data(row(64, 10.0), row(1024, 1000.0), row(64, 6.0, cpu_threads=2))
    tests = [row(100, 1.0), row(300, 1.0), row(100, 1.0), row(700, 1.0, cpu_threads=2)]
    assert _lookup_us(training, *tests) == [10.0, 1000.0, 10.0, 6.0]


def test_lookup_takes_a_librarys_own_choice_for_one_configuration(row: Make) -> None:
    """Otherwise the nearest shape would need the same kernel, and the baseline would be weak."""
    training = _data(
        row(64, 10.0, family="cublas", tile_m=32),
        row(1024, 1000.0, family="cublas", tile_m=128),
        row(256, 70.0, family="cublas"),
    )
    with_tile = row(100, 1.0, family="cublas", tile_m=128)
    without = row(100, 1.0, family="cublas")
    assert _lookup_us(training, with_tile, without) == [10.0, 10.0]


def test_lookup_takes_the_same_configuration_of_another_device_before_any(row: Make) -> None:
    here = row(700, 1.0)
    elsewhere = {**row(700, 1.0), "device": "another"}
    training = _data(row(64, 10.0), row(1024, 1000.0), row(600, 6.0, cpu_threads=2))
    assert _lookup_us(training, here, elsewhere) == [1000.0, 1000.0]
    both = _data(
        row(64, 10.0),
        {**row(1024, 1000.0), "device": "another"},
        row(600, 6.0, cpu_threads=2),
    )
    assert _lookup_us(both, here, elsewhere) == [10.0, 1000.0]


def test_lookup_ignores_rows_where_the_target_was_not_measured(row: Make) -> None:
    training = _data(
        row(64, 10.0, family="cublas", power_w=111.0),
        row(128, 10.0, family="cublas"),
    )
    test = _data(row(128, 10.0, family="cublas"))
    assert lookup(training, test, "power_w").tolist() == [111.0]


def _floor_us(size: int, device: Device) -> float:
    compute_us = 2 * size**3 / (device.peak_tflops["fp32"] * 1e6)
    bytes_us = 3 * size**2 * 4 / (device.dram_gbps * 1e3)
    return max(compute_us, bytes_us)


def test_roofline_has_one_factor_a_family(row: Make, gpu: Device) -> None:
    rows: list[Row] = []
    for size in (128, 512, 2048):
        floor_us = _floor_us(size, gpu)
        rows.append(row(size, 3 * floor_us, family="tiled", tile_m=16))
        rows.append(row(size, 1.5 * floor_us, family="cublas"))
    test = _data(
        row(64, 1.0, family="tiled", tile_m=8),
        row(4096, 1.0, family="cublas"),
        row(4096, 1.0, family="cublaslt"),
    )

    # the median of equally many of both, in logarithms
    overall = np.sqrt(3 * 1.5)
    expected = [
        3 * _floor_us(64, gpu),
        1.5 * _floor_us(4096, gpu),
        overall * _floor_us(4096, gpu),
    ]
    predicted = roofline(_data(*rows), test, "runtime_us")
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)


def test_roofline_covers_both_sides_of_the_ridge(gpu: Device) -> None:
    bytes_us = 3 * 64**2 * 4 / (2900 * 1e3)
    compute_us = 2 * 4096**3 / (50 * 1e6)
    assert _floor_us(64, gpu) == bytes_us
    assert _floor_us(4096, gpu) == compute_us


def test_roofline_of_power_energy_and_throughput(row: Make, gpu: Device) -> None:
    floor_us = _floor_us(2048, gpu)
    training = _data(
        row(
            2048,
            2 * floor_us,
            family="cublas",
            power_w=350.0,
            energy_mj=0.7 * floor_us,
            sustained_runtime_us=2 * floor_us,
        )
    )
    test = _data(
        row(
            1024,
            1.0,
            family="cublas",
            power_w=1.0,
            energy_mj=1.0,
            sustained_runtime_us=1.0,
        )
    )
    expected = {
        "power_w": 350.0,
        "energy_mj": 0.7 * _floor_us(1024, gpu),
        "tflops": 25.0,
        "sustained_runtime_us": 2 * _floor_us(1024, gpu),
    }
    predicted = {target: float(roofline(training, test, target)[0]) for target in expected}
    assert predicted == pytest.approx(expected, rel=1e-5)


def test_the_forest_is_the_papers(row: Make) -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    features: list[list[float]] = []
    runtimes_us: list[float] = []
    for i in range(40):
        m, n, k = (int(size) for size in rng.integers(16, 2000, 3))
        tile = (8, 16, 32)[i % 3]
        runtimes_us.append(i + 1.0)
        rows.append(row((m, n, k), i + 1.0, family="tiled", tile_m=tile))
        flops = 2 * m * n * k
        moved = 4 * (m * k + k * n + m * n)

        # a tile that is not given is the whole dimension
        features.append([m, n, k, tile, n, k, flops / moved, moved, flops])
    forest = RandomForestRegressor(n_estimators=100, max_depth=6, random_state=0)
    forest.fit(features[:30], runtimes_us[:30])
    predicted = paper_forest(_data(*rows[:30]), _data(*rows[30:]), "runtime_us")
    np.testing.assert_allclose(predicted, forest.predict(features[30:]))
