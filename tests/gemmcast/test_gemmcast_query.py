"""The encoder's three entries agree to the bit: `encode`, `encode_configs` and `from_columns`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from agent.kernels.cutlass import sources
from gemmcast import query
from gemmcast.arrow import read_samples
from gemmcast.config import FAMILIES, KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.rows import config_of, known_columns
from gemmcast.sample import Sample

Draw = Callable[..., list[tuple[Gemm, KernelConfig]]]
RECORDED = Path(__file__).parents[2] / "datasets" / "h100_sxm.parquet"


@pytest.fixture(params=["gpu", "unmetered gpu", "cpu"])
def device(request: pytest.FixtureRequest, gpu: Device, cpu: Device) -> Device:
    unmetered = replace(
        gpu,
        clock_max_mhz=None,
        power_limit_w=None,
        idle_power_w=None,
        l2_gbps=None,
        empty_kernel_us=None,
        l2_bytes=2**40 + 1,
        peak_tflops={"tf32": 1 / 3},
    )
    return {"gpu": gpu, "unmetered gpu": unmetered, "cpu": cpu}[request.param]


def encoded(
    gemm: Gemm, config: KernelConfig, device: Device, cache: str
) -> npt.NDArray[np.float32]:
    return np.array(query.encode(gemm, config, device, cache=cache), dtype=np.float32)


def threaded(config: KernelConfig) -> list[KernelConfig]:
    """With fewer threads than the CPU has cores, as many, more, and not known."""
    return [config, *(replace(config, cpu_threads=threads) for threads in (0, 1, 3, 6, 7, 8, 100))]


@pytest.mark.parametrize("cache", query.CACHES)
def test_columns_of_samples_are_the_same_questions(device: Device, draw: Draw, cache: str) -> None:
    drawn = [
        (gemm, each) for gemm, config in draw(device, 100, seed=1) for each in threaded(config)
    ]
    samples = [
        Sample(**known_columns(gemm, config, device), cache=cache).row() for gemm, config in drawn
    ]
    columns = {name: [row[name] for row in samples] for name in samples[0]}
    expected = np.array([encoded(gemm, config, device, cache) for gemm, config in drawn])
    np.testing.assert_array_equal(query.from_columns(columns), expected)


@pytest.mark.parametrize("cache", query.CACHES)
def test_candidates_are_the_same_questions(device: Device, draw: Draw, cache: str) -> None:
    drawn = draw(device, 40, seed=2)
    configs = [each for _, config in drawn for each in threaded(config)]
    for gemm, _ in drawn:
        expected = np.array([encoded(gemm, config, device, cache) for config in configs])
        np.testing.assert_array_equal(
            query.encode_configs(gemm, configs, device, cache=cache), expected
        )


def test_the_seven_rules(gpu: Device, cpu: Device) -> None:
    gemm = Gemm(m=100, n=200, k=300, dtype="fp32", layout="nt")
    row = dict(
        zip(
            query.FIELDS,
            query.encode(gemm, KernelConfig(family="tiled", tile_m=16), gpu),
            strict=True,
        )
    )
    assert (row["tile_m"], row["tile_n"], row["tile_k"]) == (16, 200, 300)
    assert (row["split_k"], row["stages"], row["active_units"], row["peak_tflops"]) == (
        1,
        0,
        132,
        51.2,
    )
    assert (row["trans_a"], row["trans_b"], row["dtype"], row["family"], row["warm"]) == (
        False,
        True,
        1.0,
        1.0,
        False,
    )
    row = dict(
        zip(
            query.FIELDS,
            query.encode(gemm, KernelConfig(family="blas", cpu_threads=2), cpu, cache="warm"),
            strict=True,
        )
    )
    assert (
        row["active_units"],
        row["threads"],
        row["warm"],
        row["power_limit_w"],
        row["clock_max_mhz"],
    ) == (2, 2, True, 0, 0)
    assert row["peak_tflops"] == 0.1234567 * (2 / 7)
    for device, l2_gbps in (
        (gpu, 5512.3),
        (replace(gpu, l2_gbps=None), 2.2 * 2987.6),
        (replace(gpu, l2_gbps=0.0), 2.2 * 2987.6),
    ):
        assert (
            query.encode(gemm, KernelConfig(family="tiled"), device)[query.AT["l2_gbps"]] == l2_gbps
        )


@pytest.mark.parametrize(("known_us", "written_us"), [(1.1, 1.1), (None, 0.5), (0.0, 0.5)])
def test_an_empty_kernel_that_was_not_measured_takes_the_usual_time(
    gpu: Device, known_us: float | None, written_us: float
) -> None:
    device = replace(gpu, empty_kernel_us=known_us)
    row = query.encode(Gemm(m=1, n=1, k=1), KernelConfig(family="tiled"), device)
    assert row.empty_kernel_us == written_us


def test_no_query_reads_what_a_launch_costs_the_host(gpu: Device) -> None:
    hosts = [replace(gpu, empty_launch_us=us) for us in (1.5, 4.1, 20.0, 40.0, None)]
    gemm, config = Gemm(m=1, n=1, k=1), KernelConfig(family="tiled")
    assert len({query.encode(gemm, config, device) for device in hosts}) == 1


@pytest.mark.parametrize(
    ("family", "kernel", "algo_id", "code"),
    [
        ("cublaslt", "", 66, 66),
        ("cublaslt", "x_pingpong_y", 0, 0),
        ("cublas", "", 0, 0),
        ("blas", "numpy", 0, 0),
        ("custom", "x_coop", 0, 0),
        ("triton", "mine.toml@1a2b3c4d", 0, 0),
        ("triton", "matmul", 0, 1),
        ("triton", "scaled_block", 0, 2),
        ("triton", "grouped", 0, 3),
        ("cutlass", "", 0, 0),
        ("cutlass", "simt_fp32_nt_256x128x8_64x64x8_s2_z1_a1", 0, 0),
        ("cutlass", "x_pingpong", 7, 7),
        *(
            ("cutlass", f"wgmma_fp8_e4m3_nt_64x128x128_2x1_{name}_z1_a16", 0, i)
            for i, name in enumerate(query.SCHEDULES, 1)
        ),
    ],
)
def test_an_algorithm_is_the_librarys_number_or_a_schedules_code(
    family: str, kernel: str, algo_id: int, code: int
) -> None:
    assert query.algorithm(family, kernel, algo_id) == code
    config = KernelConfig(family=family, kernel=kernel, algo_id=algo_id)
    device = Device(
        name="x",
        kind="cuda",
        uuid="x",
        compute_units=1,
        memory_bytes=1,
        l2_bytes=1,
        dram_gbps=1.0,
        peak_tflops={"fp32": 1.0},
    )
    assert query.encode(Gemm(m=1, n=1, k=1), config, device)[query.AT["algorithm"]] == code


def test_the_contract_stands() -> None:
    """Files in use follow it: append codes, and raise CONTRACT for anything else."""
    assert (query.CONTRACT, query.INPUT, query.OPSET, query.ML_OPSET, query.IR_VERSION) == (
        4,
        "question",
        21,
        3,
        10,
    )
    assert len(query.FIELDS) == len(set(query.FIELDS)) == 34
    assert query.FIELDS[-2:] == ("l2_gbps", "algorithm")
    assert query.OUTPUTS == ("runtime_us", "tflops", "sustained_runtime_us", "power_w", "energy_mj")
    assert (query.INTERVALS, query.EXTRAPOLATING, query.COVERAGE) == (
        ("low", "high"),
        "extrapolating",
        0.9,
    )
    assert query.SCHEDULES[:6] == ("ws", "pingpong", "coop", "streamk", "pingpongfast", "coopfast")
    assert set(sources.HOPPER_SCHEDULES) <= set(query.SCHEDULES), (
        "a schedule that is built has a code"
    )
    assert query.KNOB_FIELDS == (
        "warp_m",
        "warp_n",
        "warp_k",
        "stages",
        "split_k",
        "swizzle",
        "cluster_m",
        "cluster_n",
        "threads",
    )
    codes = {"fp64": 0, "fp32": 1, "tf32": 2, "fp16": 3, "bf16": 4, "fp8_e4m3": 5}
    assert {name: query.DTYPE_CODES[name] for name in codes} == codes and set(codes) <= set(DTYPES)
    codes = {"blas": 0, "tiled": 1, "cublas": 2, "cutlass": 3, "cublaslt": 4, "custom": 5}
    assert {name: query.FAMILY_CODES[name] for name in codes} == codes and set(codes) <= set(
        FAMILIES
    )


@pytest.mark.parametrize(
    ("change", "changed", "message"),
    [
        (
            {},
            {"dtype": "fp64"},
            "dtype = 'fp64': device GPU A has no measured peak for it (measured: fp16, fp32); "
            "use a measured dtype",
        ),
        (
            {"peak_tflops": {}},
            {},
            "dtype = 'fp32': device GPU A has no measured peak for it (measured: none); "
            "use a measured dtype",
        ),
        (
            {"compute_units": 0},
            {},
            "compute_units = 0: device GPU A was not measured; "
            "describe it with its measured values",
        ),
        (
            {"dram_gbps": 0.0},
            {},
            "dram_gbps = 0.0: device GPU A was not measured; describe it with its measured values",
        ),
        ({}, {"cache": "hot"}, "cache = 'hot': unknown cache state; use one of cold, warm"),
    ],
)
def test_what_can_not_be_encoded(
    gpu: Device, change: dict[str, object], changed: dict[str, str], message: str
) -> None:
    gemm = Gemm(m=1, n=1, k=1, dtype=changed.get("dtype", "fp32"))
    with pytest.raises(InputError) as caught:
        query.encode(
            gemm,
            KernelConfig(family="tiled"),
            replace(gpu, **change),
            cache=changed.get("cache", "cold"),
        )  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize("family", ["tiled", "cutlass"])
def test_threads_that_a_plan_does_not_name_are_those_of_the_compiled_kernel(
    family: str, gpu: Device
) -> None:
    """A plan names the tile; a measured row has the threads of the kernel that was compiled."""
    table = read_samples(RECORDED, ["family", "kernel", *KNOBS])
    rows = table.group_by(table.column_names).aggregate([]).to_pylist()
    measured = [config_of(row) for row in rows if row["family"] == family]
    measured = [config for config in measured if config.block_threads]
    planned = [replace(config, block_threads=0) for config in measured]
    gemm = Gemm(m=512, n=512, k=512)
    of_measured = query.encode_configs(gemm, measured, gpu)
    np.testing.assert_array_equal(query.encode_configs(gemm, planned, gpu), of_measured)
    assert len(measured) > 3
