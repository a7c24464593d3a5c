"""The kernel configuration: which kernel family computes the GEMM, with which knobs.

A knob that a family does not have, or that its library does not reveal, is 0 ("not known"); every family reads only its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from gemmcast.errors import InputError


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """Where a kernel family runs and what it multiplies."""

    device_kind: str
    dtypes: tuple[str, ...]


FAMILIES: Final = {
    "blas": FamilyFacts("cpu", ("fp32", "fp64")),
    "tiled": FamilyFacts("cuda", ("fp32",)),
    "cublas": FamilyFacts("cuda", ("fp32", "tf32", "fp16", "bf16", "fp64")),
    "cutlass": FamilyFacts("cuda", ("fp32", "tf32", "fp16", "bf16", "fp8_e4m3")),
    "cublaslt": FamilyFacts("cuda", ("fp32", "tf32", "fp16", "bf16", "fp8_e4m3")),
    "custom": FamilyFacts("cuda", ("fp64", "fp32", "tf32", "fp16", "bf16")),
}
# The order is part of the ONNX contract: append, never reorder.


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelConfig:
    """One way to compute a GEMM. Tiles in elements."""

    family: str
    # one of FAMILIES
    kernel: str = ""
    # the family's own name for the kernel; nothing is learned from it but the schedule of a CUTLASS 3 kernel (question.algorithm)
    tile_m: int = 0
    tile_n: int = 0
    tile_k: int = 0
    # of one thread block (of one cache block on a CPU)
    warp_m: int = 0
    warp_n: int = 0
    warp_k: int = 0
    # of one warp
    stages: int = 0
    # depth of the software pipeline
    split_k: int = 0
    # slices of k that are summed at the end
    swizzle: int = 0
    # rasterisation of thread blocks
    cluster_m: int = 0
    cluster_n: int = 0
    # thread blocks in a cluster (sm_90)
    algo_id: int = 0
    # the library's own number of the algorithm
    block_threads: int = 0
    """Threads of one thread block; 0 on a CPU."""
    cpu_threads: int = 0
    """Threads that a BLAS on a CPU uses; 0 on a GPU."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError("family", self.family, "unknown kernel family", f"use one of {', '.join(FAMILIES)}")
        for name in KNOBS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**24:
                raise InputError(name, value, "must be a whole number, 0 for 'not known'", "correct the configuration")

    @property
    def threads(self) -> int:
        """Threads that compute: of one block on a GPU, of the whole GEMM on a CPU."""
        return self.block_threads or self.cpu_threads

    def __str__(self) -> str:
        tile = (self.tile_m, self.tile_n, self.tile_k)
        square = f"tile={tile[0]}" if tile[0] and len(set(tile)) == 1 else ""
        knobs = [f"{name}={getattr(self, name)}" for name in KNOBS if getattr(self, name) and not (square and name.startswith("tile_"))]
        return " ".join(part for part in (self.family, self.kernel, square, *knobs) if part)


KNOBS: Final = tuple(f.name for f in fields(KernelConfig) if f.name not in ("family", "kernel"))
