"""Candidates: made by the families, only what can run, the default among them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmcast.candidates import candidates, default_config, refusal
from gemmcast.config import KernelConfig
from gemmcast.cutlass import sets as cutlass_sets
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.feasible import impossible
from gemmcast.gemm import DTYPES, LAYOUTS, Gemm
from gemmcast.triton_sets import distinct

SIZES = ((1, 16, 16), (7, 129, 65), (64, 4096, 8), (1024, 4096, 4096), (2**21, 512, 40))
ON_GPUS = ("cublas", "cublaslt", "cutlass", "triton", "tiled")


@pytest.fixture
def hopper(gpu: Device) -> Device:
    return replace(gpu, arch="sm_90")


def _problems() -> list[Gemm]:
    problems = []
    for m, n, k in SIZES:
        for dtype in DTYPES:
            problems += [Gemm(m=m, n=n, k=k, dtype=dtype, layout=layout) for layout in LAYOUTS]
    return problems


@pytest.mark.parametrize("arch", ["sm_70", "sm_80", "sm_89", "sm_90", "sm_90a", "sm_120", None])
def test_no_candidate_is_impossible_or_there_twice(gpu: Device, arch: str | None) -> None:
    device = replace(gpu, arch=arch)
    for gemm in _problems():
        made = candidates(gemm, device)
        assert len(set(made)) == len(made)
        assert [config for config in made if impossible(gemm, config, arch)] == []


def test_the_default_is_the_first_of_its_family(hopper: Device, cpu: Device) -> None:
    gemm = Gemm(m=64, n=256, k=512)
    for device in (hopper, cpu):
        families = [config.family for config in candidates(gemm, device)]
        for family in set(families) - {"triton"}:
            first = candidates(gemm, device, [family])[0]
            assert first == default_config(family, gemm, device)
            assert first.family == family
    half = Gemm(m=64, n=256, k=512, dtype="bf16", layout="nt")
    assert str(default_config("triton", half, hopper)) == (
        "triton:kernel=matmul,tile_m=64,tile_n=128,tile_k=128,stages=2,swizzle=32,block_threads=128"
    )
    grouped = default_config("triton", half, hopper, kernel="grouped")
    assert grouped == default_config("triton:grouped", half, hopper)
    assert default_config("cublaslt", half, hopper).kernel == "default"
    assert default_config("cutlass", half, hopper).kernel.startswith("wgmma_bf16_nt_128x128x64")
    older = default_config("cutlass", half, replace(hopper, arch="sm_80")).kernel
    assert older.startswith("tensorop_bf16_nt_128x128")
    assert default_config("blas", gemm, cpu).cpu_threads == cpu.compute_units


def test_every_kernel_of_the_sets_is_a_candidate(hopper: Device) -> None:
    gemm = Gemm(m=64, n=256, k=4096, dtype="fp16", layout="nt")
    made = {config.kernel for config in candidates(gemm, hopper, ["cutlass"])}
    for name in ("wide", "between"):
        of_set = cutlass_sets.configs(name, "sm_90", "fp16", "nt")
        assert made >= {config.kernel for config in of_set}
    assert len(candidates(gemm, hopper, ["triton"])) == 1008


def test_slices_of_k_end_where_steps_do(hopper: Device) -> None:
    def slices(k: int) -> set[int]:
        gemm = Gemm(m=64, n=256, k=k, dtype="fp16", layout="nt")
        return {config.split_k for config in candidates(gemm, hopper, ["cutlass"])}

    assert slices(32) == {0}
    assert slices(96) == {0, 2}
    assert slices(4096) == {0, 2, 4, 8, 16}


@pytest.mark.parametrize(
    ("family", "gemm", "reason"),
    [
        ("triton", Gemm(m=8, n=24, k=64, dtype="fp16", layout="nt"), "a multiple of 16 as n"),
        ("triton", Gemm(m=8, n=32, k=64, dtype="fp16", layout="nt", beta=1), "without alpha = 1"),
        ("triton", Gemm(m=8, n=32, k=64, dtype="tf32", layout="nt"), "has no tf32 nt for sm_90"),
        (
            "triton:scaled_block",
            Gemm(m=8, n=32, k=64, batch=2, dtype="fp8_e4m3", layout="nt"),
            "one matrix at a time, not 2",
        ),
        ("cutlass", Gemm(m=8, n=32, k=64, batch=2), "one matrix at a time, not 2"),
        ("cutlass", Gemm(m=8, n=32, k=63, dtype="fp16", layout="nt"), "no multiple of 8"),
        ("cutlass", Gemm(m=8, n=32, k=64, dtype="tf32", layout="tt"), "has tf32 tt for sm_90"),
        ("cutlass", Gemm(m=8, n=32, k=64, dtype="int8", layout="nt"), "has no int8"),
        ("tiled", Gemm(m=8, n=32, k=64, layout="nt"), "row-major"),
        ("tiled", Gemm(m=2**22, n=32, k=64, batch=65536), "over CUDA's limit"),
        ("cublaslt", Gemm(m=8, n=32, k=64, dtype="int8"), "layout nt only, not nn"),
        ("cublaslt", Gemm(m=8, n=32, k=40, dtype="fp8_e4m3", layout="nt"), "16 as k, not 40"),
    ],
)
def test_a_family_that_can_not_run_it_says_why(
    hopper: Device, family: str, gemm: Gemm, reason: str
) -> None:
    assert reason in str(refusal(family, gemm, hopper))
    assert candidates(gemm, hopper, [family]) == []
    with pytest.raises(InputError, match="name another family"):
        default_config(family, gemm, hopper)


def test_an_old_or_unknown_architecture_has_less(gpu: Device) -> None:
    half = Gemm(m=64, n=256, k=512, dtype="bf16", layout="nt")
    assert candidates(half, replace(gpu, arch="sm_75")) == []
    unknown = {config.family for config in candidates(half, replace(gpu, arch=None))}
    assert unknown == {"cublas", "cublaslt"}
    assert "not built for the architecture" in str(refusal("cutlass", half, gpu))


def test_families_that_can_not_be_named(hopper: Device, cpu: Device) -> None:
    gemm = Gemm(m=64, n=256, k=512)
    for families, rule in (
        (["cutlas"], "unknown kernel family"),
        (["custom"], "described in a project"),
        (["triton:mm"], "use triton:matmul, triton:scaled_block, triton:grouped"),
        (["cublas:x"], "no such kernel; use cublas"),
        (["blas"], "this family runs on cpu, GPU A is of kind cuda"),
        ([], "names no family"),
    ):
        with pytest.raises(InputError, match=rule):
            candidates(gemm, hopper, families)
    with pytest.raises(InputError, match="this family runs on cuda"):
        candidates(gemm, cpu, ["cublas"])


def test_a_cpu_has_threads_and_tiles(cpu: Device) -> None:
    made = candidates(Gemm(m=64, n=256, k=512), cpu)
    numpy_threads = [config.cpu_threads for config in made if config.kernel == "numpy"]
    assert numpy_threads == [7, 1, 2, 4]
    assert {config.tile_m for config in made if config.kernel == "blocked"} == {64, 128, 256}
    batched = candidates(Gemm(m=64, n=256, k=512, batch=2), cpu)
    assert {config.kernel for config in batched} == {"numpy"}
    one_core = candidates(Gemm(m=64, n=256, k=512), replace(cpu, compute_units=1), ["blas:numpy"])
    assert one_core == [KernelConfig(family="blas", kernel="numpy", cpu_threads=1)]


def test_families_come_once_and_in_the_order_of_the_list(hopper: Device) -> None:
    gemm = Gemm(m=64, n=256, k=512)
    made = candidates(gemm, hopper, ["tiled", "cublas", "tiled"])
    assert [config.family for config in made] == ["tiled"] * 6 + ["cublas"]
    assert {config.family for config in candidates(gemm, hopper)} == set(ON_GPUS) - {"triton"}


@pytest.mark.parametrize(
    ("gemm", "kernel", "different"),
    [
        # One row of tiles, whatever is 64 and more high: group_m 1, 16, 32 and 64 are the same.
        (Gemm(m=16, n=4096, k=4096, dtype="fp8_e4m3", layout="nt"), "scaled_block", {32}),
        # 17 rows of 64: group_m 32 and 64 are the same.
        (Gemm(m=1088, n=4096, k=4096, dtype="fp8_e4m3", layout="nt"), "scaled_block", {32, 1, 16}),
        (Gemm(m=8192, n=512, k=512, dtype="fp8_e4m3", layout="nt"), "matmul", {32, 1, 16, 64}),
        # Twenty experts with a row of tiles each.
        (Gemm(m=8, n=512, k=512, batch=20, dtype="bf16", layout="nt"), "grouped", {32, 1, 16}),
    ],
    ids=str,
)
def test_groups_of_more_rows_than_there_are_change_nothing(
    hopper: Device, gemm: Gemm, kernel: str, different: set[int]
) -> None:
    made = candidates(gemm, hopper, [f"triton:{kernel}"])
    of_64 = [config for config in distinct(gemm, made) if config.tile_m == 64]
    assert {config.swizzle for config in of_64} == different
    assert distinct(gemm, made)[0] == default_config("triton", gemm, hopper, kernel)
    others = candidates(gemm, hopper, ["cublas"])
    assert distinct(gemm, others) == others
