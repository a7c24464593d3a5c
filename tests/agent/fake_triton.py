"""A Triton that compiles nothing, and a project that describes a kernel in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.kernels.triton.build import Compiled, build, compilations_of
from agent.kernels.triton.cubins import Cubins
from agent.kernels.triton.description import TritonKernel
from agent.kernels.triton.fit import Compilation
from agent.kernels.triton.sets import all_configs
from gemmcast.gemm import Gemm

KERNEL = "mine/kernel.toml"
SOURCE = "# what Triton compiles\n"
DESCRIPTION = """
source = "kernel.py"
entry = "kernel"
grid = ["((m + TILE_M - 1) / TILE_M) * ((n + TILE_N - 1) / TILE_N)", "batch"]
multiples_of_16 = ["k"]
dtypes = ["fp32"]
layouts = ["nn"]

[arguments]
a = "a"
b = "b"
c = "c"
m = "m"
n = "n"
k = "k"
group_m = "GROUP_M"

[constants]
TILE_M = "TILE_M"
TILE_N = "TILE_N"

[knobs]
tile_m = [64, 16]
tile_n = 32
group_m = [1, 8]
warps = [4, 8]
stages = [2, 3]
"""


def write_project(root: Path, description: str = DESCRIPTION, source: str = SOURCE) -> None:
    """The description KERNEL and its source."""
    folder = root / "mine"
    folder.mkdir(exist_ok=True)
    (folder / "kernel.toml").write_text(description)
    (folder / "kernel.py").write_text(source)


class FakeCompiler:
    """Makes a cubin of every compilation.

    Args:
        refused: tile_m that it does not compile.
    """

    def __init__(self, version: str = "3.6.0", refused: int = 0) -> None:
        self.version = version
        self.compiled: list[Compilation] = []
        self._refused = refused

    def compile_all(
        self, compilations: Sequence[Compilation], jobs: int
    ) -> Iterator[tuple[Compilation, Compiled | str]]:
        """See `Compiler`: the last one first."""
        for compilation in reversed(compilations):
            self.compiled.append(compilation)
            if ("TILE_M", self._refused) in compilation.constants:
                yield compilation, "CompilationError: no such tile"
                continue
            compiled = Compiled(
                cubin=f"cubin of {compilation}".encode(),
                entry=compilation.entry,
                smem_bytes=4096,
                regs=40,
                spill_bytes=0,
            )
            yield compilation, compiled


def compile_into(
    cubins: Cubins, kernel: TritonKernel, gemm: Gemm, compiler: FakeCompiler | None = None
) -> None:
    """All configurations of the kernel, of the set short where it is one of ours."""
    configs = all_configs(kernel, "short", "sm_90", gemm)
    build(
        compilations_of(kernel, gemm, configs, "sm_90"),
        cubins,
        compiler or FakeCompiler(),
        arch="sm_90",
        configurations=len(configs),
        jobs=1,
    )
