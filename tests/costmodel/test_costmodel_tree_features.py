"""The features: what they say, by hand, and that NumPy and the traced graph say it alike, to the last bit."""

from __future__ import annotations

import math
from dataclasses import replace

import ndonnx as ndx
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from costmodel.onnx_session import open_session
from costmodel.tree_features import CANDIDATES, NAMES, SIDES, features
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import DTYPES, LAYOUTS, MAX_DIM, Gemm
from gemmcast.query import FIELDS, INPUT, IR_VERSION, OPSET, encode

FEW_NODES = 50
# each costs an embedder 0.2 to 0.9 us


@pytest.fixture(scope="module")
def traced() -> onnx.ModelProto:
    asked = ndx.argument(shape=("n", len(FIELDS)), dtype=ndx.float32)
    floor_us, columns = features(asked)
    model = ndx.build({INPUT: asked}, {"floor_us": floor_us, "features": columns})
    model.ir_version = IR_VERSION
    return model


def _random_questions(cpu: Device, gpu: Device, count: int = 3000) -> npt.NDArray[np.float32]:
    """Of every family, dtype and layout, on a CPU and on a GPU, from tiny to as large as can be asked."""
    rng = np.random.default_rng(17)
    rows = []
    for i in range(count):
        family = list(FAMILIES)[i % len(FAMILIES)]
        device = cpu if FAMILIES[family].device_kind == "cpu" else replace(gpu, dram_gbps=float(rng.uniform(10, 8000)))
        dtype = str(rng.choice([name for name in DTYPES if name in device.peak_tflops]))
        m, n, k = (min(int(value), MAX_DIM) for value in np.exp(rng.uniform(0, np.log(MAX_DIM if i % 10 == 0 else 16384), 3)))
        gemm = Gemm(m=m, n=n, k=k, batch=int(rng.integers(1, 5)), dtype=dtype, layout=str(rng.choice(LAYOUTS)), beta=float(i % 2))
        tile_m, tile_n, tile_k = (int(value) for value in rng.integers(0, 257, 3))
        knobs = {"stages": int(rng.integers(0, 6)), "split_k": int(rng.integers(0, 9)), "cpu_threads": int(rng.integers(0, 9))}
        config = KernelConfig(family=family, tile_m=tile_m, tile_n=tile_n, tile_k=tile_k, **knobs)
        rows.append(encode(gemm, config, device, cache=("cold", "warm")[i % 2]))
    return np.array(rows, dtype=np.float32)


def test_numpy_and_the_graph_agree_to_the_last_bit(traced: onnx.ModelProto, cpu: Device, gpu: Device) -> None:
    queries = _random_questions(cpu, gpu)
    floor_us, columns = features(queries)
    got_floor, got_columns = open_session(traced.SerializeToString()).run(["floor_us", "features"], {INPUT: queries})
    assert got_columns.dtype == np.float32 and columns.dtype == np.float32
    differ = [name for i, name in enumerate(NAMES) if not np.array_equal(columns[:, i].view(np.uint32), got_columns[:, i].view(np.uint32))]
    assert differ == []
    assert np.array_equal(floor_us.view(np.uint32), got_floor.view(np.uint32))


def test_features_are_finite_and_named(cpu: Device, gpu: Device) -> None:
    floor_us, columns = features(_random_questions(cpu, gpu, 500))
    assert columns.shape == (500, len(NAMES)) and floor_us.shape == (500, 1)
    assert len(set(NAMES)) == len(NAMES)
    assert np.isfinite(columns).all() and (floor_us > 0).all()


def test_one_row_alone_is_answered_as_among_others(cpu: Device, gpu: Device) -> None:
    queries = _random_questions(cpu, gpu, 50)
    together = features(queries)[1]
    assert all(np.array_equal(features(queries[i : i + 1])[1][0], together[i]) for i in range(50))


def test_the_graph_is_small_and_of_our_opset(traced: onnx.ModelProto) -> None:
    assert sum(node.op_type not in ("Constant", "Identity") for node in traced.graph.node) <= FEW_NODES  # those two are folded away
    assert max(opset.version for opset in traced.opset_import if opset.domain in ("", "ai.onnx")) <= OPSET
    transcendental = {"Log", "Exp", "Pow", "Sqrt", "Sin", "Cos", "Tanh", "Sigmoid"}
    assert not transcendental & {node.op_type for node in traced.graph.node}


def test_what_they_say_by_hand(gpu: Device) -> None:
    gemm = Gemm(m=1000, n=256, k=64, dtype="fp32")
    config = KernelConfig(family="tiled", tile_m=32, tile_n=32, tile_k=32)
    floor_us, columns = features(np.array([encode(gemm, config, gpu)], dtype=np.float32))
    said = dict(zip(NAMES, columns[0].tolist(), strict=True))
    blocks = 32 * 8
    moved = 4 * (1000 * 64 + 64 * 256 + 1000 * 256)
    by_tile = 4 * (1000 * 64 * 8 + 64 * 256 * 32 + 1000 * 256)
    want = {
        "count_m": 32, "count_n": 8, "count_k": 2, "fill_m": 1000 / 1024, "fill_n": 1, "fill_k": 1, "blocks": blocks, "waves": blocks / 132,
        "wave_fill": blocks / 132 / 2, "work": 1000 * 256 * 64, "compute_time": 1000 * 256 * 64 / 50, "bytes_time": moved / 2900,
        "tile_bytes_time": by_tile / 2900, "balance": 1000 * 256 * 64 / 50 / (moved / 2900), "intensity": 1000 * 256 * 64 / moved,
        "l2_fill": moved / (50 * 2**20), "128x128_fill": 16 / 132, "128x128_share": 1000 * 256 / 132, "64x64_fill": 64 / 132,
        "64x64_share": 1000 * 256 / 132,
    }  # fmt: skip
    for name, value in want.items():
        assert said[name] == pytest.approx(value, rel=1e-6), name
    compute_us, bytes_us = gemm.flops / (50 * 1e6), moved / (2900 * 1e3)
    assert floor_us[0, 0] == pytest.approx(max(compute_us, bytes_us) + 2.5, rel=1e-6)


def test_waves_of_the_tiles_that_a_library_may_have_chosen(gpu: Device) -> None:
    gemm = Gemm(m=5000, n=4097, k=64, batch=3, dtype="fp16")
    _, columns = features(np.array([encode(gemm, KernelConfig(family="cublas"), gpu)], dtype=np.float32))
    said = dict(zip(NAMES, columns[0].tolist(), strict=True))
    for m, n in CANDIDATES:
        waves = math.ceil(5000 / m) * math.ceil(4097 / n) * 3 / 132
        assert said[f"{m}x{n}_fill"] == pytest.approx(waves / math.ceil(waves), rel=1e-6)
        assert said[f"{m}x{n}_share"] == pytest.approx(5000 * 4097 * 3 / 132 / math.ceil(waves), rel=1e-6)
    for side in SIDES["m"]:
        assert said[f"m_by_{side}_fill"] == pytest.approx(5000 / (side * math.ceil(5000 / side)), rel=1e-6)


def test_threads_share_the_peak_of_a_cpu(cpu: Device) -> None:
    gemm = Gemm(m=512, n=512, k=512)
    floors = [
        features(np.array([encode(gemm, KernelConfig(family="blas", cpu_threads=threads), cpu)], np.float32))[0][0, 0] - cpu.empty_launch_us
        for threads in (1, 2, 8, 0)
    ]
    assert floors[0] == pytest.approx(2 * floors[1], rel=1e-5)
    assert floors[1] == floors[2] == floors[3]
