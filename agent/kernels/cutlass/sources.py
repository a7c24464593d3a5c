"""The C++ that instantiates kernels: files with some kernels each, and the table of all.

A and B are RowMajor for 'n' and ColumnMajor for 't'; C is row-major, in the operands' dtype (fp8:
bf16); the accumulator is fp32. Files of CUTLASS 2.x kernels come first and are cut alike in every
set, so the set `wide` compiles only what the set `default` did not. The text decides the hash that
names a library: a change of one byte here compiles everything again. Pure text: needs no CUDA, no
headers, no GPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gemmcast.cutlass.kernel import OUT_BYTES, TENSOR_ALIGNMENT_BYTES, CutlassKernel

HEADERS: Final = ("entry.h", "kernel.h", "hopper.h", "exports.h")
KERNELS_PER_FILE: Final = 8
"""CUTLASS 2.x: the headers cost about 5 s a file, each kernel 1.2 s more."""
HOPPER_PER_FILE: Final = 7
"""CUTLASS 3.x: the headers cost about 40 s a file, each kernel 7 s more."""
ELEMENTS: Final = {
    "fp32": "float",
    "tf32": "float",
    "fp16": "cutlass::half_t",
    "bf16": "cutlass::bfloat16_t",
    "fp8_e4m3": "cutlass::float_e4m3_t",
}
"""dtype -> type of an element of A and B."""
OUT_ELEMENTS: Final = {**ELEMENTS, "fp8_e4m3": "cutlass::bfloat16_t"}
"""dtype -> type of an element of C."""
INSTRUCTIONS: Final = {
    "fp32": (1, 1, 1),
    "tf32": (16, 8, 8),
    "fp16": (16, 8, 16),
    "bf16": (16, 8, 16),
}
"""dtype -> m, n and k of one mma.sync; 1 x 1 x 1 is one fused multiply-add."""
PERSISTENT: Final = "void"
STREAM_K: Final = "cutlass::gemm::StreamKScheduler"


class HopperSchedule(NamedTuple):
    """How a CUTLASS 3.x kernel overlaps its work."""

    main_loop: str
    tile_scheduler: str


_WARP_SPECIALIZED = "KernelTmaWarpSpecialized"
HOPPER_SCHEDULES: Final = {
    "ws": HopperSchedule(_WARP_SPECIALIZED, PERSISTENT),
    "pingpong": HopperSchedule(f"{_WARP_SPECIALIZED}Pingpong", PERSISTENT),
    "coop": HopperSchedule(f"{_WARP_SPECIALIZED}Cooperative", PERSISTENT),
    "streamk": HopperSchedule(f"{_WARP_SPECIALIZED}Cooperative", STREAM_K),
    # The tensor cores' own accumulator to the end, instead of adding it to registers every four
    # instructions.
    "pingpongfast": HopperSchedule(f"{_WARP_SPECIALIZED}PingpongFP8FastAccum", PERSISTENT),
    "coopfast": HopperSchedule(f"{_WARP_SPECIALIZED}CooperativeFP8FastAccum", PERSISTENT),
}
"""By the name that a kernel's `schedule` has."""


def sources(kernels: Sequence[CutlassKernel], per_file: int = KERNELS_PER_FILE) -> dict[str, str]:
    """File name -> text."""
    older = [kernel for kernel in kernels if not kernel.schedule]
    newer = [kernel for kernel in kernels if kernel.schedule]
    parts = [*_cut(older, per_file), *_cut(newer, HOPPER_PER_FILE)]
    files = {}
    for name in HEADERS:
        files[name] = (Path(__file__).parent / name).read_text("utf-8")
    for number, part in enumerate(parts):
        files[f"{_part_name(number)}.cu"] = _part_text(number, part)
    files["table.cu"] = _table_text([len(part) for part in parts])
    return files


def _cut(kernels: list[CutlassKernel], per_file: int) -> list[list[CutlassKernel]]:
    return [kernels[start : start + per_file] for start in range(0, len(kernels), per_file)]


def _part_name(number: int) -> str:
    return f"part_{number:02}"


