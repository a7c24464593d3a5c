"""Triton kernels without Triton: descriptions, fitting, sets, what is kept, the check of scales."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.check import check
from agent.dtypes import narrow, widen
from agent.kernels import BlockScales, Prepared
from agent.kernels.triton import Triton, cli, compiler, read_triton
from agent.kernels.triton.build import build, compilations_of
from agent.kernels.triton.cubins import CubinFacts, Cubins, default_folder
from agent.kernels.triton.description import parse_triton
from agent.kernels.triton.fit import FittedKernel, fit
from agent.kernels.triton.routing import Routing
from agent.kernels.triton.scales import ScaleSets
from agent.kernels.triton.sets import all_configs
from agent.operands import Carved, Operands, input_elements, output_elements
from coordinator.plan import sweep
from gemmcast.config import FAMILIES, TRITON_KERNELS, KernelConfig
from gemmcast.errors import InputError, MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.triton_sets import TRITON_OPERANDS, TRITON_SETS, configs, is_default
from tests.agent.fake_triton import (
    DESCRIPTION,
    KERNEL,
    FakeCompiler,
    compile_into,
    write_project,
)

BF16 = Gemm(m=100, n=64, k=96, dtype="bf16", layout="nt")
FP8 = replace(BF16, dtype="fp8_e4m3")
ROOT = Path(__file__).resolve().parents[2]


def config(kernel: str = "matmul", **knobs: int) -> KernelConfig:
    return KernelConfig(family="triton", kernel=kernel, **knobs)


def fitted(gemm: Gemm = BF16, kernel: str = "matmul", **knobs: int) -> FittedKernel:
    return fit(read_triton(kernel), gemm, config(kernel, **knobs), "sm_90")


def refusal(gemm: Gemm, kernel: str = "matmul", **knobs: int) -> str:
    with pytest.raises(MeasurementError) as caught:
        fitted(gemm, kernel, **knobs)
    assert caught.value.status == "unsupported"
    return str(caught.value.reason)


# fitting


def test_a_kernel_is_fitted_to_a_gemm() -> None:
    kernel = fitted(replace(BF16, batch=3), tile_m=16, tile_n=32, tile_k=64, swizzle=8)
    assert kernel.grid == (7 * 2, 3, 1)
    assert kernel.pointers == ("a", "b", "c")
    assert kernel.numbers == (100, 64, 96, 8)
    compilation = kernel.compilation
    assert compilation.signature[:4] == (
        ("a", "*bf16"),
        ("b", "*bf16"),
        ("c", "*bf16"),
        ("m", "i32"),
    )
    assert dict(compilation.constants) == {"TILE_M": 16, "TILE_N": 32, "TILE_K": 64, "TRANS_B": 1}
    assert compilation.multiples_of_16 == ("n", "k")
    assert (compilation.warps, compilation.stages, kernel.threads) == (4, 2, 128)


def test_knobs_that_are_left_out_are_those_that_engines_ship() -> None:
    assert fitted().knobs == {
        "tile_m": 64,
        "tile_n": 128,
        "tile_k": 128,
        "swizzle": 32,
        "block_threads": 128,
        "stages": 2,
    }


def test_scaled_operands_bring_two_pointers_more_and_c_is_bf16() -> None:
    kernel = fitted(FP8, "scaled_block")
    assert kernel.pointers == ("a", "b", "c", "a_scales", "b_scales")
    types = [kind for _, kind in kernel.compilation.signature]
    assert types[:5] == ["*fp8e4nv", "*fp8e4nv", "*bf16", "*fp32", "*fp32"]


@pytest.mark.parametrize(
    ("gemm", "kernel", "knobs", "reason"),
    [
        (replace(BF16, k=100), "matmul", {}, "needs a multiple of 16 as k, not 100"),
        (replace(BF16, n=40), "matmul", {}, "needs a multiple of 16 as n, not 40"),
        (replace(BF16, dtype="fp32"), "matmul", {}, "matmul has no dtype fp32"),
        (replace(BF16, layout="tn"), "matmul", {}, "matmul has no layout tn"),
        (replace(FP8, layout="nn"), "scaled_block", {}, "scaled_block has no layout nn"),
        (replace(BF16, beta=1.0), "matmul", {}, "without alpha = 1 and beta = 1"),
        (replace(BF16, alpha=0.5), "matmul", {}, "without alpha = 0.5 and beta = 0"),
        (replace(FP8, batch=2), "scaled_block", {}, "one matrix at a time, not 2"),
        (replace(BF16, batch=70_000), "matmul", {}, "CUDA's limit of 65535 blocks in y and z"),
        (BF16, "matmul", {"tile_m": 48}, "no tile_m=48"),
        (FP8, "scaled_block", {"tile_k": 256}, "no tile_k=256"),
        (BF16, "matmul", {"split_k": 2}, "no split_k=2"),
        (BF16, "matmul", {"block_threads": 96}, "no block_threads=96"),
    ],
    ids=str,
)
def test_what_a_kernel_does_not_multiply_is_unsupported(
    gemm: Gemm, kernel: str, knobs: dict[str, int], reason: str
) -> None:
    assert reason in refusal(gemm, kernel, **knobs)


def test_m_may_be_any_number_and_changes_no_machine_code() -> None:
    keys = {fitted(replace(BF16, m=m)).compilation.key for m in (1, 16, 37, 4096)}
    assert len(keys) == 1


def test_group_m_is_an_argument_and_other_knobs_are_compiled() -> None:
    base = fitted().compilation.key
    assert fitted(swizzle=1).compilation.key == base
    for knobs in ({"tile_m": 16}, {"tile_k": 64}, {"block_threads": 256}, {"stages": 3}):
        assert fitted(**knobs).compilation.key != base
    assert fitted(replace(BF16, dtype="fp16")).compilation.key != base
    assert fitted(replace(BF16, layout="nn")).compilation.key != base


def test_an_argument_over_32_bits_is_unsupported(tmp_path: Path) -> None:
    write_project(tmp_path, DESCRIPTION.replace('m = "m"', 'm = "m * n * k"'))
    kernel = read_triton(KERNEL, tmp_path)
    gemm = Gemm(m=2048, n=2048, k=1024)
    with pytest.raises(MeasurementError, match=r"32 bits, and m is 4294967296"):
        fit(kernel, gemm, config(KERNEL), "sm_90")


# descriptions


def test_a_kernel_of_a_project_is_named_by_its_content(tmp_path: Path) -> None:
    write_project(tmp_path)
    kernel = read_triton(KERNEL, tmp_path)
    path, digest = kernel.name.split("@")
    assert path == KERNEL
    assert read_triton(kernel.name, tmp_path) == kernel
    write_project(tmp_path, source="# edited\n")
    edited = read_triton(KERNEL, tmp_path)
    assert edited.name != kernel.name
    with pytest.raises(InputError, match=f"the files have changed, they are @{edited.digest} now"):
        read_triton(kernel.name, tmp_path)
    assert digest == kernel.digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('a = "a"', 'a = "m"', "arguments: pointers come before numbers"),
        ('c = "c"\n', "", "arguments: a, b and c are needed"),
        ('multiples_of_16 = ["k"]', 'multiples_of_16 = ["K"]', "use m, n, k, group_m"),
        ('dtypes = ["fp32"]', 'dtypes = ["int8"]', "dtypes = 'int8'"),
        ('layouts = ["nn"]', 'layouts = ["xx"]', "layouts = 'xx'"),
        ("tile_n = 32", "tile_x = 32", "knobs = 'tile_x'"),
        ('TILE_N = "TILE_N"', 'm = "TILE_N"', "one parameter is an argument and a constant"),
        ('entry = "kernel"', 'entry = "2"', "entry = '2'"),
        ("source =", "sauce =", "source = None: missing"),
    ],
    ids=str,
)
def test_a_wrong_description_is_refused_with_the_key(old: str, new: str, message: str) -> None:
    assert old in DESCRIPTION
    with pytest.raises(InputError) as caught:
        parse_triton(DESCRIPTION.replace(old, new).encode(), "kernel.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["ragged", "../kernel.toml", "/kernel.toml", "nowhere.toml"])
def test_a_name_that_is_no_kernel_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kernel = "):
        read_triton(name, tmp_path)


def test_what_our_kernels_multiply_is_said_without_their_descriptions() -> None:
    assert tuple(TRITON_OPERANDS) == TRITON_KERNELS
    for kernel, operands in TRITON_OPERANDS.items():
        description = read_triton(kernel).description
        assert operands == (description.dtypes, description.layouts)


@pytest.mark.parametrize("name", [*TRITON_KERNELS, "examples/kernels/w8a8_block.toml"])
def test_kernels_of_the_repository_fit_in_every_dtype_and_layout(name: str) -> None:
    kernel = read_triton(name)
    for dtype in kernel.description.dtypes:
        assert dtype in FAMILIES["triton"].dtypes
        for layout in kernel.description.layouts:
            gemm = replace(BF16, dtype=dtype, layout=layout)
            assert fit(kernel, gemm, config(name), "sm_90").grid[0] > 0


# sets


def test_the_usual_set_is_that_of_the_tuners() -> None:
    table = TRITON_SETS["usual"]
    assert np.prod([len(values) for values in table]) == 1280
    members = configs("usual", "sm_90", "scaled_block", "fp8_e4m3", "nt")
    assert len(members) == len(set(members)) == 1144
    assert len(configs("usual", "sm_90", "", "bf16", "nt")) == 1008


@pytest.mark.parametrize("set_name", TRITON_SETS)
@pytest.mark.parametrize(("kernel", "gemm"), [("matmul", BF16), ("scaled_block", FP8)])
def test_every_configuration_of_a_set_fits_the_kernel(
    set_name: str, kernel: str, gemm: Gemm
) -> None:
    described = read_triton(kernel)
    members = all_configs(described, set_name, "sm_90", gemm)
    for member in members:
        fit(described, gemm, member, "sm_90")
    assert [member for member in members if is_default(member)] == members[:1]
    assert set(members) <= set(all_configs(described, "usual", "sm_90", gemm))


def test_less_shared_memory_leaves_fewer_configurations() -> None:
    sizes = {}
    for arch in ("sm_90", "sm_89"):
        sizes[arch] = len(configs("usual", arch, "matmul", "fp16", "nt"))
    assert 0 < sizes["sm_89"] < sizes["sm_90"]


def test_a_set_has_nothing_of_what_the_kernel_does_not_multiply() -> None:
    assert configs("short", "sm_90", "scaled_block", "bf16", "nt") == []


@pytest.mark.parametrize(
    "names", [("long", "sm_90", ""), ("short", "sm_12", ""), ("short", "sm_90", "x")]
)
def test_an_unknown_set_or_architecture_or_kernel_is_refused(names: tuple[str, str, str]) -> None:
    with pytest.raises(InputError):
        configs(*names, "bf16", "nt")


def test_plans_know_the_same_sets() -> None:
    assert set(TRITON_SETS) == set(sweep.TRITON_SETS)


# what is built and kept


def test_a_build_compiles_each_kernel_once_and_continues(tmp_path: Path) -> None:
    kernel = read_triton("matmul")
    members = configs("short", "sm_90", "matmul", "bf16", "nt")
    needed = compilations_of(kernel, BF16, members, "sm_90")
    # Configurations that differ in group_m share one.
    assert len(needed) == len(members) / 2
    cubins = Cubins(tmp_path)
    first, second, other = FakeCompiler(), FakeCompiler(), FakeCompiler("3.7.0")
    done: list[tuple[int, int]] = []

    def run(compiler: FakeCompiler, compilations: list[Any]) -> Any:
        return build(
            compilations,
            cubins,
            compiler,
            arch="sm_90",
            configurations=len(members),
            jobs=1,
            progress=lambda *numbers: done.append(numbers),
        )

    run(first, needed[:10])
    assert done[-1] == (10, 10)
    report = run(second, needed)
    assert second.compiled == needed[:9:-1]
    assert (report["kernels"], report["cached"], report["failed"]) == (len(needed), 10, 0)
    assert report["bytes"] == sum(cubins.path(one).stat().st_size for one in needed)
    # Another version of Triton makes other machine code.
    assert run(other, needed)["cached"] == 0
    assert cubins.compiled(needed[0]).triton == "3.7.0"


def test_a_build_needs_no_sizes(tmp_path: Path) -> None:
    description = DESCRIPTION.replace('k = "k"', 'k = "k / 128"')
    write_project(tmp_path, description)
    kernel = read_triton(KERNEL, tmp_path)
    gemm = Gemm(m=256, n=256, k=256)
    configs_of_it = all_configs(kernel, "", "sm_90", gemm)
    (first, *_) = compilations_of(kernel, gemm, configs_of_it, "sm_90")
    with pytest.raises(MeasurementError, match="multiple of 16 as k, not 2"):
        fit(kernel, gemm, configs_of_it[0], "sm_90")
    large = replace(gemm, k=2048)
    assert fit(kernel, large, configs_of_it[0], "sm_90").compilation == first


def test_a_refusal_of_tritons_says_why_and_is_tried_again(tmp_path: Path) -> None:
    cubins = Cubins(tmp_path)
    compile_into(cubins, read_triton("matmul"), BF16, FakeCompiler(refused=16))
    assert cubins.compiled(fitted(tile_m=64).compilation).smem_bytes == 4096
    with pytest.raises(MeasurementError) as caught:
        cubins.compiled(fitted(tile_m=16).compilation)
    assert caught.value.status == "unsupported"
    assert "no such tile" in str(caught.value.reason)
    again = FakeCompiler()
    compile_into(cubins, read_triton("matmul"), BF16, again)
    # It may have had another cause than the kernel.
    assert {dict(one.constants)["TILE_M"] for one in again.compiled} == {16}
    assert cubins.compiled(fitted(tile_m=16).compilation).regs == 40


def test_what_was_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError) as caught:
        Cubins(tmp_path).compiled(fitted().compilation)
    command = "python -m agent.kernels.triton build --arch sm_90 --kernel matmul"
    assert str(caught.value.reason).endswith(command)


@pytest.mark.parametrize("damage", ["no cubin", '{"triton": ', "[1]", '{"triton": "4", "x": 1}'])
def test_what_is_damaged_is_built_again(damage: str, tmp_path: Path) -> None:
    cubins = Cubins(tmp_path)
    compile_into(cubins, read_triton("matmul"), BF16)
    compilation = fitted().compilation
    if damage == "no cubin":
        cubins.path(compilation).unlink()
    else:
        cubins.path(compilation).with_suffix(".json").write_text(damage)
    with pytest.raises(MeasurementError):
        cubins.compiled(compilation)
    again = FakeCompiler()
    compile_into(cubins, read_triton("matmul"), BF16, again)
    assert again.compiled == [compilation]
    assert cubins.compiled(compilation).regs == 40


def test_the_folder_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEMMCAST_TRITON", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("GEMMCAST_TRITON")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "gemmcast" / "triton"


def test_facts_are_written_as_they_are_read(tmp_path: Path) -> None:
    facts = CubinFacts(triton="3.6.0", entry="matmul", smem_bytes=1, regs=2, spill_bytes=3)
    cubins = Cubins(tmp_path)
    cubins.write(fitted().compilation, facts, b"machine code")
    assert cubins.facts(fitted().compilation) == facts
    assert sorted(path.suffix for path in tmp_path.rglob("*.*")) == [".cubin", ".json"]


# the command


def test_list_prints_configurations_that_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--arch", "sm_90", "--kernel", "scaled_block", "--set", "short"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 184
    assert lines[0].startswith("fp8_e4m3 nt  triton:kernel=scaled_block,")
    assert KernelConfig.parse(lines[0].split()[-1]) == config(
        "scaled_block", tile_m=64, tile_n=128, tile_k=128, swizzle=32, block_threads=128, stages=2
    )


def test_list_as_json_has_each_configuration_once(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["list", "--arch", "sm_90", "--kernel", "matmul", "--set", "short", "--json"]
    assert cli.main([*arguments, "--dtype", "bf16"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len({KernelConfig(**values) for values in listed}) == len(listed) == 174


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--arch", "sm_12"],
        ["list", "--arch", "sm_90", "--set", "long"],
        ["list", "--arch", "sm_90", "--kernel", "ragged"],
        ["list", "--arch", "sm_90", "--dtype", "fp64"],
    ],
    ids=str,
)
def test_bad_input_ends_with_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_build_compiles_what_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiler, "TritonCompiler", FakeCompiler)
    arguments = ["build", "--arch", "sm_90", "--kernel", "scaled_block", "--set", "short"]
    assert cli.main([*arguments, "--out", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["configurations"], report["kernels"]) == (184, 92)
    assert Cubins(tmp_path).compiled(fitted(FP8, "scaled_block").compilation).regs == 40
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "(92 were there, 0 refused by Triton" in capsys.readouterr().out


def test_build_without_triton_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["build", "--arch", "sm_90", "--out", str(tmp_path / "cubins")]) == 2
    assert "pip install triton" in capsys.readouterr().err
    assert not (tmp_path / "cubins").exists()


def test_descriptions_and_sets_need_neither_triton_nor_cuda() -> None:
    code = "\n".join(
        [
            "import sys",
            "from agent.kernels.triton import FAMILY, cli, sets",
            "cli.main(['list', '--arch', 'sm_90', '--set', 'short'])",
            "print({'triton', 'cupy', 'numpy'} & set(sys.modules))",
        ]
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


# scales


def operands_of(gemm: Gemm) -> Operands:
    rng = np.random.default_rng(7)
    values = rng.standard_normal(input_elements(gemm), np.float32)
    outputs = np.zeros(output_elements(gemm), np.uint16)
    (operands,) = Carved(gemm, narrow(np, values, gemm.dtype), outputs, 1)
    return operands


def product(gemm: Gemm, operands: Operands, scales: BlockScales) -> Prepared:
    """A kernel that multiplies block by block."""

    def launch(_: int) -> None:
        a = widen(np, operands.a[0], gemm.dtype)
        b = widen(np, operands.b[0], gemm.dtype)
        c = np.zeros((gemm.m, gemm.n))
        for block in range(scales.a.shape[1]):
            k = slice(128 * block, 128 * (block + 1))
            b_scale = np.repeat(scales.b[:, block], 128)[: gemm.n]
            c += (a[:, k] @ b[:, k].T) * scales.a[:, block, None] * b_scale
        operands.c[0] = narrow(np, c.astype(np.float32), "bf16")

    return Prepared(launch)


SCALED = Gemm(m=70, n=200, k=400, dtype="fp8_e4m3", layout="nt")


def test_a_product_of_scaled_operands_passes_the_check() -> None:
    scales = ScaleSets(np, SCALED, 3).first
    assert (scales.a.shape, scales.b.shape) == ((70, 4), (2, 4))
    operands = operands_of(SCALED)
    prepared = replace(product(SCALED, operands, scales), scales=scales)
    assert check(np, SCALED, operands, prepared) < 0.02


@pytest.mark.parametrize("wrong", ["no scales", "row", "block of a", "block of b", "columns"])
def test_a_scale_of_another_place_is_a_wrong_result(wrong: str) -> None:
    scales = ScaleSets(np, SCALED, 1).first
    a, b = scales.a.copy(), scales.b.copy()
    if wrong == "no scales":
        a[:], b[:] = 1.0, 1.0
    elif wrong == "row":
        a = np.roll(a, 1, axis=0)
    elif wrong == "block of a":
        a[:, [2, 3]] = a[:, [3, 2]]
    elif wrong == "block of b":
        b[:, [0, 1]] = b[:, [1, 0]]
    else:
        b = b[::-1]
    operands = operands_of(SCALED)
    prepared = replace(product(SCALED, operands, BlockScales(a, b, 128)), scales=scales)
    with pytest.raises(MeasurementError) as caught:
        check(np, SCALED, operands, prepared)
    assert caught.value.status == "incorrect"


# experts


@pytest.mark.parametrize("m", [1, 16, 37])
def test_every_row_is_routed_to_its_expert_once(m: int) -> None:
    gemm = replace(BF16, m=m, batch=3)
    routing = Routing(np, gemm, 16)
    tiles = routing.rows.reshape(-1, 16)
    assert len(tiles) == len(routing.experts)
    assert routing.padded.tolist() == [routing.rows.size]
    assert {array.dtype.name for array in vars(routing).values()} == {"int32"}
    found = []
    for tile, expert in zip(tiles, routing.experts, strict=True):
        rows = tile[tile < 3 * m]
        assert set(rows // m) == {expert}
        found += rows.tolist()
    assert found == list(range(3 * m))


def test_experts_are_a_batch_with_a_tile_of_each() -> None:
    kernel = fitted(replace(BF16, batch=3), "grouped", tile_m=16, tile_n=32, swizzle=8)
    assert kernel.grid == (3 * 7 * 2, 1, 1)
    assert kernel.pointers == ("a", "b", "c", "rows", "experts")
    assert kernel.numbers == (300, 21, 64, 96, 8)
    types = [kind for _, kind in kernel.compilation.signature]
    assert types[:5] == ["*bf16", "*bf16", "*bf16", "*i32", "*i32"]


def test_scales_lie_around_one_and_differ_between_sets() -> None:
    scales = ScaleSets(np, replace(SCALED, m=500, k=4096), 4)
    for array in (scales.a, scales.b):
        assert array.dtype == np.float32
        assert 0.75 <= array.min() < array.max() <= 1.25
        assert not np.array_equal(array[0], array[1])
    assert abs(scales.a.mean() - 1) < 0.01
    neighbours = np.abs(np.diff(scales.a.ravel()))
    assert np.median(neighbours) > 0.1
    assert scales.bytes == 4 * (500 * 32 + 2 * 32)


def test_the_family_is_found_by_its_name() -> None:
    from agent.kernels import load

    assert isinstance(load("triton"), Triton)
