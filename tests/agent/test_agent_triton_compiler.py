"""Triton itself, where it is installed: cubins without a GPU, and kernels in its interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.kernels.triton import compiler, read_triton
from agent.kernels.triton.build import Compiled, build
from agent.kernels.triton.compiler import TritonCompiler
from agent.kernels.triton.cubins import Cubins
from agent.kernels.triton.fit import Compilation, fit
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from tests.agent.fake_triton import DESCRIPTION, KERNEL, write_project

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]
FP8 = Gemm(m=64, n=64, k=128, dtype="fp8_e4m3", layout="nt")
SMALL = {"tile_m": 16, "tile_n": 32, "tile_k": 64}
COPY = """
import os
import triton
import triton.language as tl

@triton.jit
def kernel(a, b, c, m, n, k, group_m, TILE_M: tl.constexpr, TILE_N: tl.constexpr):
    at = tl.arange(0, TILE_M)
    tl.store(c + at, tl.load(a + at))
"""


def compilation(kernel: str, gemm: Gemm, root: Path = ROOT, **knobs: int) -> Compilation:
    config = KernelConfig(family="triton", kernel=kernel, **knobs)
    return fit(read_triton(kernel, root), gemm, config, "sm_90").compilation


def answers(*compilations: Compilation) -> list[Compiled | str]:
    found = {one.key: answer for one, answer in TritonCompiler().compile_all(compilations, jobs=2)}
    return [found[one.key] for one in compilations]


def test_kernels_of_the_repository_are_compiled_without_a_gpu(tmp_path: Path) -> None:
    example = "examples/kernels/w8a8_block.toml"
    half = Gemm(m=64, n=64, k=128, dtype="bf16", layout="nn")
    wanted = [
        compilation("matmul", half, **SMALL),
        compilation("matmul", replace(half, layout="nt"), tile_m=64, tile_n=64, tile_k=64),
        compilation("scaled_block", FP8, **SMALL),
        compilation(example, FP8, tile_m=16, tile_n=64, tile_k=128),
    ]
    installed = TritonCompiler()
    report = build(
        wanted, Cubins(tmp_path), installed, arch="sm_90", configurations=len(wanted), jobs=2
    )
    assert (report["kernels"], report["failed"]) == (4, 0)
    for one in wanted:
        facts = Cubins(tmp_path).compiled(one)
        content = Cubins(tmp_path).path(one).read_bytes()
        assert content.startswith(b"\x7fELF")
        # With line numbers it is three times as large.
        assert len(content) < 50_000
        assert b"debug_line" not in content
        assert (facts.triton, facts.spill_bytes) == (installed.version, 0)
        assert 0 < facts.regs <= 255
    # wgmma keeps all stages in shared memory.
    assert Cubins(tmp_path).compiled(wanted[1]).smem_bytes == 2 * (64 + 64) * 64 * 2


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (COPY.replace("tl.load(a + at)", "tl.nothing(a)"), "AttributeError"),
        (COPY.replace("group_m, ", ""), "kernel has parameters a, b, c, m, n, k, TILE_M, TILE_N"),
        (COPY.replace("m, n, k,", "n, m, k,"), "kernel has parameters a, b, c, n, m, k"),
        (COPY.replace("def kernel", "def other"), "kernel.py has no @triton.jit function kernel"),
        (COPY.replace("import os", "import os; os.abort()"), "its process ended with exit code -6"),
        (COPY.replace("import os", "import absent_package"), "No module named 'absent_package'"),
    ],
    ids=["error", "missing", "order", "entry", "crash", "import"],
)
def test_what_triton_refuses_is_an_answer(source: str, reason: str, tmp_path: Path) -> None:
    write_project(tmp_path, DESCRIPTION, source)
    gemm = Gemm(m=64, n=64, k=64)
    wrong = compilation(KERNEL, gemm, tmp_path)
    right = compilation("scaled_block", FP8, **SMALL)
    answer, other = answers(wrong, right)
    assert isinstance(answer, str)
    assert reason in answer
    assert "\n" not in answer
    assert isinstance(other, Compiled)


def test_a_compilation_that_takes_too_long_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "LIMIT_S", 1.0)
    write_project(tmp_path, DESCRIPTION, COPY.replace("import os", "import time; time.sleep(600)"))
    (answer,) = answers(compilation(KERNEL, Gemm(m=64, n=64, k=64), tmp_path))
    assert answer == "it took longer than 1 s"


def test_kernels_compute_what_they_should() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "agent" / "interpreted_triton.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(errors) == 9
    assert [case for case in errors if not case[-1] < 1e-3] == []
