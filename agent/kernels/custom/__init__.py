"""Bring your own kernel: a CUDA source and a few lines of TOML (docs/custom-kernels.md).

KernelConfig.kernel is the path of the TOML file in the project. The row records path and content,
`my/kernel.toml@1a2b3c4d`, so that an edited kernel is not taken for the old one. A configuration
with the @ is measured only while the files have that content. Knobs become macros (tile_m ->
-DTILE_M=128), and NVRTC compiles. Reading a description and fitting it to a GEMM need no CUDA.

    description.py  the TOML file      fit.py  for one GEMM      this file  compiled, launched

../arithmetic.py evaluates its expressions, ../described.py has what Triton kernels share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.kernels import Prepared
from agent.kernels.custom.description import CustomKernel, read_custom
from agent.kernels.custom.fit import FittedKernel, fit
from agent.kernels.described import PROJECT
from agent.operands import Operands
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError, MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

if TYPE_CHECKING:
    import cupy

__all__ = ["FAMILY", "CustomKernels", "first_error", "fit", "read_custom"]


class Compilation(NamedTuple):
    """All that decides the machine code and its launch."""

    source: str
    """The text."""
    name: str
    """Of the kernel, `path@digest`."""
    entry: str
    """The function's name in the source."""
    options: tuple[str, ...]
    """NVRTC's."""
    threads: int
    """Of one block."""
    smem_bytes: int
    """Dynamic shared memory of one block."""


class CustomKernels:
    """The kernels that are described in a project.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path = PROJECT) -> None:
        self._root = root

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Read the description, fit it to the GEMM and compile."""
        try:
            custom = read_custom(config.kernel, self._root)
            fitted = fit(custom, gemm, config)
        except InputError as error:
            raise MeasurementError("unsupported", f"{config.kernel}: {error}") from None
        kernel, facts = _compiled(_compilation(custom, fitted))
        # Imported here: a description is read where there is no CUDA.
        from agent.kernels.launch import gemm_launcher

        block = (*fitted.block, 1, 1)[:3]
        launch = gemm_launcher(kernel, fitted.grid, block, gemm, sets, fitted.smem_bytes)
        return Prepared(launch, {**fitted.knobs, **facts})


def _compilation(custom: CustomKernel, fitted: FittedKernel) -> Compilation:
    return Compilation(
        source=custom.source,
        name=custom.name,
        entry=custom.description.entry,
        options=fitted.options,
        threads=fitted.threads,
        smem_bytes=fitted.smem_bytes,
    )


@cache
def _compiled(wanted: Compilation) -> tuple[cupy.RawKernel, Row]:
    """The kernel and its columns.

    Cached by content: nothing is compiled twice, and an edited source is compiled again.
    """
    import cupy

    from agent.kernels.launch import check_resources, kernel_facts

    kernel = cupy.RawKernel(wanted.source, wanted.entry, options=wanted.options)
    try:
        kernel.compile()
    except cupy.cuda.compiler.CompileException as error:
        reason = f"NVRTC cannot compile {first_error(str(error), wanted.name)}"
        raise MeasurementError("cuda_error", reason) from None
    except cupy.cuda.driver.CUDADriverError as error:
        entry = f'extern "C" __global__ void {wanted.entry}'
        reason = f"{wanted.name} has no {entry}, or it does not load: {error}"
        raise MeasurementError("cuda_error", reason) from None
    check_resources(kernel, wanted.name, wanted.threads, wanted.smem_bytes)
    if wanted.smem_bytes:
        kernel.max_dynamic_shared_size_bytes = wanted.smem_bytes
    facts = kernel_facts(kernel, wanted.threads, wanted.smem_bytes)
    return kernel, {**facts, "kernel": wanted.name}


def first_error(log: str, name: str) -> str:
    """The first error of NVRTC's log with its line.

    The log names a temporary file of CuPy's; the kernel's own name takes its place.
    """
    match = re.search(r"^.*?\((\d+)\): (?:catastrophic )?(error.*)$", log, re.MULTILINE)
    if match is not None:
        return f"{name}, line {match[1]}: {match[2].strip()}"
    lines = log.strip().splitlines() or ["no reason given"]
    return f"{name}: {lines[0]}"


FAMILY = CustomKernels()
