"""One CUTLASS kernel as a value: its knobs, the name made of them, and what a plan calls it. Pure text: needs no CUDA.

The name says all there is to know, so equal names are equal kernels. Tiles are in elements. Two kinds:

- CUTLASS 2.x (no schedule): `cutlass::gemm::device::Gemm`, whose warps and stages are chosen here;
- CUTLASS 3.x (a schedule): `cutlass::gemm::kernel::GemmUniversal` on wgmma and TMA, sm_90 only. Its builder takes as many stages as
  shared memory holds, so they are known only once compiled: 0 here, and the library tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gemmcast.config import KernelConfig

Triple = tuple[int, int, int]

BYTES: Final = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8_e4m3": 1}
OUT_BYTES: Final = {**BYTES, "fp8_e4m3": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One instantiation."""

    dtype: str
    layout: str
    tile: Triple
    warp: Triple = (0, 0, 0)
    # of a warp group's wgmma it is no choice of ours
    stages: int = 0
    swizzle: int
    # tiles that are rasterised side by side: 1, 4 or 8
    cluster: tuple[int, int] = (0, 0)
    schedule: str = ""
    # one of sources.SCHEDULES

    @property
    def simt(self) -> bool:
        return self.dtype == "fp32"

    @property
    def alignment(self) -> int:
        """Elements that are read at once: leading dimensions must be multiples of it."""
        return 1 if self.simt else 16 // BYTES[self.dtype]

    @property
    def smem_bytes(self) -> int:
        """Of the main loop, at least; the library reports what the compiled kernel takes."""
        least = self.stages or 2  # fewer than two stages can't overlap copies with products
        return least * (self.tile[0] + self.tile[1]) * self.tile[2] * BYTES[self.dtype]

    @property
    def name(self) -> str:
        unit = "wgmma" if self.schedule else "simt" if self.simt else "tensorop"
        tile, warp, cluster = ("x".join(map(str, shape)) for shape in (self.tile, self.warp, self.cluster))
        shape = f"{tile}_{cluster}_{self.schedule}" if self.schedule else f"{tile}_{warp}_s{self.stages}"
        return f"{unit}_{self.dtype}_{self.layout}_{shape}_z{self.swizzle}_a{self.alignment}"

    @property
    def config(self) -> KernelConfig:
        """The configuration that a plan names to get this kernel."""
        (tile_m, tile_n, tile_k), (warp_m, warp_n, warp_k), (cluster_m, cluster_n) = self.tile, self.warp, self.cluster
        return KernelConfig(
            family="cutlass", kernel=self.name, tile_m=tile_m, tile_n=tile_n, tile_k=tile_k, warp_m=warp_m, warp_n=warp_n, warp_k=warp_k,
            stages=self.stages, swizzle=self.swizzle, cluster_m=cluster_m, cluster_n=cluster_n,
        )  # fmt: skip

    @property
    def description(self) -> dict[str, object]:
        """What the library says of it, as JSON."""
        return {
            "name": self.name, "dtype": self.dtype, "layout": self.layout, "tile": list(self.tile), "warp": list(self.warp),
            "stages": self.stages, "swizzle": self.swizzle, "cluster": list(self.cluster), "alignment": self.alignment,
        }  # fmt: skip
