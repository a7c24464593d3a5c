"""The shared libraries that were built, and which of their kernels a configuration means.

A library needs neither GPU nor driver to be opened. Knows nothing of operands and launches.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable
from ctypes import c_char_p, c_float, c_int, c_longlong, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from agent.kernels.cutlass.build import Manifest, manifest_path
from gemmcast.config import KernelConfig
from gemmcast.cutlass.kernel import knobs_of
from gemmcast.cutlass.sets import CUTLASS_SETS
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.kernel_names import is_meant

PROBLEM_ARGUMENTS: Final = (
    c_int,
    c_int,
    c_int,
    c_void_p,
    c_longlong,
    c_void_p,
    c_longlong,
    c_void_p,
    c_longlong,
    c_float,
    c_float,
    c_int,
)
"""m, n, k; A, lda; B, ldb; C, ldc; alpha, beta; slices of k."""
RUN_ARGUMENTS: Final = (c_int, *PROBLEM_ARGUMENTS, c_void_p, c_size_t, c_void_p)
"""The kernel's index, the problem; workspace, its bytes, stream."""
LOADED_FACTS: Final = ("block_threads", "smem_bytes", "regs", "spill_bytes", "blocks_per_sm")
"""What gemmcast_facts fills in, in its order."""


class KernelDescription(TypedDict):
    """What a library reports of one kernel (CutlassKernel.description)."""

    name: str
    dtype: str
    layout: str
    tile: list[int]
    warp: list[int]
    stages: int
    swizzle: int
    cluster: list[int]
    alignment: int


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """One kernel of one library."""

    library: ctypes.CDLL
    index: int
    """In the library."""
    name: str
    dtype: str
    layout: str
    knobs: dict[str, int]
    """As KernelConfig names them; 0 where the kernel has no such choice."""
    alignment: int
    """Elements that leading dimensions must be multiples of."""
    origin: str
    """Versions of CUTLASS and nvcc."""

    def resolved_knobs(self, slices: int) -> dict[str, int]:
        """The known knobs as columns of the sample: a cell may name only the kernel."""
        known = {knob: value for knob, value in self.knobs.items() if value}
        return {**known, "split_k": slices}

    def facts(self) -> dict[str, int]:
        """Load the kernel; LOADED_FACTS of it.

        Raises:
            MeasurementError: "unsupported" where it does not fit on the GPU.
        """
        values = (c_int * len(LOADED_FACTS))()
        error = self.library.gemmcast_facts(self.index, values)
        if error:
            reason = f"{self.name} cannot run on this GPU: cudaError_t {error}"
            raise MeasurementError("unsupported", reason)
        return dict(zip(LOADED_FACTS, values, strict=True))

    def matches(self, gemm: Gemm, config: KernelConfig) -> bool:
        """Whether the configuration may mean this kernel: a knob that is 0 is left open."""
        if (self.dtype, self.layout) != (gemm.dtype, gemm.layout):
            return False
        return is_meant(config, self.name, self.knobs)


def open_library(path: Path, origin: str = "cutlass") -> list[BuiltKernel]:
    """The kernels of a library. Needs neither GPU nor driver."""
    library = ctypes.CDLL(str(path))
    library.gemmcast_describe.restype = c_char_p
    library.gemmcast_workspace_bytes.restype = c_size_t
    library.gemmcast_can_implement.argtypes = (c_int, *PROBLEM_ARGUMENTS)
    library.gemmcast_run.argtypes = RUN_ARGUMENTS
    built = []
    for index in range(library.gemmcast_count()):
        description: KernelDescription = json.loads(library.gemmcast_describe(index))
        kernel = BuiltKernel(
            library=library,
            index=index,
            name=description["name"],
            dtype=description["dtype"],
            layout=description["layout"],
            knobs=_knobs(description),
            alignment=description["alignment"],
            origin=origin,
        )
        built.append(kernel)
    return built


def _knobs(description: KernelDescription) -> dict[str, int]:
    """As KernelConfig names them."""
    return knobs_of(
        description["tile"],
        description["warp"],
        description["cluster"],
        description["stages"],
        description["swizzle"],
    )


def open_all(folder: Path, arch: str) -> list[BuiltKernel]:
    """The kernels of every set that was built for the architecture.

    Raises:
        MeasurementError: "unsupported" where none was; the reason says how to build one.
    """
    built = []
    for set_name in CUTLASS_SETS:
        path = manifest_path(folder, set_name, arch)
        if not path.is_file():
            continue
        manifest: Manifest = json.loads(path.read_text("utf-8"))
        library = folder / manifest["library"]
        if library.is_file():
            origin = f"cutlass {manifest['cutlass']}, nvcc {manifest['nvcc']}"
            built += open_library(library, origin)
    if not built:
        way_out = f"run python -m agent.kernels.cutlass build --arch {arch} --set default"
        reason = f"no CUTLASS kernels were built for {arch} in {folder}; {way_out}"
        raise MeasurementError("unsupported", reason)
    return built


def choose(built: Iterable[BuiltKernel], gemm: Gemm, config: KernelConfig) -> BuiltKernel:
    """The one kernel that the configuration means.

    Raises:
        MeasurementError: "unsupported" for none or several.
    """
    # Two sets may hold the same kernel.
    matching: dict[str, BuiltKernel] = {}
    for kernel in built:
        if kernel.matches(gemm, config):
            matching.setdefault(kernel.name, kernel)
    if not matching:
        problem = f"{gemm.dtype} {gemm.layout}"
        reason = f"no CUTLASS kernel was built for {problem} with {config}"
        raise MeasurementError("unsupported", reason)
    if len(matching) > 1:
        first_names = ", ".join(list(matching)[:3])
        reason = f"{config} leaves {len(matching)} CUTLASS kernels, {first_names}..."
        raise MeasurementError("unsupported", f"{reason}: give more knobs")
    return next(iter(matching.values()))
