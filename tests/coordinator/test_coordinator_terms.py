"""The terms: what they say, by hand, and that NumPy and the traced graph say it alike."""

from __future__ import annotations

import math

import ndonnx as ndx
import numpy as np
import onnx
import pytest

from coordinator.terms import ALL, STEP_US, TERMS, TILES, terms
from coordinator.train import open_session
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.question import FIELDS, INPUT, IR_VERSION, ask

FEW_NODES = 110
# each costs an embedder half a microsecond


def _said(gemm: Gemm, config: KernelConfig, device: Device) -> dict[str, float]:
    """Terms by name, as they are."""
    return dict(zip(TERMS, np.exp(terms(np.array([ask(gemm, config, device)], dtype=np.float32))[:, 0]).tolist(), strict=True))


@pytest.fixture(scope="module")
def traced() -> onnx.ModelProto:
    asked = ndx.argument(shape=("n", len(FIELDS)), dtype=ndx.float32)
    model = ndx.build({INPUT: asked}, {"terms": terms(asked)})
    model.ir_version = IR_VERSION
    return model


def test_numpy_and_the_graph_agree(traced: onnx.ModelProto, cpu: Device, gpu: Device) -> None:
    rng = np.random.default_rng(5)
    rows = []
    for i in range(2000):
        device = (cpu, gpu)[i % 2]
        m, n, k = (int(value) for value in np.exp(rng.uniform(0, np.log(20_000), 3)))
        knobs = {name: int(rng.integers(0, most)) for name, most in (("stages", 6), ("split_k", 9), ("swizzle", 9), ("cluster_m", 3), ("threads", 9))}
        tile_m, tile_n, tile_k = (int(value) for value in rng.integers(0, 257, 3))
        config = KernelConfig(family="blas" if device is cpu else "cutlass", tile_m=tile_m, tile_n=tile_n, tile_k=tile_k, **knobs)
        rows.append(ask(Gemm(m=m, n=n, k=k, dtype="fp32", layout=("nn", "nt", "tn", "tt")[i % 4]), config, device))
    questions = np.array(rows, dtype=np.float32)
    want = terms(questions)
    (got,) = open_session(traced.SerializeToString()).run(None, {INPUT: questions})
    assert want.dtype == got.dtype == np.float32 and want.shape == (len(TERMS), 2000) and np.isfinite(want).all()
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_the_graph_is_small_and_has_no_branches(traced: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in traced.graph.node if node.op_type not in ("Constant", "Identity")]
    assert len(kinds) <= FEW_NODES and "If" not in kinds


def test_what_they_say_by_hand(gpu: Device) -> None:
    gemm, config = Gemm(m=1000, n=256, k=64, dtype="fp32"), KernelConfig(family="tiled", tile_m=32, tile_n=32, tile_k=32, threads=1024)
    said = _said(gemm, config, gpu)
    tile_us = 2e-6 * 32 * 32 * 64 * 132 / 50
    loads_us = 1e-3 * 4 * 64 * (32 + 32) * 32 * 8 / (2.2 * 2900)
    dram_us = 1e-3 * 4 * (1000 * 64 + 64 * 256 + 1000 * 256) / 2900
    want = {
        "count_m": 32, "count_n": 8, "count_k": 2, "tiles": 256, "busiest": 2, "room": 2, "waves": 1, "tile_us": tile_us, "busy_us": 2 * tile_us,
        "even_us": 256 / 132 * tile_us, "l2_us": loads_us, "dram_us": dram_us, "steps_us": 2 * STEP_US, "fill_m": 1000 / 1024, "padding": 1,
        "floor_us": max(2 * tile_us, loads_us, dram_us) + 2 * STEP_US + 2.5, "aligned_a": 6, "aligned_b": 7, "aligned_c": 7,
    }  # fmt: skip
    assert {name: said[name] for name in want} == pytest.approx(want, rel=2e-4)


def test_a_grid_is_rounded_to_clusters_and_swizzles(gpu: Device) -> None:
    """CUTLASS 3: 18 x 10 tiles in clusters of 1 x 2 and swizzles of 8 make a grid of 24 x 16."""
    gemm = Gemm(m=4384, n=1280, k=5808, dtype="bf16", layout="nt")
    config = KernelConfig(family="cutlass", tile_m=256, tile_n=128, tile_k=64, stages=4, swizzle=8, cluster_m=1, cluster_n=2)
    said = _said(gemm, config, gpu)
    assert said["padding"] == pytest.approx(24 * 16 / (18 * 10), rel=1e-4)
    assert (round(said["busiest_sm"]), round(said["busiest"])) == (math.ceil(24 * 16 / 132), math.ceil(180 / 132))
    assert round(said["swizzled"]) == 8


def test_an_unknown_tile_is_taken_to_be_the_best_of_six(gpu: Device) -> None:
    said = _said(Gemm(m=5000, n=4097, k=64, dtype="fp16"), KernelConfig(family="cublas"), gpu)
    floors = [said[f"t{m}x{n}_floor_us"] for m, n in TILES]
    assert said["floor_us"] == pytest.approx(min(floors) + 2.5, rel=1e-4)


def test_whole_quotients_are_not_rounded_up(gpu: Device) -> None:
    """Waves come out of logarithms: 132 tiles on 132 SMs are one each, and 264 two."""
    assert len(set(ALL)) == len(ALL)
    for tiles in (1, 2, 3, 7, 50):
        said = _said(Gemm(m=128 * 132 * tiles, n=128, k=4096, dtype="fp16"), KernelConfig(family="cutlass", tile_m=128, tile_n=128, tile_k=32), gpu)
        assert round(said["busiest"], 3) == tiles
