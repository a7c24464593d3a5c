"""The terms: values by hand, and the same bits in NumPy and in the traced graph."""

from __future__ import annotations

import math
from dataclasses import replace

import ndonnx as ndx
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from costmodel import graph_ops
from costmodel.formulas import LOADS, STEP_US
from costmodel.occupancy import SPILLED
from costmodel.onnx_session import open_session
from costmodel.seen import INPUTS, Seen, middle_of
from costmodel.terms import (
    DERIVED_SCALES,
    FOR_TREES,
    QUANTITIES,
    WHOLE,
    terms,
    tree_inputs,
)
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import DTYPES, LAYOUTS, MAX_DIM, Gemm
from gemmcast.query import FIELDS, INPUT, IR_VERSION, encode

# each costs about half a microsecond of every prediction
FEW_NODES = 135
OPERATORS_THAT_ROUND_DIFFERENTLY = {
    "Log",
    "Exp",
    "Pow",
    "Sqrt",
    "Tanh",
    "Sigmoid",
}


@pytest.fixture(scope="module")
def traced() -> onnx.ModelProto:
    query = ndx.argument(shape=("n", len(FIELDS)), dtype=ndx.float32)
    values = terms(query)
    outputs = {"floor_us": values.floor_us, "quantities": values.quantities}
    model = ndx.build({INPUT: query}, outputs)
    model.ir_version = IR_VERSION
    return model


def _random_config(rng: np.random.Generator, family: str) -> KernelConfig:
    tile_m, tile_n, tile_k = (int(side) for side in rng.integers(0, 257, 3))
    return KernelConfig(
        family=family,
        tile_m=tile_m,
        tile_n=tile_n,
        tile_k=tile_k,
        stages=int(rng.integers(0, 6)),
        split_k=int(rng.integers(0, 9)),
        swizzle=int(rng.integers(0, 9)),
        cluster_m=int(rng.integers(0, 3)),
        cluster_n=int(rng.integers(0, 3)),
        cpu_threads=int(rng.integers(0, 9)),
    )


def _random_queries(cpu: Device, gpu: Device, count: int) -> npt.NDArray[np.float32]:
    """Of every family, dtype and layout, on a CPU and on a GPU, from tiny to the largest."""
    rng = np.random.default_rng(17)
    rows = []
    for i in range(count):
        family = list(FAMILIES)[i % len(FAMILIES)]
        device = replace(gpu, dram_gbps=float(rng.uniform(10, 8000)))
        if FAMILIES[family].device_kind == "cpu":
            device = cpu
        largest = MAX_DIM if i % 10 == 0 else 16384
        m, n, k = (int(size) for size in np.exp(rng.uniform(0, np.log(largest), 3)))
        gemm = Gemm(
            m=m,
            n=n,
            k=k,
            batch=int(rng.integers(1, 5)),
            dtype=str(rng.choice([name for name in DTYPES if name in device.peak_tflops])),
            layout=str(rng.choice(LAYOUTS)),
            beta=float(i % 2),
        )
        cache = ("cold", "warm")[i % 2]
        rows.append(encode(gemm, _random_config(rng, family), device, cache=cache))
    return np.array(rows, dtype=np.float32)


def _quantities(gemm: Gemm, config: KernelConfig, device: Device) -> dict[str, float]:
    row = np.array([encode(gemm, config, device)], dtype=np.float32)
    return dict(zip(QUANTITIES, terms(row).quantities[0].tolist(), strict=True))


def test_numpy_and_the_graph_agree_to_the_last_bit(
    traced: onnx.ModelProto, cpu: Device, gpu: Device
) -> None:
    queries = _random_queries(cpu, gpu, 3000)
    expected = terms(queries)
    session = open_session(traced.SerializeToString())
    floor_us, quantities = session.run(["floor_us", "quantities"], {INPUT: queries})
    assert quantities.dtype == np.float32
    assert expected.quantities.dtype == np.float32
    differ = quantities.view(np.uint32) != expected.quantities.view(np.uint32)
    assert [name for i, name in enumerate(QUANTITIES) if differ[:, i].any()] == []
    assert np.array_equal(floor_us.view(np.uint32), expected.floor_us.view(np.uint32))


def test_the_graph_is_small_and_only_has_operators_that_round_alike(
    traced: onnx.ModelProto,
) -> None:
    # constants and identities are folded away
    folded = ("Constant", "Identity")
    kinds = [node.op_type for node in traced.graph.node if node.op_type not in folded]
    assert len(kinds) <= FEW_NODES
    assert "If" not in kinds
    assert not OPERATORS_THAT_ROUND_DIFFERENTLY & set(kinds)


