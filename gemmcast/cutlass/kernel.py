"""One CUTLASS kernel as a value: its knobs, the name made of them, and what a plan calls it.

Two kinds:

- CUTLASS 2.x (no schedule): `cutlass::gemm::device::Gemm`; its warps and stages are chosen here;
- CUTLASS 3.x (a schedule): `cutlass::gemm::kernel::GemmUniversal` on wgmma and TMA, sm_90 only. Its
  builder takes as many stages as fit in shared memory, so a plan names none; what libraries report
  of the kernels of the sets is in `compiled_stages`.

    wgmma_bf16_nt_128x128x64_2x1_pingpong_z1_a8    tile, cluster, schedule, swizzle, alignment
    tensorop_fp16_nt_64x64x32_32x32x32_s4_z1_a8    tile, warp tile, stages, swizzle, alignment

Kernels with equal names are equal. Pure text: needs no CUDA.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gemmcast.config import KernelConfig
from gemmcast.cutlass.tile_tables import WGMMA_STAGES

Triple = tuple[int, int, int]

IN_BYTES: Final = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8_e4m3": 1}
"""dtype -> bytes of an element of A and B."""
OUT_BYTES: Final = {**IN_BYTES, "fp8_e4m3": 2}
"""dtype -> bytes of an element of C."""
TENSOR_ALIGNMENT_BYTES: Final = 16
"""What tensor cores need of operands and of their rows."""
COOPERATIVE: Final = ("coop", "coopfast", "streamk")
"""Schedules of which two warp groups share a tile."""
NAME: Final = re.compile(
    rf"[a-z]+_(?P<dtype>{'|'.join(IN_BYTES)})_(?P<layout>[nt]{{2}})_(?P<tile>\d+x\d+x\d+)_"
    r"((?P<warp>\d+x\d+x\d+)_s(?P<stages>\d+)|(?P<cluster>\d+x\d+)_(?P<schedule>[a-z]+))_"
    r"z(?P<swizzle>\d+)_a\d+",
    re.ASCII,
)
MAX_NAME: Final = 80
"""Letters; numbers of more digits are no knobs."""


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
    """Of CUTLASS 2.x. 0: as many as fit, see `compiled_stages`."""
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

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(name: str) -> CutlassKernel | None:
        """The kernel of that name; None for a name of another form."""
        match = NAME.fullmatch(name) if len(name) <= MAX_NAME else None
        if match is None:
            return None
        cluster_m, cluster_n = _numbers(match["cluster"] or "0x0")
        kernel = CutlassKernel(
            dtype=match["dtype"],
            layout=match["layout"],
            tile=_triple(match["tile"]),
            warp=_triple(match["warp"] or "0x0x0"),
            stages=int(match["stages"] or 0),
            swizzle=int(match["swizzle"]),
            cluster=(cluster_m, cluster_n),
            schedule=match["schedule"] or "",
        )
        # Unit and alignment follow from the rest
        return kernel if kernel.name == name else None

    @property
    def compiled_stages(self) -> int:
        """What a compiled kernel has; 0 where that is not known."""
        if not self.schedule:
            return self.stages
        tile_m, tile_n, _ = self.tile
        key = (self.schedule in COOPERATIVE, tile_m, tile_n)
        usual, of_tf32 = WGMMA_STAGES.get(key, (0, 0))
        return of_tf32 if self.dtype == "tf32" else usual

    @property
    def knobs(self) -> dict[str, int]:
        """As KernelConfig names them; 0 where the kernel has no such choice, or it is not known."""
        return knobs_of(self.tile, self.warp, self.cluster, self.compiled_stages, self.swizzle)

    @property
    def config(self) -> KernelConfig:
        """The configuration that a plan names to get this kernel."""
        knobs = {**self.knobs, "stages": self.stages}
        return KernelConfig(family="cutlass", kernel=self.name, **knobs)

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


def _numbers(joined: str) -> list[int]:
    return [int(number) for number in joined.split("x")]


def _triple(joined: str) -> Triple:
    along_m, along_n, along_k = _numbers(joined)
    return along_m, along_n, along_k


def knobs_of(
    tile: Sequence[int], warp: Sequence[int], cluster: Sequence[int], stages: int, swizzle: int
) -> dict[str, int]:
    """A kernel's knobs as KernelConfig names them.

    Args:
        tile: m, n, k of a thread block.
        warp: likewise.
        cluster: thread blocks along m and n.
    """
    tile_m, tile_n, tile_k = tile
    warp_m, warp_n, warp_k = warp
    cluster_m, cluster_n = cluster
    return {
        "tile_m": tile_m,
        "tile_n": tile_n,
        "tile_k": tile_k,
        "warp_m": warp_m,
        "warp_n": warp_n,
        "warp_k": warp_k,
        "cluster_m": cluster_m,
        "cluster_n": cluster_n,
        "stages": stages,
        "swizzle": swizzle,
    }
