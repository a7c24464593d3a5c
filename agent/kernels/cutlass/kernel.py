"""One CUTLASS kernel as a value: its knobs, the name made of them, and what a plan calls it.

Two kinds:

- CUTLASS 2.x (no schedule): `cutlass::gemm::device::Gemm`; its warps and stages are chosen here;
- CUTLASS 3.x (a schedule): `cutlass::gemm::kernel::GemmUniversal` on wgmma and TMA, sm_90 only. Its
  builder takes as many stages as fit in shared memory: 0 here, and the library reports them.

Kernels with equal names are equal. Pure text: needs no CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gemmcast.config import KernelConfig

Triple = tuple[int, int, int]

IN_BYTES: Final = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8_e4m3": 1}
"""dtype -> bytes of an element of A and B."""
OUT_BYTES: Final = {**IN_BYTES, "fp8_e4m3": 2}
"""dtype -> bytes of an element of C."""
TENSOR_ALIGNMENT_BYTES: Final = 16
"""What tensor cores need of operands and of their rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutlassKernel:
    """One instantiation."""

    dtype: str
    layout: str
    tile: Triple
    """Of a thread block along m, n and k. [elements]"""
    warp: Triple = (0, 0, 0)
    """Of a warp, likewise; 0 for wgmma, where a whole warp group shares the tile."""
    stages: int = 0
    """0: as many as fit."""
    swizzle: int
    """Tiles that are rasterised side by side: 1, 4 or 8."""
    cluster: tuple[int, int] = (0, 0)
    """Thread blocks along m and n; 0 for CUTLASS 2.x."""
    schedule: str = ""
    """One of sources.HOPPER_SCHEDULES; empty for CUTLASS 2.x."""

    @property
    def simt(self) -> bool:
        """Runs on the CUDA cores."""
        return self.dtype == "fp32"

    @property
    def alignment(self) -> int:
        """Elements that are read at once: leading dimensions must be multiples of it."""
        return 1 if self.simt else TENSOR_ALIGNMENT_BYTES // IN_BYTES[self.dtype]

    @property
    def smem_bytes(self) -> int:
        """Of the main loop, at least; the library reports what the compiled kernel takes."""
        # Fewer than two stages cannot overlap copies with products.
        stages = self.stages or 2
        tile_m, tile_n, tile_k = self.tile
        return stages * (tile_m + tile_n) * tile_k * IN_BYTES[self.dtype]

    @property
    def name(self) -> str:
        """All knobs in one word."""
        tile = _joined(self.tile)
        if self.schedule:
            unit = "wgmma"
            shape = f"{tile}_{_joined(self.cluster)}_{self.schedule}"
        else:
            unit = "simt" if self.simt else "tensorop"
            shape = f"{tile}_{_joined(self.warp)}_s{self.stages}"
        suffix = f"z{self.swizzle}_a{self.alignment}"
        return f"{unit}_{self.dtype}_{self.layout}_{shape}_{suffix}"

    @property
    def config(self) -> KernelConfig:
        """The configuration that a plan names to get this kernel."""
        return KernelConfig(
            family="cutlass",
            kernel=self.name,
            tile_m=self.tile[0],
            tile_n=self.tile[1],
            tile_k=self.tile[2],
            warp_m=self.warp[0],
            warp_n=self.warp[1],
            warp_k=self.warp[2],
            stages=self.stages,
            swizzle=self.swizzle,
            cluster_m=self.cluster[0],
            cluster_n=self.cluster[1],
        )

    @property
    def description(self) -> dict[str, object]:
        """What the library reports of it, as JSON."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "layout": self.layout,
            "tile": list(self.tile),
            "warp": list(self.warp),
            "stages": self.stages,
            "swizzle": self.swizzle,
            "cluster": list(self.cluster),
            "alignment": self.alignment,
        }


def _joined(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