def test_products_with_a_matrix_are_exact(traced: onnx.ModelProto) -> None:
    """Of whole numbers and powers of 2, so that no order of a sum rounds them differently."""
    constants: dict[str, npt.NDArray[np.generic]] = {}
    products: list[str] = []
    for node in traced.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        if node.op_type in ("MatMul", "Gemm"):
            products.append(node.input[1])
    assert products
    for name in products:
        mantissas, _ = np.frexp(constants[name])
        assert set(mantissas.ravel().tolist()) <= {0.0, 0.5}


def test_every_quantity_has_a_name_and_is_finite(cpu: Device, gpu: Device) -> None:
    values = terms(_random_queries(cpu, gpu, 500))
    assert len(set(QUANTITIES)) == len(QUANTITIES) == len(FIELDS) + len(DERIVED_SCALES)
    assert values.quantities.shape == (500, len(QUANTITIES))
    assert np.isfinite(values.quantities).all()
    assert (values.floor_us > 0).all()


def test_one_row_alone_is_the_same_as_among_others(cpu: Device, gpu: Device) -> None:
    queries = _random_queries(cpu, gpu, 50)
    together = terms(queries).quantities
    for i in range(50):
        assert np.array_equal(terms(queries[i : i + 1]).quantities[0], together[i])


