"""The terms: what they say, by hand, and that NumPy and the traced graph say it alike."""

from __future__ import annotations

import math

import ndonnx as ndx
import numpy as np
import onnx
import pytest

from costmodel.terms import LOADS, NORM, OF_TILES, SHOWN, STEP_US, TERMS, log_floor_us, log_scale, terms
from costmodel.onnx_session import open_session
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.query import FIELDS, INPUT, IR_VERSION, encode

FEW_NODES = 60
# each costs an embedder a third of a microsecond and more


def _said(gemm: Gemm, config: KernelConfig, device: Device) -> dict[str, float]:
    """Terms and what is made of them for the network, by name, as they are; switches, too, are exponents."""
    found = terms(np.array([encode(gemm, config, device)], dtype=np.float32))
    names = (*TERMS, *SHOWN.names, "floor_us")
    logs = [*(found[0] + [log_scale(name) for name in TERMS]), *(found[0] @ SHOWN.weights + SHOWN.biases), *log_floor_us(found)]
    return dict(zip(names, np.exp(logs).tolist(), strict=True))


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
        knobs = {name: int(rng.integers(0, most)) for name, most in (("stages", 6), ("split_k", 9), ("swizzle", 9), ("cluster_m", 3), ("cpu_threads", 9))}
        tile_m, tile_n, tile_k = (int(value) for value in rng.integers(0, 257, 3))
        config = KernelConfig(family="blas" if device is cpu else "cutlass", tile_m=tile_m, tile_n=tile_n, tile_k=tile_k, **knobs)
        rows.append(encode(Gemm(m=m, n=n, k=k, dtype="fp32", layout=("nn", "nt", "tn", "tt")[i % 4]), config, device))
    queries = np.array(rows, dtype=np.float32)
    want = terms(queries)
    (got,) = open_session(traced.SerializeToString()).run(None, {INPUT: queries})
    assert want.dtype == got.dtype == np.float32 and want.shape == (2000, len(TERMS)) and np.isfinite(want).all()
    np.testing.assert_allclose(got, want, atol=5e-5)


def test_the_graph_is_small_and_has_no_branches(traced: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in traced.graph.node if node.op_type not in ("Constant", "Identity")]
    assert len(kinds) <= FEW_NODES and "If" not in kinds


def test_what_they_say_by_hand(gpu: Device) -> None:
    gemm, config = Gemm(m=1000, n=256, k=64, dtype="fp32"), KernelConfig(family="tiled", tile_m=32, tile_n=32, tile_k=32, cpu_threads=1024)
    said = _said(gemm, config, gpu)
    busy_us = 2 * 2e-6 * 32 * 32 * 64 * 132 / 50
    loads_us = [1e-3 * 4 * 64 * 32 * 32 * 8 / (2.2 * 2900)] * 2
    dram_us = [1e-3 * 4 * size / 2900 for size in (1000 * 64, 64 * 256, 1000 * 256)]
    largest_us = sum(us**NORM for us in (busy_us, *loads_us, *dram_us)) ** (1 / NORM)
    want = {
        "count_m": 32, "count_n": 8, "count_k": 2, "tiles": 256, "busiest_sm": 2, "room": 2, "own_busy_us": busy_us,
        "even_us": 256 / 132 * busy_us / 2, "own_l2_a_us": loads_us[0],
        "dram_a_us": dram_us[0], "dram_c_us": dram_us[2], "fill_m": 1000 / 1024, "padding": 1,
        "floor_us": largest_us + 2 * 2 / 2 * STEP_US + 2.5, "aligned_a": np.exp(6), "aligned_b": np.exp(7), "aligned_c": np.exp(7),
    }  # fmt: skip
    assert {name: said[name] for name in want} == pytest.approx(want, rel=2e-4)


@pytest.mark.parametrize(("layout", "of_a", "of_b"), [("nn", 1, 3), ("tn", 2, 3), ("nt", 1, 1), ("tt", 2, 1)])
def test_alignment_is_of_the_rows_as_they_lie(gpu: Device, layout: str, of_a: int, of_b: int) -> None:
    said = _said(Gemm(m=4 * 3, n=8 * 5, k=2 * 7, dtype="fp16", layout=layout), KernelConfig(family="cublas"), gpu)
    assert [round(float(np.log(said[name]))) for name in ("aligned_a", "aligned_b", "aligned_c")] == [of_a, of_b, 3]


