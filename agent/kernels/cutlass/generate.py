"""Which CUTLASS 2.x kernels a set holds, and the C++ that instantiates them. Pure text: needs no CUDA, no headers, no GPU.

A kernel is `cutlass::gemm::device::Gemm`: A and B RowMajor for 'n' and ColumnMajor for 't', C row-major in the operands' dtype, fp32
accumulator, serial split-k (slices are a run-time argument). Its name says all there is to know, so equal names are equal kernels.
Tiles and warp tiles are those of CUTLASS' own generator (cutlass_library/generator.py, GenerateSM50_Simt and GenerateSM80_TensorOp_*).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import LAYOUTS

Triple = tuple[int, int, int]

SETS: Final = ("paper", "default")
SMEM_KIB: Final = {
    "sm_70": 96, "sm_75": 64, "sm_80": 163, "sm_86": 99, "sm_87": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_103": 227, "sm_120": 99,
    "sm_121": 99,
}  # fmt: skip
# architectures we build for, with what one block may use (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")
KERNELS_PER_FILE: Final = 8
# the headers cost about 5 s a file, each kernel 1.2 s more
ELEMENTS: Final = {"fp32": "float", "tf32": "float", "fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t"}
BYTES: Final = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}
INSTRUCTIONS: Final = {"fp32": (1, 1, 1), "tf32": (16, 8, 8), "fp16": (16, 8, 16), "bf16": (16, 8, 16)}
# of mma.sync; 1x1x1 is one fused multiply-add

SIMT_TILES: Final = {(64, 64): (32, 64), (128, 64): (64, 32), (64, 128): (32, 64), (128, 128): (32, 64), (256, 128): (64, 64), (128, 256): (64, 64)}
# thread block (m, n) -> warp (m, n); tile_k is 8
SIMT_EXTRA: Final = (
    ((64, 64), 4, 1), ((128, 64), 4, 1), ((128, 128), 4, 1), ((128, 128), 5, 1), ((256, 128), 4, 1), ((128, 256), 4, 1),
    ((128, 128), 2, 4), ((128, 128), 2, 8),
)  # fmt: skip
# thread block (m, n), stages, swizzle
TENSOR_OP: Final = (
    ((64, 64), (32, 32), 64, 4, 1), ((64, 64), (32, 32), 128, 5, 1), ((128, 64), (64, 32), 64, 4, 1), ((64, 128), (32, 64), 64, 4, 1),
    ((128, 128), (64, 64), 64, 3, 1), ((128, 128), (64, 64), 64, 4, 1), ((128, 128), (64, 64), 64, 4, 4), ((128, 128), (64, 64), 64, 5, 8),
    ((128, 128), (64, 64), 128, 3, 4), ((256, 64), (64, 64), 64, 4, 1), ((64, 256), (64, 64), 64, 4, 1), ((256, 128), (64, 64), 64, 3, 1),
    ((256, 128), (64, 64), 128, 3, 8), ((128, 256), (64, 64), 64, 3, 1), ((128, 256), (64, 64), 128, 3, 8),
)  # fmt: skip
# thread block (m, n), warp (m, n), bytes of tile_k, stages, swizzle


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One instantiation. Tiles in elements."""

    dtype: str
    layout: str
    tile: Triple
    warp: Triple
    stages: int
    swizzle: int
    # tiles that are rasterised side by side: 1, 4 or 8

    @property
    def simt(self) -> bool:
        return self.dtype == "fp32"

    @property
    def alignment(self) -> int:
        """Elements that are read at once: leading dimensions must be multiples of it."""
        return 1 if self.simt else 16 // BYTES[self.dtype]

    @property
    def smem_bytes(self) -> int:
        """Of the main loop; the library reports what the compiled kernel takes."""
        return self.stages * (self.tile[0] + self.tile[1]) * self.tile[2] * BYTES[self.dtype]

    @property
    def name(self) -> str:
        unit = "simt" if self.simt else "tensorop"
        tile, warp = ("x".join(map(str, shape)) for shape in (self.tile, self.warp))
        return f"{unit}_{self.dtype}_{self.layout}_{tile}_{warp}_s{self.stages}_z{self.swizzle}_a{self.alignment}"

    @property
    def config(self) -> KernelConfig:
        """The configuration that a plan names to get this kernel."""
        (tile_m, tile_n, tile_k), (warp_m, warp_n, warp_k) = self.tile, self.warp
        return KernelConfig(
            family="cutlass", kernel=self.name, tile_m=tile_m, tile_n=tile_n, tile_k=tile_k, warp_m=warp_m, warp_n=warp_n, warp_k=warp_k,
            stages=self.stages, swizzle=self.swizzle,
        )  # fmt: skip

    @property
    def description(self) -> dict[str, object]:
        """What the library says of it, as JSON."""
        return {
            "name": self.name, "dtype": self.dtype, "layout": self.layout, "tile": list(self.tile), "warp": list(self.warp),
            "stages": self.stages, "swizzle": self.swizzle, "alignment": self.alignment,
        }  # fmt: skip