def test_values_by_hand(gpu: Device) -> None:
    gemm = Gemm(m=1000, n=256, k=64, dtype="fp32")
    config = KernelConfig(
        family="tiled", tile_m=32, tile_n=32, tile_k=32, stages=2, block_threads=1024
    )
    values = _quantities(gemm, config, gpu)
    compute_us = 2 * 2e-6 * 32 * 32 * 64 * 132 / 50
    load_us = 1e-3 * 4 * 64 * 32 * 32 * 8 / (2.2 * 2900)
    dram_us = [1e-3 * 4 * size / 2900 for size in (1000 * 64, 64 * 256, 1000 * 256)]
    steps_us = 2 * 2 / 2 * STEP_US
    expected = {
        "tile_unknown": 0,
        "count_m": 32,
        "count_n": 8,
        "count_k": 2,
        "tiles": 256,
        "busiest_sm": 2,
        "blocks_per_sm": 2,
        "compute_us": compute_us,
        "l2_a_us": load_us,
        "l2_b_us": load_us,
        "dram_a_us": dram_us[0],
        "dram_b_us": dram_us[1],
        "dram_c_us": dram_us[2],
        "fill_m": 1000 / 1024,
        "fill_n": 1,
        "inside_m": 32,
        "padding": 1,
        "steps_us": steps_us,
        "mflop": gemm.flops / 1e6,
        "floor_us": compute_us + 2 * load_us + sum(dram_us) + steps_us + 4 * 2.5,
        "alignment_a": 64,
        "alignment_b": 128,
        "alignment_c": 128,
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_blocks_that_run_together_share_what_they_load(gpu: Device) -> None:
    config = KernelConfig(
        family="triton",
        kernel="matmul",
        tile_m=64,
        tile_n=128,
        tile_k=64,
        stages=2,
        swizzle=32,
        block_threads=128,
    )
    values = _quantities(Gemm(m=4096, n=4096, k=1024, dtype="bf16"), config, gpu)
    # 1.5 x 64 + 30 registers of 128 threads; 48 KiB would allow four, too
    assert values["blocks_per_sm"] == 4
    # 64 x 32 tiles, 132 x 4 of them at a time: 32 rows, 16.5 columns
    assert values["waves"] == 4
    shared_us = values["l2_a_us"] / 16.5 + values["l2_b_us"] / 32
    assert values["wave_load_us"] == pytest.approx(shared_us)
    deeper = replace(config, stages=5)
    values = _quantities(Gemm(m=4096, n=4096, k=1024, dtype="bf16"), deeper, gpu)
    # 120 KiB of 227
    assert values["blocks_per_sm"] == 1
    wider = replace(config, tile_m=128, tile_n=256)
    values = _quantities(Gemm(m=4096, n=4096, k=1024, dtype="bf16"), wider, gpu)
    # 256 elements of C to a thread, which has 255 registers; 32 x 16 tiles
    assert values["blocks_per_sm"] == SPILLED
    assert values["waves"] == np.ceil(32 * 16 / (132 * SPILLED))
    by_more = replace(wider, block_threads=256)
    values = _quantities(Gemm(m=4096, n=4096, k=1024, dtype="bf16"), by_more, gpu)
    assert values["blocks_per_sm"] == 1


def test_problems_of_a_batch_run_together_and_share_nothing(gpu: Device) -> None:
    """As experts do: one row of tiles each, so that the swizzle cannot be wider."""
    config = KernelConfig(
        family="triton",
        kernel="grouped",
        tile_m=16,
        tile_n=128,
        tile_k=64,
        stages=2,
        swizzle=32,
        block_threads=128,
    )
    values = _quantities(Gemm(m=8, n=1024, k=1024, batch=64, dtype="bf16"), config, gpu)
    assert values["tiles"] == 64 * 8
    assert values["waves"] == 1
    shared_us = values["l2_a_us"] / 8 + values["l2_b_us"]
    assert values["wave_load_us"] == pytest.approx(shared_us)


@pytest.mark.parametrize(
    ("layout", "of_a", "of_b"),
    [("nn", 2, 8), ("tn", 4, 8), ("nt", 2, 2), ("tt", 4, 2)],
)
def test_alignment_is_that_of_the_rows_in_memory(
    gpu: Device, layout: str, of_a: int, of_b: int
) -> None:
    """A lies along k, or along m if transposed; B along n, or along k; C along n."""
    gemm = Gemm(m=4 * 3, n=8 * 5, k=2 * 7, dtype="fp16", layout=layout)
    values = _quantities(gemm, KernelConfig(family="cublas"), gpu)
    assert [values[f"alignment_{matrix}"] for matrix in "abc"] == [of_a, of_b, 8]


@pytest.mark.parametrize(("layout", "of_both"), [("nn", 2), ("tn", 4), ("nt", 2), ("tt", 2)])
def test_both_operands_allow_the_load_that_each_allows(
    gpu: Device, layout: str, of_both: int
) -> None:
    gemm = Gemm(m=4 * 3, n=8 * 5, k=2 * 7, dtype="fp16", layout=layout)
    values = _quantities(gemm, KernelConfig(family="cublas"), gpu)
    allowed = [width for width in LOADS if values[f"loads_a_and_b_{width}"] == 2]
    assert max(allowed) == of_both
    assert [values[f"loads_c_{width}"] for width in LOADS] == [2, 2, 2, 1]


def test_the_usual_tile_takes_as_long_as_a_library_needs_for_it(gpu: Device) -> None:
    config = KernelConfig(family="cublas")
    values = _quantities(Gemm(m=1000, n=700, k=640, dtype="fp16"), config, gpu)
    assert values["library_128x128_us"] == pytest.approx(values["floor_us"], rel=1e-6)
    # 4 x 4 tiles leave most SMs without work, 8 x 8 smaller ones still make a single wave
    values = _quantities(Gemm(m=512, n=512, k=4096, dtype="fp16"), config, gpu)
    assert values["library_64x64_us"] < values["library_128x128_us"]


def test_a_grid_is_rounded_to_clusters_and_swizzles(gpu: Device) -> None:
    """CUTLASS 3: 18 x 10 tiles in clusters of 1 x 2 and swizzles of 8 make a grid of 24 x 16."""
    gemm = Gemm(m=4384, n=1280, k=5808, dtype="bf16", layout="nt")
    config = KernelConfig(
        family="cutlass",
        tile_m=256,
        tile_n=128,
        tile_k=64,
        stages=4,
        swizzle=8,
        cluster_m=1,
        cluster_n=2,
    )
    # shorter side: 5 clusters, which allow a swizzle of 4 only
    values = _quantities(gemm, config, gpu)
    assert values["used_swizzle"] == 4
    wider = _quantities(replace(gemm, n=1536), config, gpu)
    assert wider["used_swizzle"] == 8
    assert (wider["blocks_m"], wider["blocks_n"]) == (24, 16)
    assert wider["padding"] == pytest.approx(24 * 16 / (18 * 12))
    assert wider["busiest_sm"] == math.ceil(24 * 16 / 132)


@pytest.mark.parametrize(
    ("clusters", "requested", "used"),
    [
        ((6, 6), 8, 8),
        ((5, 9), 8, 4),
        ((3, 3), 8, 4),
        ((2, 3), 4, 2),
        ((1, 40), 8, 1),
        ((40, 40), 2, 2),
        ((40, 40), 1, 1),
    ],
)
def test_a_swizzle_is_no_wider_than_requested_or_than_the_grid_allows(
    gpu: Device, clusters: tuple[int, int], requested: int, used: int
) -> None:
    gemm = Gemm(m=128 * clusters[0], n=128 * clusters[1], k=512, dtype="bf16")
    config = KernelConfig(
        family="cutlass",
        tile_m=128,
        tile_n=128,
        tile_k=64,
        stages=4,
        swizzle=requested,
        cluster_m=1,
        cluster_n=1,
    )
    assert _quantities(gemm, config, gpu)["used_swizzle"] == used


def test_a_tile_that_is_not_named_is_the_usual_one(gpu: Device) -> None:
    gemm = Gemm(m=5000, n=4097, k=640, dtype="fp16")
    usual = KernelConfig(family="cublas", tile_m=128, tile_n=128, tile_k=64)
    named = _quantities(gemm, usual, gpu)
    not_named = _quantities(gemm, KernelConfig(family="cublas"), gpu)
    assert (named["tile_unknown"], not_named["tile_unknown"]) == (0, 1)
    assert not_named["floor_us"] == named["floor_us"]


@pytest.mark.parametrize("m", [64, 65, 2**20 + 64, 2**24])
def test_a_tile_is_known_where_it_is_not_the_whole_matrix(gpu: Device, m: int) -> None:
    tile = KernelConfig(family="cutlass", tile_m=64, tile_n=64, tile_k=32)
    values = _quantities(Gemm(m=m, n=64, k=64, dtype="fp16"), tile, gpu)
    assert values["tile_unknown"] == 0
    assert values["used_tile_m"] == 64


@pytest.mark.parametrize("waves", [1, 2, 3, 7, 50])
def test_whole_quotients_are_not_rounded_up(gpu: Device, waves: int) -> None:
    """132 tiles on 132 SMs are one wave, and 264 two."""
    tile = KernelConfig(family="cutlass", tile_m=128, tile_n=128, tile_k=32)
    gemm = Gemm(m=128 * 132 * waves, n=128, k=4096, dtype="fp16")
    assert _quantities(gemm, tile, gpu)["busiest_sm"] == waves


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1, 2**24])
def test_the_smallest_and_the_largest_gemm_have_inputs(cpu: Device, gpu: Device, size: int) -> None:
    gemm = Gemm(m=size, n=size, k=size, dtype="fp32")
    for device, family in ((cpu, "blas"), (gpu, "cublas")):
        row = np.array([encode(gemm, KernelConfig(family=family), device)], dtype=np.float32)
        quantities = terms(row).quantities
        inputs = Seen.of(quantities, middle_of(quantities))(quantities)
        assert inputs.shape == (1, len(INPUTS))
        assert np.isfinite(inputs).all()


