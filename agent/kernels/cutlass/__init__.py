"""CUTLASS kernels, compiled beforehand: `python -m agent.kernels.cutlass build --arch sm_90 --set default`.

A configuration's knobs choose among the kernels of the libraries that were built for this GPU: a knob that is 0 is left open, and what
is left must be one kernel. split_k is a run-time argument (0 and 1: no slices). Where nothing was built, the reason says how to.
Serial split-k and stream-k clear their semaphores before every launch; that memset is part of what is timed.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.kernels import Prepared
from agent.kernels.cutlass.build import default_folder, manifest_path
from agent.kernels.cutlass.generate import SETS
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

if TYPE_CHECKING:
    from agent.operands import Operands

STATUSES: Final = (
    "success", "misaligned operand", "invalid data type", "invalid layout", "invalid problem", "not supported", "workspace null", "internal error",
    "architecture mismatch", "insufficient driver", "memory allocation failed", "invalid",
)  # fmt: skip
# cutlass::Status (cutlass/cutlass.h)
INTERNAL = 7
INT, LONG, POINTER, FLOAT, SIZE = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p, ctypes.c_float, ctypes.c_size_t
PROBLEM = (INT, INT, INT, POINTER, LONG, POINTER, LONG, POINTER, LONG, FLOAT, FLOAT, INT)
FACTS = ("block_threads", "smem_bytes", "regs", "spill_bytes", "blocks_per_sm")


@dataclass(frozen=True, slots=True)
class Built:
    """One kernel of one library."""

    library: Any
    index: int
    name: str
    dtype: str
    layout: str
    knobs: dict[str, int]
    # as KernelConfig names them; 0 where the kernel has no such choice
    alignment: int
    origin: str
    # versions of CUTLASS and nvcc

    def as_run(self, slices: int) -> dict[str, int]:
        """The knobs that are known, as columns of the sample: a cell may name the kernel alone."""
        return {knob: value for knob, value in self.knobs.items() if value} | {"split_k": slices}

    def facts(self) -> dict[str, int]:
        """Raises MeasurementError where the GPU can't hold the kernel."""
        found = (INT * len(FACTS))()
        if error := self.library.gemmcast_facts(self.index, found):
            raise MeasurementError("unsupported", f"{self.name} can't run on this GPU: cudaError_t {error}")
        return dict(zip(FACTS, found, strict=True))


def open_library(path: Path, origin: str = "cutlass") -> list[Built]:
    """The kernels of a library. Needs neither GPU nor driver."""
    library = ctypes.CDLL(str(path))
    library.gemmcast_describe.restype = ctypes.c_char_p
    library.gemmcast_workspace_bytes.restype = SIZE
    library.gemmcast_can_implement.argtypes = (INT, *PROBLEM)
    library.gemmcast_run.argtypes = (INT, *PROBLEM, POINTER, SIZE, POINTER)
    return [_built(library, i, json.loads(library.gemmcast_describe(i)), origin) for i in range(library.gemmcast_count())]


def _built(library: Any, index: int, told: dict[str, Any], origin: str) -> Built:
    knobs = {f"{shape}_{axis}": size for shape in ("tile", "warp", "cluster") for axis, size in zip("mnk", told[shape], strict=False)}
    knobs |= {name: told[name] for name in ("stages", "swizzle")}
    return Built(library, index, told["name"], told["dtype"], told["layout"], knobs, told["alignment"], origin)


def choose(built: Iterable[Built], gemm: Gemm, config: KernelConfig) -> Built:
    """The one kernel that the configuration means. Raises MeasurementError for none or several."""
    fitting: dict[str, Built] = {}
    for one in built:
        wanted = ((getattr(config, knob), value) for knob, value in one.knobs.items())
        named = config.kernel in ("", one.name)
        if named and (one.dtype, one.layout) == (gemm.dtype, gemm.layout) and all(want in (0, value) for want, value in wanted):
            fitting.setdefault(one.name, one)
    if not fitting:
        raise MeasurementError("unsupported", f"no CUTLASS kernel was built for {gemm.dtype} {gemm.layout} with {config}")
    if len(fitting) > 1:
        raise MeasurementError("unsupported", f"{config} leaves {len(fitting)} CUTLASS kernels, {', '.join(list(fitting)[:3])}...: give more knobs")
    return next(iter(fitting.values()))


def leading(gemm: Gemm) -> tuple[int, int, int]:
    """Of A, B and C as they are stored."""
    return gemm.m if gemm.layout[0] == "t" else gemm.k, gemm.k if gemm.layout[1] == "t" else gemm.n, gemm.n


class Cutlass:
    """The libraries of one folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._opened: dict[str, list[Built]] = {}

    def kernels(self, arch: str) -> list[Built]:
        """Of every set that was built for the architecture. Raises MeasurementError where none was."""
        if arch not in self._opened:
            folder = self._folder or default_folder()
            manifests = [json.loads(path.read_text()) for name in SETS if (path := manifest_path(folder, name, arch)).is_file()]
            manifests = [manifest for manifest in manifests if (folder / manifest["library"]).is_file()]
            if not manifests:
                way_out = f"python -m agent.kernels.cutlass build --arch {arch} --set default"
                raise MeasurementError("unsupported", f"no CUTLASS kernels were built for {arch} in {folder}; run {way_out}")
            self._opened[arch] = [
                kernel
                for manifest in manifests
                for kernel in open_library(folder / manifest["library"], f"cutlass {manifest['cutlass']}, nvcc {manifest['nvcc']}")
            ]
        return self._opened[arch]

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        import cupy

        from agent.operands import addresses

        if gemm.batch > 1:
            raise MeasurementError("unsupported", f"cutlass multiplies one matrix at a time, not {gemm.batch}")
        device = cupy.cuda.Device()
        chosen = choose(self.kernels(f"sm_{device.compute_capability}"), gemm, config)
        slices, library = max(1, config.split_k), chosen.library
        lda, ldb, ldc = leading(gemm)
        problems = [
            (chosen.index, gemm.m, gemm.n, gemm.k, a, lda, b, ldb, c, ldc, gemm.alpha, gemm.beta, slices) for a, b, c in addresses(sets).tolist()
        ]
        for problem in problems[:2]:  # sets are evenly spaced: no other one is aligned in another way
            if status := library.gemmcast_can_implement(*problem):
                raise MeasurementError("unsupported", f"{chosen.name} (alignment {chosen.alignment}) with split_k={slices}: {_word(status)}")
        needed = int(library.gemmcast_workspace_bytes(chosen.index, gemm.m, gemm.n, gemm.k, slices))
        workspace = cupy.cuda.alloc(needed)
        resident = cupy.cuda.runtime.getDeviceProperties(device.id)["maxThreadsPerMultiProcessor"]
        facts: dict[str, Any] = dict(chosen.facts())  # loads the kernel, too: nothing is left to load during a capture
        facts["occupancy"] = facts.pop("blocks_per_sm") * facts["block_threads"] / resident
        facts |= {"kernel": chosen.name, "library": chosen.origin, "workspace_bytes": needed, **chosen.as_run(slices)}

        def launch(i: int) -> None:
            if status := library.gemmcast_run(*problems[i], workspace.ptr, needed, cupy.cuda.get_current_stream().ptr):
                raise MeasurementError("cuda_error" if status >= INTERNAL else "unsupported", f"{chosen.name}: {_word(status)}")

        return Prepared(launch, facts)


def _word(status: int) -> str:
    return f"cutlass::Status {status} ({STATUSES[status] if 0 <= status < len(STATUSES) else 'unknown'})"


FAMILY = Cutlass()