def test_a_grid_is_rounded_to_clusters_and_swizzles(gpu: Device) -> None:
    """CUTLASS 3: 18 x 10 tiles in clusters of 1 x 2 and swizzles of 8 make a grid of 24 x 16."""
    gemm = Gemm(m=4384, n=1280, k=5808, dtype="bf16", layout="nt")
    config = KernelConfig(family="cutlass", tile_m=256, tile_n=128, tile_k=64, stages=4, swizzle=8, cluster_m=1, cluster_n=2)
    said = _said(gemm, config, gpu)
    assert said["padding"] == pytest.approx(24 * 16 / (18 * 10), rel=1e-4)
    assert round(said["busiest_sm"]) == math.ceil(24 * 16 / 132)
    assert round(said["swizzled"]) == 8


@pytest.mark.parametrize(
    ("clusters", "asked", "used"),
    [((6, 6), 8, 8), ((5, 9), 8, 4), ((3, 3), 8, 4), ((2, 3), 4, 2), ((1, 40), 8, 1), ((40, 40), 2, 2), ((40, 40), 1, 1)],
)  # fmt: skip
def test_a_swizzle_is_no_wider_than_asked_for_or_than_the_grid_allows(gpu: Device, clusters: tuple[int, int], asked: int, used: int) -> None:
    gemm = Gemm(m=128 * clusters[0], n=128 * clusters[1], k=512, dtype="bf16")
    config = KernelConfig(family="cutlass", tile_m=128, tile_n=128, tile_k=64, stages=4, swizzle=asked, cluster_m=1, cluster_n=1)
    assert _said(gemm, config, gpu)["swizzled"] == pytest.approx(used, rel=1e-5)


def test_an_unknown_tile_is_taken_to_be_the_best_of_many(gpu: Device) -> None:
    gemm = Gemm(m=5000, n=4097, k=64, dtype="fp16")
    said = _said(gemm, KernelConfig(family="cublas"), gpu)
    floors = [said[f"{t}_floor_us"] for t in OF_TILES]
    assert said["unknown"] == pytest.approx(np.e) and said["floor_us"] == pytest.approx(sum(us**-NORM for us in floors) ** (-1 / NORM), rel=1e-4)


@pytest.mark.parametrize("m", [64, 65, 2**20 + 64, 2**24])
def test_a_tile_is_known_where_it_is_not_the_whole_matrix(gpu: Device, m: int) -> None:
    tile = KernelConfig(family="cutlass", tile_m=64, tile_n=64, tile_k=32)
    known = _said(Gemm(m=m, n=64, k=64, dtype="fp16"), tile, gpu)
    assert known["unknown"] == 1 and known["floor_us"] == pytest.approx(known["own_floor_us"], rel=1e-4)


def test_whole_quotients_are_not_rounded_up(gpu: Device) -> None:
    """Waves come out of logarithms: 132 tiles on 132 SMs are one each, and 264 two."""
    assert len(set(TERMS)) == len(TERMS)
    for tiles in (1, 2, 3, 7, 50):
        said = _said(Gemm(m=128 * 132 * tiles, n=128, k=4096, dtype="fp16"), KernelConfig(family="cutlass", tile_m=128, tile_n=128, tile_k=32), gpu)
        assert round(said["busiest_sm"], 3) == tiles


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1, 2**24])
def test_the_smallest_and_the_largest_gemm_have_terms(cpu: Device, gpu: Device, size: int) -> None:
    for device, family in ((cpu, "blas"), (gpu, "cublas")):
        found = terms(np.array([encode(Gemm(m=size, n=size, k=size, dtype="fp32"), KernelConfig(family=family), device)], dtype=np.float32))
        assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("layout", "kept_by"),
    [("nn", {"a": 8, "b": 4, "c": 4, "both": 4}), ("nt", {"a": 8, "b": 8, "c": 4, "both": 8}), ("tn", {"a": 2, "b": 4, "c": 4, "both": 2}),
     ("tt", {"a": 2, "b": 8, "c": 4, "both": 2})],
)  # fmt: skip
def test_which_loads_the_rows_of_a_problem_allow(gpu: Device, layout: str, kept_by: dict[str, int]) -> None:
    """m = 2, n = 4, k = 8: A lies along k, or along m if transposed; B along n, or along k; C along n."""
    said = _said(Gemm(m=2, n=4, k=8, dtype="fp16", layout=layout), KernelConfig(family="cublas"), gpu)
    for side, kept in kept_by.items():
        for by in LOADS:
            assert said[f"{side}_by_{by}"] == pytest.approx(np.e if by <= kept else 1.0, abs=1e-4), (side, by)