def test_threads_share_the_peak_of_a_cpu(cpu: Device) -> None:
    gemm = Gemm(m=512, n=512, k=512)
    times_us = []
    for threads in (1, 2, 8, 0):
        config = KernelConfig(family="blas", cpu_threads=threads)
        times_us.append(_quantities(gemm, config, cpu)["compute_us"])
    assert times_us[0] == pytest.approx(2 * times_us[1], rel=1e-5)
    assert times_us[1] == times_us[2] == times_us[3]


def test_trees_see_whole_tiles() -> None:
    """Of m, n and k, one after the other, whether 8, 64 and 128 divide them."""
    quantities = np.zeros((2, len(QUANTITIES)), dtype=np.float32)
    for i, name in enumerate(("m", "n", "k")):
        quantities[:, QUANTITIES.index(name)] = [128, 129][:: 1 if i else -1]
    quantities[0, QUANTITIES.index("k")] = 192
    inputs = tree_inputs(quantities)
    assert inputs.shape == (2, len(FOR_TREES) + 3 * len(WHOLE))
    assert inputs[:, len(FOR_TREES) :].tolist() == [
        [0, 0, 0, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
    ]
    assert inputs[0, FOR_TREES.index("k")] == 192


@pytest.mark.parametrize("wanted", [[0], [5], [0, 1, 3, 4, 5], [2, 4], list(range(6))])
def test_columns_are_the_same_in_the_graph(wanted: list[int]) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    argument = ndx.argument(shape=("n", 6), dtype=ndx.float32)
    model = ndx.build({"x": argument}, {"chosen": graph_ops.columns(argument, wanted, 6)})
    model.ir_version = IR_VERSION
    (chosen,) = open_session(model.SerializeToString()).run(None, {"x": x})
    assert chosen.tolist() == x[:, wanted].tolist()
    assert graph_ops.columns(x, wanted, 6).tolist() == chosen.tolist()
