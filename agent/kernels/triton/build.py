"""Compile Triton kernels ahead, on any machine, for the GPUs of another; cached by content.

What is in the folder already, by the same version of Triton, is not compiled again. Each kernel is
kept as soon as it is done: a build that was killed continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, TypedDict

from agent.kernels.triton.cubins import CubinFacts, Cubins
from agent.kernels.triton.description import TritonKernel
from agent.kernels.triton.fit import Compilation, compilation_of
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm

ReportProgress = Callable[[int, int], None]
"""Called with the number of kernels that are done, and the number of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What Triton made of one compilation."""

    cubin: bytes
    entry: str
    """Name of the kernel in it."""
    smem_bytes: int
    """Dynamic shared memory of one block."""
    regs: int
    """Registers of one thread."""
    spill_bytes: int
    """Local memory of one thread."""


class Compiler(Protocol):
    """What turns compilations into cubins."""

    version: str
    """Of Triton."""

    def compile_all(
        self, compilations: Sequence[Compilation], jobs: int
    ) -> Iterator[tuple[Compilation, Compiled | str]]:
        """Each compilation once, in any order, with what was made of it or why nothing was.

        Args:
            jobs: how many are compiled at once.
        """


class BuildReport(TypedDict):
    """What a build has done."""

    folder: str
    arch: str
    triton: str
    """Version."""
    configurations: int
    """All that may be launched now."""
    kernels: int
    """Cubins of them: several configurations share one."""
    cached: int
    """Of these, those that were there already."""
    failed: int
    """Of these, those that Triton refused."""
    bytes: int
    """Of all cubins."""
    seconds: float


def _no_report(_done: int, _all: int) -> None:
    """Reports no progress."""


def compilations_of(
    kernel: TritonKernel, gemm: Gemm, configs: Sequence[KernelConfig], arch: str
) -> list[Compilation]:
    """What configurations of a kernel need, each once, for the GEMM's dtype and layout.

    Raises:
        InputError: an expression of the description has no value.
        MeasurementError: "unsupported" for what the kernel does not multiply.
    """
    needed: dict[str, Compilation] = {}
    for config in configs:
        compilation = compilation_of(kernel, gemm, config, arch)
        needed.setdefault(compilation.key, compilation)
    return list(needed.values())


def build(
    compilations: Sequence[Compilation],
    cubins: Cubins,
    compiler: Compiler,
    *,
    arch: str,
    configurations: int,
    jobs: int,
    progress: ReportProgress = _no_report,
) -> BuildReport:
    """Compile what is not there yet.

    Args:
        configurations: how many the compilations are for; for the report.
        jobs: kernels that are compiled at once.
    """
    began_s = monotonic()
    missing = [one for one in compilations if not _is_there(one, cubins, compiler.version)]
    progress(0, len(missing))
    for done, (compilation, answer) in enumerate(compiler.compile_all(missing, jobs), 1):
        _keep(compilation, answer, cubins, compiler.version)
        progress(done, len(missing))
    failed = 0
    size = 0
    for compilation in compilations:
        facts = cubins.facts(compilation)
        if facts is None or facts.error:
            failed += 1
        else:
            size += cubins.path(compilation).stat().st_size
    return BuildReport(
        folder=str(cubins.folder.resolve()),
        arch=arch,
        triton=compiler.version,
        configurations=configurations,
        kernels=len(compilations),
        cached=len(compilations) - len(missing),
        failed=failed,
        bytes=size,
        seconds=round(monotonic() - began_s, 3),
    )


def _is_there(compilation: Compilation, cubins: Cubins, version: str) -> bool:
    facts = cubins.facts(compilation)
    # A refusal is tried again: the process may have been killed for want of memory.
    if facts is None or facts.triton != version or facts.error:
        return False
    return cubins.path(compilation).is_file()


def _keep(compilation: Compilation, answer: Compiled | str, cubins: Cubins, version: str) -> None:
    if isinstance(answer, str):
        cubins.write(compilation, CubinFacts(triton=version, error=answer), b"")
        return
    facts = CubinFacts(
        triton=version,
        entry=answer.entry,
        smem_bytes=answer.smem_bytes,
        regs=answer.regs,
        spill_bytes=answer.spill_bytes,
    )
    cubins.write(compilation, facts, answer.cubin)
