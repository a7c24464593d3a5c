"""CUTLASS kernels, compiled beforehand: `python -m agent.kernels.cutlass build --arch sm_90`.

The knobs of a configuration choose among the kernels of the libraries that were built for this GPU:
a knob that is 0 is left open, and what is left must be one kernel. split_k is a run-time argument
(0 and 1: no slices). Serial split-k and stream-k clear their semaphores before every launch; that
memset is part of what is timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.kernels import Prepared
from agent.kernels.cutlass.build import default_folder
from agent.kernels.cutlass.libraries import BuiltKernel, choose, open_all
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.feasible import leading_dimensions
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

if TYPE_CHECKING:
    # Kernels are built and listed where there is no NumPy.
    from agent.operands import Operands

CUTLASS_STATUSES: Final = (
    "success",
    "misaligned operand",
    "invalid data type",
    "invalid layout",
    "invalid problem",
    "not supported",
    "workspace null",
    "internal error",
    "architecture mismatch",
    "insufficient driver",
    "memory allocation failed",
    "invalid",
)
"""cutlass::Status (cutlass/cutlass.h)."""
INTERNAL_ERROR: Final = 7
"""This status and later ones are faults; earlier ones refuse the problem."""

CutlassProblem = tuple[int | float, ...]
"""The kernel's index, and the values of libraries.PROBLEM_ARGUMENTS."""


class Cutlass:
    """The libraries of one folder.

    Args:
        folder: None for `default_folder()`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kernels: dict[str, list[BuiltKernel]] = {}
        """By architecture."""

    def kernels(self, arch: str) -> list[BuiltKernel]:
        """Of every set that was built for the architecture.

        Raises:
            MeasurementError: "unsupported" where none was.
        """
        if arch not in self._kernels:
            self._kernels[arch] = open_all(self._folder or default_folder(), arch)
        return self._kernels[arch]

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Choose the kernel, load it and allocate its workspace."""
        import cupy

        if gemm.batch > 1:
            reason = f"cutlass multiplies one matrix at a time, not {gemm.batch}"
            raise MeasurementError("unsupported", reason)
        arch = f"sm_{cupy.cuda.Device().compute_capability}"
        kernel = choose(self.kernels(arch), gemm, config)
        slices = max(1, config.split_k)
        problems = _problems(kernel, gemm, slices, sets)
        _check_implemented(kernel, problems, slices)
        library = kernel.library
        workspace_bytes = int(
            library.gemmcast_workspace_bytes(kernel.index, gemm.m, gemm.n, gemm.k, slices)
        )
        workspace = cupy.cuda.alloc(workspace_bytes)

        def launch(i: int) -> None:
            """Enqueue one product."""
            stream = cupy.cuda.get_current_stream().ptr
            status = library.gemmcast_run(*problems[i], workspace.ptr, workspace_bytes, stream)
            if status:
                kind = "cuda_error" if status >= INTERNAL_ERROR else "unsupported"
                raise MeasurementError(kind, f"{kernel.name}: {_status_text(status)}")

        facts = {
            **_loaded_facts(kernel),
            "kernel": kernel.name,
            "library": kernel.origin,
            "workspace_bytes": workspace_bytes,
            **kernel.resolved_knobs(slices),
        }
        return Prepared(launch, facts)


def _problems(
    kernel: BuiltKernel, gemm: Gemm, slices: int, sets: Sequence[Operands]
) -> list[CutlassProblem]:
    """One for each set."""
    from agent.operands import addresses

    lda, ldb, ldc = leading_dimensions(gemm)
    before = (kernel.index, gemm.m, gemm.n, gemm.k)
    after = (gemm.alpha, gemm.beta, slices)
    return [(*before, a, lda, b, ldb, c, ldc, *after) for a, b, c in addresses(sets).tolist()]


def _check_implemented(
    kernel: BuiltKernel, problems: Sequence[CutlassProblem], slices: int
) -> None:
    # Sets are evenly spaced: no further set is aligned in another way than the first two.
    for problem in problems[:2]:
        status = kernel.library.gemmcast_can_implement(*problem)
        if status:
            shown = f"{kernel.name} (alignment {kernel.alignment}) with split_k={slices}"
            raise MeasurementError("unsupported", f"{shown}: {_status_text(status)}")


def _loaded_facts(kernel: BuiltKernel) -> Row:
    """Columns that are read from the loaded kernel.

    Reading them loads it, so that nothing is left to load during a capture.
    """
    import cupy

    facts: Row = {**kernel.facts()}
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    resident_threads = facts.pop("blocks_per_sm") * facts["block_threads"]
    facts["occupancy"] = resident_threads / properties["maxThreadsPerMultiProcessor"]
    return facts


def _status_text(status: int) -> str:
    known = 0 <= status < len(CUTLASS_STATUSES)
    words = CUTLASS_STATUSES[status] if known else "unknown"
    return f"cutlass::Status {status} ({words})"


FAMILY = Cutlass()
