"""CUTLASS kernels: which are generated, and which one a configuration means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.kernels import load
from agent.kernels.cutlass import Cutlass
from agent.kernels.cutlass.libraries import BuiltKernel, choose
from agent.kernels.cutlass.sources import HEADERS, KERNELS_PER_FILE, sources
from gemmcast.config import KernelConfig
from gemmcast.cutlass.kernel import CutlassKernel
from gemmcast.cutlass.sets import CUTLASS_SETS, HOPPER_SETS, SMEM_KIB, configs, kernels
from gemmcast.errors import InputError, MeasurementError
from gemmcast.feasible import leading_dimensions
from gemmcast.gemm import Gemm

ROOT = Path(__file__).resolve().parents[2]
SIMT = kernels("paper", "sm_90")[0]
MODULES = "agent.kernels.cutlass, agent.kernels.cutlass.build, agent.kernels.cutlass.libraries"
HEAVY = "{'cupy', 'numpy', 'ray', 'typer'}"
BUILT_KNOBS = (
    "tile_m",
    "tile_n",
    "tile_k",
    "warp_m",
    "warp_n",
    "warp_k",
    "stages",
    "swizzle",
    "cluster_m",
    "cluster_n",
)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.kernels.cutlass", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, check=False
    )


def _built(generated: list[CutlassKernel]) -> list[BuiltKernel]:
    """As a library would hold them."""
    library: Any = None
    built = []
    for index, kernel in enumerate(generated):
        knobs = {knob: getattr(kernel.config, knob) for knob in BUILT_KNOBS}
        built.append(
            BuiltKernel(
                library=library,
                index=index,
                name=kernel.name,
                dtype=kernel.dtype,
                layout=kernel.layout,
                knobs=knobs,
                alignment=kernel.alignment,
                origin="",
            )
        )
    return built


def _groups(generated: list[CutlassKernel]) -> set[tuple[str, str]]:
    return {(kernel.dtype, kernel.layout) for kernel in generated}


def test_the_papers_set_is_six_tiles_in_four_layouts() -> None:
    paper = kernels("paper", "sm_90")
    layouts = Counter(kernel.layout for kernel in paper)
    assert layouts == dict.fromkeys(("nn", "nt", "tn", "tt"), 6)
    tiles = {kernel.tile[:2] for kernel in paper}
    assert tiles == {(64, 64), (128, 64), (64, 128), (128, 128), (256, 128), (128, 256)}
    for kernel in paper:
        assert kernel.tile[2] == 8
        assert (kernel.dtype, kernel.alignment) == ("fp32", 1)
        assert (kernel.stages, kernel.swizzle) == (2, 1)
    assert kernels("paper", "sm_70") == paper


def test_the_default_set_covers_dtypes_stages_and_swizzles() -> None:
    default = kernels("default", "sm_90")
    assert 90 <= len(default) <= 120
    assert _groups(default) == {
        ("fp32", "nn"),
        ("tf32", "nn"),
        ("tf32", "nt"),
        ("fp16", "nn"),
        ("fp16", "nt"),
        ("bf16", "nn"),
        ("bf16", "nt"),
    }
    assert {kernel.stages for kernel in default if not kernel.simt} == {3, 4, 5}
    assert {kernel.swizzle for kernel in default} == {1, 4, 8}
    alignments = {kernel.dtype: kernel.alignment for kernel in default}
    assert alignments == {"fp32": 1, "tf32": 4, "fp16": 8, "bf16": 8}


@pytest.mark.parametrize("set_name", CUTLASS_SETS)
def test_every_kernel_has_a_name_of_its_own_and_whole_warps(set_name: str) -> None:
    generated = kernels(set_name, "sm_90")
    assert len({kernel.name for kernel in generated}) == len(generated)
    for kernel in generated:
        if kernel.schedule:
            continue
        for tile, warp in zip(kernel.tile, kernel.warp, strict=True):
            assert tile % warp == 0
        warps_m = kernel.tile[0] // kernel.warp[0]
        warps_n = kernel.tile[1] // kernel.warp[1]
        assert kernel.tile[2] == kernel.warp[2]
        assert warps_m * warps_n <= 8


def test_what_does_not_fit_an_architecture_is_left_out() -> None:
    small, large = kernels("default", "sm_89"), kernels("default", "sm_90")
    assert len(small) < len(large)
    assert set(small) < set(large)
    assert max(kernel.smem_bytes for kernel in small) <= 99 * 1024


@pytest.mark.parametrize(
    ("set_name", "arch", "message"),
    [
        ("all", "sm_90", r"set = 'all': no such set .*; use one of paper, default, wide, between"),
        ("wide", "sm_80", r"arch = 'sm_80': .* wgmma, which only sm_90 has; build the set default"),
        ("between", "sm_80", r"arch = 'sm_80': the set between needs wgmma, .*default"),
        ("wide", "sm_100", r"arch = 'sm_100': .*; build the set default"),
        ("paper", "sm_1", "arch = 'sm_1': .*use one of sm_70"),
        ("default", "sm_75", "arch = 'sm_75': .*came with sm_80; build the set paper"),
    ],
)
def test_a_wrong_set_or_architecture_names_the_way_out(
    set_name: str, arch: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        kernels(set_name, arch)


def test_sources_are_the_same_every_time_and_name_every_kernel_once() -> None:
    default = kernels("default", "sm_90")
    files = sources(default)
    assert files == sources(kernels("default", "sm_90"))
    parts = [text for name, text in files.items() if name.startswith("part_")]
    text = "".join(parts)
    assert len(parts) == -(-len(default) // KERNELS_PER_FILE)
    assert text.count("device::Gemm<") == len(default)
    for kernel in default:
        assert text.count(f'\\"{kernel.name}\\"') == 1
    assert [name for name in files if name.endswith(".h")] == list(HEADERS)


def test_the_wide_set_is_the_default_set_and_wgmma() -> None:
    default, wide = kernels("default", "sm_90"), kernels("wide", "sm_90")
    assert wide[: len(default)] == default
    more = wide[len(default) :]
    assert 32 <= len(more) <= 45
    assert _groups(more) == {
        ("fp16", "nn"),
        ("fp16", "nt"),
        ("bf16", "nn"),
        ("bf16", "nt"),
        ("tf32", "nt"),
        ("fp8_e4m3", "nt"),
    }
    assert {kernel.cluster for kernel in more} == {(1, 1), (2, 1), (1, 2)}
    schedules = {kernel.schedule for kernel in more}
    assert schedules == {"ws", "pingpong", "coop", "streamk", "pingpongfast", "coopfast"}


def test_wgmma_kernels_have_rows_of_128_bytes_and_cooperative_ones_two_warp_groups() -> None:
    tile_k_and_alignment = {
        "fp16": (64, 8),
        "bf16": (64, 8),
        "tf32": (32, 4),
        "fp8_e4m3": (128, 16),
    }
    for kernel in kernels("wide", "sm_90"):
        if not kernel.schedule:
            continue
        # What one swizzled row of shared memory holds.
        assert (kernel.tile[2], kernel.alignment) == tile_k_and_alignment[kernel.dtype]
        # A cooperative tile is shared by two warp groups of 64 rows each.
        if kernel.schedule.startswith(("coop", "streamk")):
            assert kernel.tile[0] >= 128


def test_knobs_alone_name_one_kernel_of_all_sets() -> None:
    """The schedule is only in the name, which is never learned from."""
    every = {one.name: one for name in CUTLASS_SETS for one in kernels(name, "sm_90")}.values()
    distinct = {(one.dtype, one.layout, replace(one.config, kernel="")) for one in every}
    assert len(distinct) == len(every)


def test_the_set_between_has_about_two_hundred_kernels_that_no_other_set_has() -> None:
    between = set(kernels("between", "sm_90"))
    assert 190 <= len(between) <= 230
    for name in ("paper", "default", "wide"):
        assert not between & set(kernels(name, "sm_90"))
    halves = {("fp16", "tn"), ("fp16", "tt"), ("bf16", "tn"), ("bf16", "tt")}
    assert _groups(list(between)) == _groups(kernels("wide", "sm_90")) | halves


@pytest.mark.parametrize("set_name", CUTLASS_SETS)
def test_a_warp_tile_is_a_multiple_of_32_wide(set_name: str) -> None:
    """One of 64 x 48 compiles, and reads beyond its operands."""
    for kernel in kernels(set_name, "sm_90"):
        assert kernel.warp[1] % 32 == 0, kernel.name


@pytest.mark.parametrize("set_name", CUTLASS_SETS)
def test_no_kernel_needs_more_shared_memory_than_its_architecture_has(set_name: str) -> None:
    archs = ("sm_90",) if set_name in HOPPER_SETS else ("sm_80", "sm_89", "sm_90")
    for arch in archs:
        largest = max(kernel.smem_bytes for kernel in kernels(set_name, arch))
        assert largest <= SMEM_KIB[arch] * 1024


def test_configurations_are_given_by_dtype_and_layout() -> None:
    given = configs("wide", "sm_90", "bf16", "nt")
    wide = kernels("wide", "sm_90")
    expected = [one.name for one in wide if (one.dtype, one.layout) == ("bf16", "nt")]
    assert [config.kernel for config in given] == expected
    assert len(given) == 22
    for config in given:
        assert config.family == "cutlass"
        # CUTLASS 3.x kernels have as many stages as fit: the compiler decides.
        assert bool(config.stages) != bool(config.cluster_m)


def test_a_set_may_have_no_configuration_of_a_dtype() -> None:
    assert len(configs("paper", "sm_90", "fp32", "tt")) == 6
    assert configs("paper", "sm_90", "bf16", "nt") == []
    assert configs("default", "sm_90", "fp8_e4m3", "nt") == []
    with pytest.raises(InputError, match="no such set"):
        configs("all", "sm_90", "bf16", "nt")


def _text(kernel: CutlassKernel) -> str:
    return " ".join(sources([kernel])["part_00.cu"].split())


def test_fp8_is_stored_as_fp8_and_its_result_as_bf16() -> None:
    wide = kernels("wide", "sm_90")
    (kernel,) = [one for one in wide if (one.dtype, one.schedule) == ("fp8_e4m3", "streamk")]
    text = _text(kernel)
    layouts = "cutlass::layout::RowMajor, cutlass::layout::ColumnMajor"
    assert f"cutlass::float_e4m3_t, cutlass::bfloat16_t, {layouts}, 16, 8," in text
    epilogue = "cutlass::epilogue::TmaWarpSpecializedCooperative"
    scheduler = "cutlass::gemm::StreamKScheduler"
    assert f"KernelTmaWarpSpecializedCooperative, {epilogue}, {scheduler}, 1>" in text
    assert '\\"stages\\": %d' in text


def test_operands_are_typed_as_they_are_stored() -> None:
    kernel = replace(kernels("default", "sm_90")[-1], layout="tn", dtype="fp16")
    a = "cutlass::half_t, cutlass::layout::ColumnMajor"
    b = c = "cutlass::half_t, cutlass::layout::RowMajor"
    assert f"{a}, {b}, {c}" in _text(kernel)


@pytest.mark.parametrize(
    "kernel", [SIMT, *kernels("wide", "sm_90")[::7]], ids=lambda kernel: kernel.name
)
def test_a_kernels_configuration_means_that_kernel(kernel: CutlassKernel) -> None:
    built = _built([*kernels("paper", "sm_90"), *kernels("wide", "sm_90")])
    gemm = Gemm(m=64, n=64, k=64, dtype=kernel.dtype, layout=kernel.layout)
    by_knobs = replace(kernel.config, kernel="", split_k=4)
    by_name = KernelConfig(family="cutlass", kernel=kernel.name)
    for config in (kernel.config, by_knobs, by_name):
        assert choose(built, gemm, config).name == kernel.name


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        (
            {"tile_m": 96},
            r"no CUTLASS kernel was built for fp16 nn with cutlass:tile_m=96",
        ),
        (
            {"tile_m": 128, "tile_n": 128},
            r"leaves 5 CUTLASS kernels, tensorop_fp16_nn_128x128x32.*: give more knobs",
        ),
    ],
)
def test_none_or_several_kernels_are_unsupported(knobs: dict[str, int], reason: str) -> None:
    built = _built(kernels("default", "sm_90"))
    gemm = Gemm(m=64, n=64, k=64, dtype="fp16")
    with pytest.raises(MeasurementError, match=reason) as caught:
        choose(built, gemm, KernelConfig(family="cutlass", **knobs))
    assert caught.value.status == "unsupported"


class _Library:
    """A library on paper, whose kernel can do everything."""

    def gemmcast_can_implement(self, *problem: Any) -> int:
        return 0

    def gemmcast_workspace_bytes(self, index: int, m: int, n: int, k: int, split_k: int) -> int:
        return m * n * split_k

    def gemmcast_facts(self, index: int, values: Any) -> int:
        values[:] = (384, 200_000, 168, 0, 1)
        return 0


def _cupy() -> SimpleNamespace:
    properties = {"maxThreadsPerMultiProcessor": 2048}
    device = SimpleNamespace(id=0, compute_capability="90")
    cuda = SimpleNamespace(
        Device=lambda: device,
        alloc=lambda size: SimpleNamespace(ptr=1),
        runtime=SimpleNamespace(getDeviceProperties=lambda device_id: properties),
    )
    return SimpleNamespace(cuda=cuda)


def test_a_row_has_the_knobs_of_a_kernel_that_was_only_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", _cupy())
    kernel = kernels("wide", "sm_90")[-1]
    (built,) = _built([kernel])
    library: Any = _Library()
    origin = "cutlass 4.2.0, nvcc 13.0.88"
    built = replace(built, library=library, origin=origin, knobs={**built.knobs, "stages": 6})
    family = Cutlass(Path("nowhere"))
    monkeypatch.setattr(family, "kernels", lambda arch: [built])
    gemm = Gemm(m=64, n=32, k=256, dtype=kernel.dtype, layout=kernel.layout)
    named = KernelConfig(family="cutlass", kernel=kernel.name)
    assert family.prepare(gemm, replace(named, split_k=2), []).facts == {
        "kernel": kernel.name,
        "library": origin,
        "block_threads": 384,
        "smem_bytes": 200_000,
        "regs": 168,
        "spill_bytes": 0,
        "occupancy": 384 / 2048,
        "workspace_bytes": 64 * 32 * 2,
        "tile_m": 128,
        "tile_n": 128,
        "tile_k": 128,
        "stages": 6,
        "swizzle": 1,
        "cluster_m": 1,
        "cluster_n": 2,
        "split_k": 2,
    }
    assert family.prepare(gemm, named, []).facts["split_k"] == 1


@pytest.mark.parametrize(
    ("layout", "dimensions"),
    [("nn", (5, 4, 4)), ("tn", (3, 4, 4)), ("nt", (5, 5, 4)), ("tt", (3, 5, 4))],
)
def test_leading_dimensions_are_those_of_the_stored_operands(
    layout: str, dimensions: tuple[int, int, int]
) -> None:
    assert leading_dimensions(Gemm(m=3, n=4, k=5, layout=layout)) == dimensions


def test_where_nothing_was_built_the_reason_says_how_to(tmp_path: Path) -> None:
    reason = r"unsupported: no CUTLASS kernels were built for sm_90 "
    way_out = r".*run python -m agent\.kernels\.cutlass build"
    with pytest.raises(MeasurementError, match=reason + way_out):
        Cutlass(tmp_path).kernels("sm_90")
    assert isinstance(load("cutlass"), Cutlass)


def test_the_command_lists_configurations() -> None:
    listed = _run("list", "--arch", "sm_90", "--set", "paper", "--json")
    last_line = listed.stdout.splitlines()[-1]
    configs = [KernelConfig(**row) for row in json.loads(last_line)]
    assert len(set(configs)) == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "all"], "error: set = 'all'"),
        (["--headers", "agent", "--nvcc", "nvcc"], "no CUTLASS headers there"),
        (["--color", "red"], "error: No such option: --color"),
    ],
)
def test_the_command_ends_with_two_on_bad_input(arguments: list[str], message: str) -> None:
    done = _run("build", "--arch", "sm_90", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_building_and_listing_load_neither_cupy_nor_numpy() -> None:
    """A machine without a GPU can build for those that have one."""
    code = f"import sys, {MODULES}; print(sorted({HEAVY} & set(sys.modules)))"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
