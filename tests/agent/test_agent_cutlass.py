"""CUTLASS kernels: which are generated, what their cache goes by, which one a configuration means; one real compile with nvcc.

The folder with CUTLASS' headers is found as the builder finds it, or through CUTLASS_HEADERS.
"""

from __future__ import annotations

import ctypes
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
from agent.kernels.cutlass import PROBLEM, Built, Cutlass, choose, leading, open_library
from agent.kernels.cutlass.build import BuildError, Toolkit, build, content_hash, find_headers, find_nvcc, flags, manifest_path, toolkit
from agent.kernels.cutlass.generate import SETS, SMEM_KIB, configs, kernels
from agent.kernels.cutlass.kernel import Kernel
from agent.kernels.cutlass.sources import HEADERS, KERNELS_PER_FILE, sources
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError, MeasurementError
from gemmcast.gemm import Gemm

ROOT = Path(__file__).resolve().parents[2]
KIT = Toolkit(nvcc=Path("nvcc"), nvcc_version="13.0.88", headers=Path("include"), headers_version="4.2.0")
SIMT = kernels("paper", "sm_90")[0]


def _run(*arguments: str, path: str = os.environ["PATH"], **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.kernels.cutlass", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path, **env}, capture_output=True, text=True, check=False)


def _built(made: list[Kernel]) -> list[Built]:
    knobs = ("tile_m", "tile_n", "tile_k", "warp_m", "warp_n", "warp_k", "stages", "swizzle", "cluster_m", "cluster_n")
    return [
        Built(None, i, one.name, one.dtype, one.layout, {knob: getattr(one.config, knob) for knob in knobs}, one.alignment, "")
        for i, one in enumerate(made)
    ]


def test_the_papers_set_is_six_tiles_in_four_layouts() -> None:
    made = kernels("paper", "sm_90")
    assert Counter(one.layout for one in made) == dict.fromkeys(("nn", "nt", "tn", "tt"), 6)
    assert {one.tile for one in made} == {(64, 64, 8), (128, 64, 8), (64, 128, 8), (128, 128, 8), (256, 128, 8), (128, 256, 8)}
    assert {(one.dtype, one.alignment, one.stages, one.swizzle) for one in made} == {("fp32", 1, 2, 1)}
    assert kernels("paper", "sm_70") == made


def test_the_default_set_covers_dtypes_stages_and_swizzles() -> None:
    made = kernels("default", "sm_90")
    assert 90 <= len(made) <= 120
    assert {(one.dtype, one.layout) for one in made} == {
        ("fp32", "nn"),
        *((dtype, layout) for dtype in ("tf32", "fp16", "bf16") for layout in ("nn", "nt")),
    }
    assert {one.stages for one in made if not one.simt} == {3, 4, 5}
    assert {one.swizzle for one in made} == {1, 4, 8}
    assert {one.dtype: one.alignment for one in made} == {"fp32": 1, "tf32": 4, "fp16": 8, "bf16": 8}


@pytest.mark.parametrize("of_set", SETS)
def test_every_kernel_is_one_name_and_whole_warps(of_set: str) -> None:
    made = kernels(of_set, "sm_90")
    assert len({one.name for one in made}) == len(made)
    for one in made:
        if one.schedule:
            continue
        warps = [tile / warp for tile, warp in zip(one.tile, one.warp, strict=True)]
        assert all(count.is_integer() for count in warps) and warps[2] == 1 and warps[0] * warps[1] <= 8


def test_what_does_not_fit_an_architecture_is_left_out() -> None:
    small, large = kernels("default", "sm_89"), kernels("default", "sm_90")
    assert len(small) < len(large) and set(small) < set(large)
    assert max(one.smem_bytes for one in small) <= 99 * 1024


@pytest.mark.parametrize(
    ("of_set", "arch", "message"),
    [
        ("all", "sm_90", r"set = 'all': no such set of CUTLASS kernels; use one of paper, default, wide"),
        ("wide", "sm_80", r"arch = 'sm_80': the set wide needs wgmma, which sm_90 alone has; build the set default"),
        ("wide", "sm_100", r"arch = 'sm_100': .*; build the set default"),
        ("paper", "sm_1", "arch = 'sm_1': .*use one of sm_70"),
        ("default", "sm_75", "arch = 'sm_75': .*came with sm_80; build the set paper"),
    ],
)
def test_a_wrong_set_or_architecture_names_the_way_out(of_set: str, arch: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kernels(of_set, arch)


def test_sources_are_the_same_every_time_and_name_every_kernel_once() -> None:
    made = kernels("default", "sm_90")
    files = sources(made)
    assert files == sources(kernels("default", "sm_90"))
    parts = [text for name, text in files.items() if name.startswith("part_")]
    assert len(parts) == -(-len(made) // KERNELS_PER_FILE)
    assert sum(text.count("device::Gemm<") for text in parts) == len(made)
    assert all("".join(parts).count(f'\\"{one.name}\\"') == 1 for one in made)
    assert [name for name in files if name.endswith(".h")] == list(HEADERS)


def test_the_wide_set_is_the_default_set_and_wgmma() -> None:
    default, wide = kernels("default", "sm_90"), kernels("wide", "sm_90")
    more = wide[len(default) :]
    assert wide[: len(default)] == default and 32 <= len(more) <= 45 and all(one.schedule for one in more)
    assert {(one.dtype, one.layout) for one in more} == {
        *((dtype, layout) for dtype in ("fp16", "bf16") for layout in ("nn", "nt")),
        ("tf32", "nt"),
        ("fp8_e4m3", "nt"),
    }
    assert {one.cluster for one in more} == {(1, 1), (2, 1), (1, 2)}
    assert {one.schedule for one in more} == {"ws", "pingpong", "coop", "streamk", "pingpongfast", "coopfast"}
    # a row of a tile is 128 bytes: what one swizzled row of shared memory holds
    assert {(one.dtype, one.tile[2], one.alignment) for one in more} == {("fp16", 64, 8), ("bf16", 64, 8), ("tf32", 32, 4), ("fp8_e4m3", 128, 16)}
    # a cooperative tile is shared by two warp groups of 64 rows each
    assert all(one.tile[0] >= 128 for one in more if one.schedule.startswith(("coop", "streamk")))
    # the schedule is in the name alone, which is never learned from
    assert len({(one.dtype, one.layout, replace(one.config, kernel="")) for one in wide}) == len(wide)


def test_the_wide_set_compiles_what_the_default_set_has_not() -> None:
    """Equal files are one object in the cache."""
    default, wide = sources(kernels("default", "sm_90")), sources(kernels("wide", "sm_90"))
    assert {name: text for name, text in default.items() if name != "table.cu"}.items() <= wide.items()
    assert "sm_90a" in flags("sm_90")[-1] and flags("sm_80")[-1].endswith("code=sm_80")


@pytest.mark.parametrize("of_set", SETS)
def test_no_kernel_needs_more_shared_memory_than_its_architecture_has(of_set: str) -> None:
    for arch in ("sm_90",) if of_set == "wide" else ("sm_80", "sm_89", "sm_90"):
        assert all(one.smem_bytes <= SMEM_KIB[arch] * 1024 for one in kernels(of_set, arch))


def test_configurations_are_given_by_dtype_and_layout() -> None:
    made = configs("wide", "sm_90", "bf16", "nt")
    assert [config.kernel for config in made] == [one.name for one in kernels("wide", "sm_90") if (one.dtype, one.layout) == ("bf16", "nt")]
    assert len(made) == 22 and {config.family for config in made} == {"cutlass"}
    # as many stages as fit: the compiler finds out
    assert {config.stages for config in made if config.cluster_m} == {0} and all(config.stages for config in made if not config.cluster_m)
    assert len(configs("paper", "sm_90", "fp32", "tt")) == 6
    assert configs("paper", "sm_90", "bf16", "nt") == configs("default", "sm_90", "fp8_e4m3", "nt") == []
    with pytest.raises(InputError, match="no such set"):
        configs("all", "sm_90", "bf16", "nt")


def test_fp8_is_stored_as_fp8_and_its_result_as_bf16() -> None:
    (one,) = (one for one in kernels("wide", "sm_90") if one.dtype == "fp8_e4m3" and one.schedule == "streamk")
    flat = " ".join(sources([one])["part_00.cu"].split())
    assert "cutlass::float_e4m3_t, cutlass::bfloat16_t, cutlass::layout::RowMajor, cutlass::layout::ColumnMajor, 16, 8," in flat
    assert "KernelTmaWarpSpecializedCooperative, cutlass::epilogue::TmaWarpSpecializedCooperative, cutlass::gemm::StreamKScheduler, 1>" in flat
    assert '\\"stages\\": %d' in flat


def test_operands_are_typed_as_they_are_stored() -> None:
    text = sources([replace(kernels("default", "sm_90")[-1], layout="tn", dtype="fp16")])["part_00.cu"]
    flat = " ".join(text.split())
    assert (
        "cutlass::half_t, cutlass::layout::ColumnMajor, cutlass::half_t, cutlass::layout::RowMajor, cutlass::half_t, cutlass::layout::RowMajor"
        in flat
    )


def test_the_cache_goes_by_text_architecture_and_versions() -> None:
    texts = list(sources([SIMT]).values())
    other = list(sources([replace(SIMT, stages=4)]).values())
    hashes = [
        content_hash(texts, "sm_90", KIT),
        content_hash(other, "sm_90", KIT),
        content_hash(texts, "sm_80", KIT),
        content_hash(texts, "sm_90", replace(KIT, nvcc_version="12.9.1")),
        content_hash(texts, "sm_90", replace(KIT, headers_version="4.3.0")),
    ]
    assert len(set(hashes)) == len(hashes)
    assert content_hash(texts, "sm_90", replace(KIT, nvcc=Path("elsewhere"), headers=Path("elsewhere"))) == hashes[0]


def test_without_nvcc_or_headers_the_message_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none on the PATH; install the CUDA toolkit .* the others need no nvcc"):
        find_nvcc(str(tmp_path), [])
    with pytest.raises(InputError, match="pip install --no-deps nvidia-cutlass"):
        find_headers(packages=[tmp_path])
    with pytest.raises(InputError, match=r"headers = '.*': no CUTLASS headers there"):
        find_headers(tmp_path)
    with pytest.raises(InputError, match="can't be run"):
        toolkit(tmp_path / "nvcc", tmp_path)


def test_nvcc_and_headers_of_the_wheels_are_found(tmp_path: Path) -> None:
    nvcc, version = tmp_path / "cu13/bin/nvcc", tmp_path / "source/include/cutlass/version.h"
    for path in (nvcc, version):
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.88\n")
    nvcc.chmod(0o755)
    version.write_text("#define CUTLASS_MAJOR 4\n#define CUTLASS_MINOR 2\n#define CUTLASS_PATCH 0\n")
    kit = toolkit(find_nvcc(str(tmp_path / "empty"), [tmp_path]), find_headers(packages=[tmp_path]))
    assert (kit.nvcc, kit.nvcc_version, kit.headers_version) == (nvcc, "13.0.88", "4.2.0")


def test_a_file_that_nvcc_refuses_is_named_and_leaves_no_library(tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'part_00.cu(3): error: no such tile' >&2\nexit 2\n")
    nvcc.chmod(0o755)
    with pytest.raises(BuildError, match=r"nvcc 13\.0\.88 refused .*\.cu: part_00\.cu\(3\): error: no such tile"):
        build([SIMT], "paper", "sm_90", tmp_path / "out", replace(KIT, nvcc=nvcc), jobs=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["objects"]


@pytest.mark.parametrize("one", [SIMT, *kernels("wide", "sm_90")[::7]], ids=lambda one: one.name)
def test_a_kernels_own_configuration_means_that_kernel(one: Kernel) -> None:
    built = _built([*kernels("paper", "sm_90"), *kernels("wide", "sm_90")])
    gemm = Gemm(m=64, n=64, k=64, dtype=one.dtype, layout=one.layout)
    assert choose(built, gemm, one.config).name == one.name
    assert choose(built, gemm, replace(one.config, kernel="", split_k=4)).name == one.name
    assert choose(built, gemm, KernelConfig(family="cutlass", kernel=one.name)).name == one.name


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"tile_m": 96}, r"no CUTLASS kernel was built for fp16 nn with cutlass tile_m=96"),
        ({"tile_m": 128, "tile_n": 128}, r"leaves 5 CUTLASS kernels, tensorop_fp16_nn_128x128x32.*: give more knobs"),
    ],
)
def test_none_or_several_kernels_are_unsupported(knobs: dict[str, int], reason: str) -> None:
    with pytest.raises(MeasurementError, match=reason) as caught:
        choose(_built(kernels("default", "sm_90")), Gemm(m=64, n=64, k=64, dtype="fp16"), KernelConfig(family="cutlass", **knobs))
    assert caught.value.status == "unsupported"


def test_the_row_tells_the_knobs_of_a_kernel_that_was_only_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through prepare, on a CUDA and a library of paper."""

    class Library:
        def gemmcast_can_implement(self, *_problem: Any) -> int:
            return 0

        def gemmcast_workspace_bytes(self, _index: int, m: int, n: int, _k: int, split_k: int) -> int:
            return m * n * split_k

        def gemmcast_facts(self, _index: int, found: Any) -> int:
            found[:] = (384, 200_000, 168, 0, 1)
            return 0

    runtime = SimpleNamespace(getDeviceProperties=lambda _id: {"maxThreadsPerMultiProcessor": 2048})
    cuda = SimpleNamespace(Device=lambda: SimpleNamespace(id=0, compute_capability="90"), alloc=lambda _size: SimpleNamespace(ptr=1), runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    one = kernels("wide", "sm_90")[-1]
    family = Cutlass(Path("nowhere"))
    built = replace(_built([one])[0], library=Library(), origin="cutlass 4.2.0, nvcc 13.0.88")
    monkeypatch.setattr(family, "kernels", lambda _arch: [replace(built, knobs={**built.knobs, "stages": 6})])
    gemm = Gemm(m=64, n=32, k=256, dtype=one.dtype, layout=one.layout)
    assert family.prepare(gemm, KernelConfig(family="cutlass", kernel=one.name, split_k=2), []).facts == {
        "kernel": one.name, "library": "cutlass 4.2.0, nvcc 13.0.88", "block_threads": 384, "smem_bytes": 200_000, "regs": 168, "spill_bytes": 0,
        "occupancy": 384 / 2048, "workspace_bytes": 64 * 32 * 2, "tile_m": 128, "tile_n": 128, "tile_k": 128, "stages": 6, "swizzle": 1,
        "cluster_m": 1, "cluster_n": 2, "split_k": 2,
    }  # fmt: skip
    assert family.prepare(gemm, KernelConfig(family="cutlass", kernel=one.name), []).facts["split_k"] == 1


@pytest.mark.parametrize(("layout", "strides"), [("nn", (5, 4, 4)), ("tn", (3, 4, 4)), ("nt", (5, 5, 4)), ("tt", (3, 5, 4))])
def test_leading_dimensions_are_those_of_the_stored_operands(layout: str, strides: tuple[int, int, int]) -> None:
    assert leading(Gemm(m=3, n=4, k=5, layout=layout)) == strides


def test_where_nothing_was_built_the_reason_says_how_to(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"unsupported: no CUTLASS kernels were built for sm_90 .*run python -m agent\.kernels\.cutlass build"):
        Cutlass(tmp_path).kernels("sm_90")
    assert isinstance(load("cutlass"), Cutlass)


def test_the_command_lists_configurations_and_ends_with_two_on_bad_input(tmp_path: Path) -> None:
    listed = _run("list", "--arch", "sm_90", "--set", "paper", "--json")
    assert len(json.loads(listed.stdout.splitlines()[-1])["kernels"]) == 24
    for arguments, message in ((["--set", "all"], "set = 'all'"), (["--headers", str(tmp_path), "--nvcc", "nvcc"], "no CUTLASS headers there")):
        done = _run("build", "--arch", "sm_90", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and message in done.stderr


def test_building_and_listing_load_neither_cupy_nor_numpy() -> None:
    """A machine without a GPU can build for those that have one."""
    code = "import sys, agent.kernels.cutlass, agent.kernels.cutlass.build; print(sorted({'cupy', 'numpy', 'ray', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _kit() -> Toolkit:
    given = os.environ.get("CUTLASS_HEADERS")
    try:
        return toolkit(find_nvcc(), find_headers(Path(given) if given else None))
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_compiled_library_tells_its_kernels_without_a_gpu(tmp_path: Path) -> None:
    kit, seen = _kit(), []
    first = build([SIMT], "paper", "sm_90", tmp_path, kit, jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert not first["cached"] and seen == [(0, 2), (1, 2), (2, 2)]
    assert build([SIMT], "paper", "sm_90", tmp_path, kit, jobs=2)["cached"]
    manifest = json.loads(manifest_path(tmp_path, "paper", "sm_90").read_text())
    assert (manifest["kernels"], manifest["cutlass"], manifest["nvcc"]) == (1, kit.headers_version, kit.nvcc_version)

    (one,) = Cutlass(tmp_path).kernels("sm_90")
    assert (one.name, one.origin) == (SIMT.name, f"cutlass {kit.headers_version}, nvcc {kit.nvcc_version}")
    library = one.library
    assert json.loads(library.gemmcast_describe(0)) == SIMT.description
    assert library.gemmcast_describe(1) is None and library.gemmcast_occupancy(1) == -1
    assert open_library(Path(first["library"]))[0].knobs == one.knobs
    _check_host_side(library)


def _check_host_side(library: Any) -> None:
    """What CUTLASS decides on the host: what can be done, and the semaphores of split-k (one int a tile)."""

    def can(index: int = 0, m: int = 100, split_k: int = 1) -> int:
        return int(library.gemmcast_can_implement(index, m, 70, 33, 4096, 33, 4096, 70, 4096, 70, 1.0, 0.0, split_k))

    assert len(PROBLEM) == 12
    assert (can(), can(split_k=5), can(index=7), can(m=0)) == (0, 0, -1, 4)
    assert can(split_k=4) == 4  # five steps of k in slices of two: the fourth would be empty
    assert library.gemmcast_workspace_bytes(0, 100, 70, 33, 1) == 0
    assert library.gemmcast_workspace_bytes(0, 100, 70, 33, 5) == 2 * 2 * ctypes.sizeof(ctypes.c_int)
    # a workspace too small is refused before anything is launched
    assert library.gemmcast_run(0, 100, 70, 33, 4096, 33, 4096, 70, 4096, 70, 1.0, 0.0, 5, None, 0, None) == 6


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_compiled_wgmma_library_tells_its_stages_and_limits_without_a_gpu(tmp_path: Path) -> None:
    (made,) = (one for one in kernels("wide", "sm_90") if one.schedule == "streamk" and (one.dtype, one.layout) == ("fp8_e4m3", "nt"))
    (one,) = open_library(Path(build([made], "wide", "sm_90", tmp_path, _kit(), jobs=2)["library"]))
    assert (one.name, one.alignment, one.knobs["cluster_n"]) == (made.name, 16, 2) and one.knobs["stages"] >= 4

    def can(n: int = 64, k: int = 512, a: int = 4096, split_k: int = 1) -> int:
        return int(one.library.gemmcast_can_implement(0, 100, n, k, a, k, 4096, k, 4096, n, 1.0, 0.0, split_k))

    assert (can(), can(split_k=4), can(n=72)) == (0, 0, 0)
    assert (can(split_k=5), can(k=520), can(n=68), can(a=4104)) == (4, 1, 1, 1)  # four steps of k; whole 16 bytes
    # stream-k's plan divides by the number of SMs: without a GPU it must be refused, with one for want of a workspace
    assert one.library.gemmcast_run(0, 100, 64, 512, 4096, 512, 4096, 512, 4096, 64, 1.0, 0.0, 2, None, 0, None) in (6, 9)
