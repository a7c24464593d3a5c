"""The C++ that instantiates kernels: files with some kernels each, and the table of all. Pure text: needs no CUDA, no headers, no GPU.

A and B are RowMajor for 'n' and ColumnMajor for 't'; C is row-major, in the operands' dtype (fp8: bf16); the accumulator is fp32.
Files of 2.x kernels come first and are cut alike in every set, so the set wide compiles only what the set default did not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from agent.kernels.cutlass.kernel import OUT_BYTES, Kernel

HEADERS: Final = ("entry.h", "kernel.h", "hopper.h", "exports.h")
KERNELS_PER_FILE: Final = 8
# 2.x: the headers cost about 5 s a file, each kernel 1.2 s more
HOPPER_PER_FILE: Final = 7
# 3.x: the headers cost about 40 s a file, each kernel 7 s more
ELEMENTS: Final = {
    "fp32": "float", "tf32": "float", "fp16": "cutlass::half_t", "bf16": "cutlass::bfloat16_t", "fp8_e4m3": "cutlass::float_e4m3_t",
}  # fmt: skip
OUT_ELEMENTS: Final = {**ELEMENTS, "fp8_e4m3": "cutlass::bfloat16_t"}
INSTRUCTIONS: Final = {"fp32": (1, 1, 1), "tf32": (16, 8, 8), "fp16": (16, 8, 16), "bf16": (16, 8, 16)}
# of mma.sync; 1x1x1 is one fused multiply-add
MAIN, STREAM_K = "KernelTmaWarpSpecialized", "cutlass::gemm::StreamKScheduler"
SCHEDULES: Final = {
    "ws": (MAIN, "void"),
    "pingpong": (f"{MAIN}Pingpong", "void"),
    "coop": (f"{MAIN}Cooperative", "void"),
    "streamk": (f"{MAIN}Cooperative", STREAM_K),
    # the tensor cores' own accumulator to the end, instead of adding it to registers every four instructions
    "pingpongfast": (f"{MAIN}PingpongFP8FastAccum", "void"),
    "coopfast": (f"{MAIN}CooperativeFP8FastAccum", "void"),
}
# name -> main loop, tile scheduler (void: the persistent one)


def sources(made: list[Kernel], per_file: int = KERNELS_PER_FILE) -> dict[str, str]:
    """File name -> text."""
    older, newer = [one for one in made if not one.schedule], [one for one in made if one.schedule]
    parts = [older[at : at + per_file] for at in range(0, len(older), per_file)]
    parts += [newer[at : at + HOPPER_PER_FILE] for at in range(0, len(newer), HOPPER_PER_FILE)]
    files = {name: (Path(__file__).parent / name).read_text() for name in HEADERS}
    files |= {f"part_{i:02}.cu": _part(i, part) for i, part in enumerate(parts)}
    files["table.cu"] = _table([len(part) for part in parts])
    return files


def _part(number: int, part: list[Kernel]) -> str:
    header, cpp = ("hopper.h", _hopper) if part[0].schedule else ("kernel.h", _gemm)
    types = "\n".join(f"using Kernel{i} = {cpp(kernel)};" for i, kernel in enumerate(part))
    rows = "\n".join(f"    entry<Kernel{i}>({json.dumps(_told(kernel))})," for i, kernel in enumerate(part))
    return f'#include "{header}"\n\nnamespace {{\n{types}\n}}\n\nextern const Entry part_{number:02}[] = {{\n{rows}\n}};\n'


def _told(kernel: Kernel) -> str:
    """A printf format: the library fills in the stages that it was compiled with."""
    return json.dumps({**kernel.description, "stages": "%d"}).replace('"%d"', "%d")


def _layouts(kernel: Kernel) -> list[str]:
    return ["cutlass::layout::ColumnMajor" if letter == "t" else "cutlass::layout::RowMajor" for letter in kernel.layout]


def _gemm(kernel: Kernel) -> str:
    element = ELEMENTS[kernel.dtype]
    a, b = _layouts(kernel)
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


def _hopper(kernel: Kernel) -> str:
    a, b = _layouts(kernel)
    main, scheduler = SCHEDULES[kernel.schedule]
    epilogue = "Cooperative" if "Cooperative" in main else ""
    tile, cluster = (f"cute::Shape<{', '.join(f'cute::Int<{size}>' for size in shape)}>" for shape in (kernel.tile, (*kernel.cluster, 1)))
    return (
        f"HopperGemm<\n    {ELEMENTS[kernel.dtype]}, {OUT_ELEMENTS[kernel.dtype]}, {a}, {b}, {kernel.alignment}, {16 // OUT_BYTES[kernel.dtype]},\n"
        f"    {tile}, {cluster},\n    cutlass::gemm::{main}, cutlass::epilogue::TmaWarpSpecialized{epilogue}, {scheduler}, {kernel.swizzle}>"
    )


def _table(counts: list[int]) -> str:
    names = [f"part_{i:02}" for i in range(len(counts))]
    declared = "\n".join(f"extern const Entry {name}[];" for name in names)
    rows = ", ".join(f"{{{name}, {count}}}" for name, count in zip(names, counts, strict=True))
    return f'#include "entry.h"\n\n{declared}\n\nstatic const Part parts[] = {{{rows}}};\n\n#include "exports.h"\n'