def kernels(of_set: str, arch: str) -> list[Kernel]:
    """The set's kernels that fit the architecture, always in the same order. Raises InputError for an unknown set or architecture."""
    if of_set not in SETS:
        raise InputError("set", of_set, "no such set of CUTLASS kernels (CUTLASS 3.x kernels are not generated yet)", f"use one of {', '.join(SETS)}")
    if arch not in SMEM_KIB:
        raise InputError("arch", arch, "no architecture that kernels are generated for", f"use one of {', '.join(SMEM_KIB)}")
    if of_set == "paper":
        made = [_simt(layout, tile) for layout in LAYOUTS for tile in SIMT_TILES]
    elif int(arch.removeprefix("sm_")) < 80:
        raise InputError("arch", arch, "the default set needs asynchronous copies, which came with sm_80", "build the set paper")
    else:
        made = [_simt("nn", tile) for tile in SIMT_TILES] + [_simt("nn", *extra) for extra in SIMT_EXTRA]
        made += [_tensor_op(dtype, layout, *row) for dtype in ("tf32", "fp16", "bf16") for layout in ("nn", "tn") for row in TENSOR_OP]
    return [kernel for kernel in made if kernel.smem_bytes <= SMEM_KIB[arch] * 1024]


def _simt(layout: str, tile: tuple[int, int], stages: int = 2, swizzle: int = 1) -> Kernel:
    return Kernel(dtype="fp32", layout=layout, tile=(*tile, 8), warp=(*SIMT_TILES[tile], 8), stages=stages, swizzle=swizzle)


def _tensor_op(dtype: str, layout: str, tile: tuple[int, int], warp: tuple[int, int], k_bytes: int, stages: int, swizzle: int) -> Kernel:
    k = k_bytes // BYTES[dtype]
    return Kernel(dtype=dtype, layout=layout, tile=(*tile, k), warp=(*warp, k), stages=stages, swizzle=swizzle)


def sources(made: list[Kernel], per_file: int = KERNELS_PER_FILE) -> dict[str, str]:
    """File name -> text: the headers, the parts with the kernels, and the table of all."""
    parts = [made[at : at + per_file] for at in range(0, len(made), per_file)]
    files = {name: (Path(__file__).parent / name).read_text() for name in ("entry.h", "kernel.h", "exports.h")}
    files |= {f"part_{i:02}.cu": _part(i, part) for i, part in enumerate(parts)}
    files["table.cu"] = _table([len(part) for part in parts])
    return files


def _part(number: int, part: list[Kernel]) -> str:
    types = "\n".join(f"using Kernel{i} = {_cpp(kernel)};" for i, kernel in enumerate(part))
    rows = "\n".join(f"    entry<Kernel{i}>({json.dumps(json.dumps(kernel.description))})," for i, kernel in enumerate(part))
    return f'#include "kernel.h"\n\nnamespace {{\n{types}\n}}\n\nextern const Entry part_{number:02}[] = {{\n{rows}\n}};\n'


def _cpp(kernel: Kernel) -> str:
    element = ELEMENTS[kernel.dtype]
    a, b = ("cutlass::layout::ColumnMajor" if letter == "t" else "cutlass::layout::RowMajor" for letter in kernel.layout)
    # two stages pass through registers (sm_50 on), more of them are copied asynchronously (sm_80 on)
    unit, arch = ("Simt", "Sm50" if kernel.stages == 2 else "Sm80") if kernel.simt else ("TensorOp", "Sm80")
    tile, warp, instruction = (f"cutlass::gemm::GemmShape<{x}, {y}, {z}>" for x, y, z in (kernel.tile, kernel.warp, INSTRUCTIONS[kernel.dtype]))
    epilogue = f"cutlass::epilogue::thread::LinearCombination<{element}, {kernel.alignment}, float, float>"
    swizzle = f"cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<{kernel.swizzle}>"
    return (
        f"cutlass::gemm::device::Gemm<\n    {element}, {a}, {element}, {b}, {element}, cutlass::layout::RowMajor, float,\n"
        f"    cutlass::arch::OpClass{unit}, cutlass::arch::{arch}, {tile}, {warp},\n    {instruction}, {epilogue},\n"
        f"    {swizzle}, {kernel.stages}, {kernel.alignment}, {kernel.alignment}, true, cutlass::arch::OpMultiplyAdd>"
    )


def _table(counts: list[int]) -> str:
    names = [f"part_{i:02}" for i in range(len(counts))]
    declared = "\n".join(f"extern const Entry {name}[];" for name in names)
    rows = ", ".join(f"{{{name}, {count}}}" for name, count in zip(names, counts, strict=True))
    return f'#include "entry.h"\n\n{declared}\n\nstatic const Part parts[] = {{{rows}}};\n\n#include "exports.h"\n'