def _part_text(number: int, part: list[CutlassKernel]) -> str:
    is_hopper = bool(part[0].schedule)
    header = "hopper.h" if is_hopper else "kernel.h"
    types = []
    rows = []
    for i, kernel in enumerate(part):
        cpp = _hopper_type(kernel) if is_hopper else _gemm_type(kernel)
        types.append(f"using Kernel{i} = {cpp};")
        rows.append(f"    entry<Kernel{i}>({json.dumps(_description_format(kernel))}),")
    lines = [
        f'#include "{header}"',
        "",
        "namespace {",
        *types,
        "}",
        "",
        f"extern const Entry {_part_name(number)}[] = {{",
        *rows,
        "};",
        "",
    ]
    return "\n".join(lines)


def _description_format(kernel: CutlassKernel) -> str:
    """A printf format: the library fills in the stages that it was compiled with."""
    description = {**kernel.description, "stages": "%d"}
    return json.dumps(description).replace('"%d"', "%d")


def _layout_type(letter: str) -> str:
    return "cutlass::layout::ColumnMajor" if letter == "t" else "cutlass::layout::RowMajor"


def _gemm_type(kernel: CutlassKernel) -> str:
    """CUTLASS 2.x."""
    element = ELEMENTS[kernel.dtype]
    a, b = _layout_type(kernel.layout[0]), _layout_type(kernel.layout[1])
    unit = "Simt" if kernel.simt else "TensorOp"
    # Two stages pass through registers (sm_50 on); more are copied asynchronously (sm_80 on).
    arch = "Sm50" if kernel.simt and kernel.stages == 2 else "Sm80"
    tile = _gemm_shape(kernel.tile)
    warp = _gemm_shape(kernel.warp)
    instruction = _gemm_shape(INSTRUCTIONS[kernel.dtype])
    alignment = kernel.alignment
    combination = f"LinearCombination<{element}, {alignment}, float, float>"
    epilogue = f"cutlass::epilogue::thread::{combination}"
    swizzle = f"GemmIdentityThreadblockSwizzle<{kernel.swizzle}>"
    lines = [
        "cutlass::gemm::device::Gemm<",
        f"{element}, {a}, {element}, {b}, {element}, cutlass::layout::RowMajor, float,",
        f"cutlass::arch::OpClass{unit}, cutlass::arch::{arch}, {tile}, {warp},",
        f"{instruction}, {epilogue},",
        f"cutlass::gemm::threadblock::{swizzle}, {kernel.stages}, {alignment}, {alignment}, true, "
        "cutlass::arch::OpMultiplyAdd>",
    ]
    return "\n    ".join(lines)


def _gemm_shape(shape: tuple[int, int, int]) -> str:
    m, n, k = shape
    return f"cutlass::gemm::GemmShape<{m}, {n}, {k}>"


def _hopper_type(kernel: CutlassKernel) -> str:
    """CUTLASS 3.x."""
    element, out_element = ELEMENTS[kernel.dtype], OUT_ELEMENTS[kernel.dtype]
    a, b = _layout_type(kernel.layout[0]), _layout_type(kernel.layout[1])
    out_alignment = TENSOR_ALIGNMENT_BYTES // OUT_BYTES[kernel.dtype]
    tile = _cute_shape(kernel.tile)
    cluster = _cute_shape((*kernel.cluster, 1))
    main_loop, scheduler = HOPPER_SCHEDULES[kernel.schedule]
    epilogue = "Cooperative" if "Cooperative" in main_loop else ""
    lines = [
        "HopperGemm<",
        f"{element}, {out_element}, {a}, {b}, {kernel.alignment}, {out_alignment},",
        f"{tile}, {cluster},",
        f"cutlass::gemm::{main_loop}, cutlass::epilogue::TmaWarpSpecialized{epilogue}, "
        f"{scheduler}, {kernel.swizzle}>",
    ]
    return "\n    ".join(lines)


def _cute_shape(shape: tuple[int, ...]) -> str:
    sizes = ", ".join(f"cute::Int<{size}>" for size in shape)
    return f"cute::Shape<{sizes}>"


def _table_text(counts: list[int]) -> str:
    """The table that the library's exports go through."""
    names = [_part_name(number) for number in range(len(counts))]
    rows = [f"{{{name}, {count}}}" for name, count in zip(names, counts, strict=True)]
    lines = [
        '#include "entry.h"',
        "",
        *[f"extern const Entry {name}[];" for name in names],
        "",
        f"static const Part parts[] = {{{', '.join(rows)}}};",
        "",
        '#include "exports.h"',
        "",
    ]
    return "\n".join(lines)
