"""No time below the device's, no power beyond idle and limit, and intervals that hold the value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from costmodel.bounds import HIGHEST_POWER, LEAST_SPEED, Bounds, Limits
from costmodel.categories import Categories
from costmodel.dataset import training_set
from costmodel.outputs import compose, shortest_us
from costmodel.terms import terms
from gemmcast.arrow import read_samples
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.query import OUTPUTS, Query, Rows, encode

DATASETS = Path(__file__).parents[2] / "datasets"
CUBLAS = KernelConfig(family="cublas")
KEPT = 50 * 2**20
"""Bytes of the L2 cache of the GPU on paper."""


def _row(gemm: Gemm, device: Device, cache: str = "cold") -> Rows:
    query: Query = encode(gemm, CUBLAS, device, cache=cache)
    return np.array([query], dtype=np.float32)


def _limits(
    queries: Rows, us: npt.NDArray[np.float64] | None = None, limit_w: float | None = None
) -> Limits:
    """Of rows that were measured at `us`; None: so slowly that no bound is loosened."""
    categories = Categories.of(queries)
    one_hot = categories.one_hot(queries)
    known = terms(queries)
    measured_us = np.full(len(queries), 1e9) if us is None else us
    bounds = Bounds.of(known.least_us, categories, one_hot, measured_us)
    limits_w = known.power_limit_w if limit_w is None else np.full((len(queries), 1), limit_w)
    return bounds.limits(known, limits_w, one_hot)


def _shortest_us(gemm: Gemm, device: Device, cache: str = "cold") -> float:
    return float(_limits(_row(gemm, device, cache)).shortest_us[0, 0])


def test_the_shortest_time_by_hand(gpu: Device) -> None:
    large = Gemm(m=8192, n=8192, k=8192, dtype="bf16")
    assert _shortest_us(large, gpu) == pytest.approx(2 * 8192**3 / 660e6 / LEAST_SPEED)
    thin = Gemm(m=1, n=4096, k=4096, dtype="bf16")
    moved = 2 * (4096 + 4096 * 4096 + 4096)
    assert _shortest_us(thin, gpu) == pytest.approx(moved / 2900e3 / LEAST_SPEED)
    batched = replace(thin, batch=10, beta=1.0)
    assert _shortest_us(batched, gpu) == pytest.approx(
        10 * (moved + 2 * 4096) / 2900e3 / LEAST_SPEED
    )


def test_warm_operands_come_from_the_cache_as_far_as_they_fit(gpu: Device) -> None:
    """L2 has 6,000 GB/s, or an unknown bandwidth."""
    with_l2 = replace(gpu, l2_gbps=6000.0)
    small, large = (Gemm(m=1, n=4096, k=k, dtype="bf16") for k in (4096, 40960))
    assert _shortest_us(small, with_l2, "warm") == pytest.approx(
        small.operand_bytes / 6000e3 / LEAST_SPEED
    )
    assert _shortest_us(large, with_l2, "warm") == pytest.approx(
        (large.operand_bytes - KEPT) / 2900e3 / LEAST_SPEED
    )
    # Nothing but the memory is known, and nothing comes from there: the multiply-adds remain
    assert _shortest_us(small, gpu, "warm") == pytest.approx(small.flops / 660e6 / LEAST_SPEED)


def test_a_faster_training_row_loosens_the_bound_of_its_arithmetic_alone(gpu: Device) -> None:
    gemms = [Gemm(m=8192, n=8192, k=8192, dtype=dtype) for dtype in ("bf16", "bf16", "fp16")]
    queries = np.concatenate([_row(gemm, gpu) for gemm in gemms])
    at_peak_us = np.array([gemm.flops / (gpu.peak_tflops[gemm.dtype] * 1e6) for gemm in gemms])
    fastest = at_peak_us / [1.0, 1.2, 1.0]
    allowed = at_peak_us / [1.2, 1.2, LEAST_SPEED]
    np.testing.assert_allclose(_limits(queries, fastest).shortest_us[:, 0], allowed, rtol=1e-6)


@pytest.mark.parametrize("name", ["h100_demo", "h100_sxm_again", "h200_holes", "h200_sxm"])
def test_measured_rows_keep_the_bounds(name: str) -> None:
    """Below 0.3 % of the rows are faster than LEAST_SPEED allows; they loosen it for their kind."""
    data = training_set(read_samples(DATASETS / f"{name}.parquet"))
    us = shortest_us(data.measured)
    is_faster = us < terms(data.queries).least_us.max(axis=1) / LEAST_SPEED
    assert is_faster.mean() < 0.003
    learned = _limits(data.queries, us)
    assert (us >= learned.shortest_us[:, 0] * (1 - 1e-6)).all()
    power_w = data.measured["power_w"]
    has_power = ~np.isnan(power_w)
    assert (power_w >= learned.lowest_w[:, 0])[has_power].all()
    assert (power_w <= learned.highest_w[:, 0])[has_power].all()


@pytest.mark.parametrize("error", [1e-3, 1.0, 1e3])
def test_no_output_is_beyond_whatever_was_predicted(gpu: Device, error: float) -> None:
    queries = _row(Gemm(m=4096, n=4096, k=4096, dtype="bf16"), gpu)
    known = terms(queries)
    limits = _limits(queries)
    corrections = {name: np.array([[error]]) for name in ("runtime", "sustained", "power")}
    out = compose(known.floor_us, known.power_limit_w, limits, corrections)
    shortest = limits.shortest_us
    assert out["runtime_us"] >= shortest
    assert out["sustained_runtime_us"] >= shortest
    assert 70.0 <= out["power_w"] <= 700.0 * HIGHEST_POWER
    assert out["energy_mj"] == out["power_w"] * out["sustained_runtime_us"] * 1e-3
    assert out["tflops"] == limits.mflop / out["runtime_us"]
    values = np.concatenate([out[name] for name in OUTPUTS], axis=1)
    low, high = limits.interval(OUTPUTS, values / 3, values * 3)
    assert (low <= values).all()
    assert (values <= high).all()
    ends = dict(zip(OUTPUTS, zip(low[0], high[0], strict=True), strict=True))
    assert ends["runtime_us"][0] >= shortest
    assert ends["tflops"][1] <= 660 * LEAST_SPEED * (1 + 1e-6)
    assert ends["power_w"][0] >= 70.0
    assert ends["power_w"][1] <= 700.0 * HIGHEST_POWER


def test_unknown_power_stays_unknown(gpu: Device) -> None:
    """NaN as the limit is that of a query whose limit no training row had."""
    limits = _limits(_row(Gemm(m=512, n=512, k=512, dtype="bf16"), gpu), limit_w=np.nan)
    values = np.full((1, len(OUTPUTS)), 1.0)
    low, high = limits.interval(OUTPUTS, values, values)
    of_power = [name in ("power_w", "energy_mj") for name in OUTPUTS]
    for ends in (low, high):
        assert np.isnan(ends[0]).tolist() == of_power
