"""Fit a Triton kernel's description to one GEMM: grid, arguments, and what is compiled.

Needs neither Triton nor CUDA.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.kernels.arithmetic import evaluate
from agent.kernels.described import check_listed, chosen_knobs
from agent.kernels.triton.description import (
    CORRECT_IT,
    ROUTING,
    SCALES,
    USUAL_STAGES,
    USUAL_WARPS,
    Description,
    TritonKernel,
)
from gemmcast.config import FIELD_KNOBS, WARP_THREADS, KernelConfig
from gemmcast.errors import InputError, MeasurementError
from gemmcast.feasible import MAX_GRID_YZ
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.sample import digest

ELEMENT_TYPES: Final = {
    "fp32": "fp32",
    "tf32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "fp8_e4m3": "fp8e4nv",
}
"""dtype -> type of an element in Triton."""
MAX_NUMBER: Final = 2**31 - 1
"""Of an argument, which is an int32; and of blocks along x."""
MULTIPLE: Final = 16
"""What Triton may assume of an argument, in its own kernels too."""

Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """All that decides the machine code but Triton's version."""

    kernel: str
    """The kernel's name, for messages."""
    source: Path
    """The Python file."""
    content: str
    """Digest of description and source."""
    entry: str
    """The function's name."""
    arch: str
    """`sm_90`, ..."""
    signature: tuple[tuple[str, str], ...]
    """Parameter and its type, of the arguments: `*fp16`, `*fp32` or `i32`."""
    multiples_of_16: tuple[str, ...]
    """Arguments that are multiples of 16. Pointers always are."""
    constants: tuple[tuple[str, int], ...]
    """Parameter and its value."""
    warps: int
    stages: int

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits: the name of what is compiled."""
        return digest(
            {
                "content": self.content,
                "entry": self.entry,
                "arch": self.arch,
                "signature": self.signature,
                "multiples_of_16": self.multiples_of_16,
                "constants": self.constants,
                "warps": self.warps,
                "stages": self.stages,
            }
        )

    def __str__(self) -> str:
        constants = " ".join(f"{name}={value}" for name, value in self.constants)
        element = self.signature[0][1].removeprefix("*")
        return f"{self.kernel} {element} {constants} warps={self.warps} stages={self.stages}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedKernel:
    """All that a launch needs."""

    knobs: dict[str, int]
    """Every knob of the description with its value."""
    compilation: Compilation
    grid: Grid
    """Blocks along x, y and z."""
    pointers: tuple[str, ...]
    """What the first arguments point to."""
    numbers: tuple[int, ...]
    """The arguments after them."""

    @property
    def threads(self) -> int:
        """Of one block."""
        return WARP_THREADS * self.compilation.warps


def compilation_of(
    kernel: TritonKernel, gemm: Gemm, config: KernelConfig, arch: str
) -> Compilation:
    """What a configuration needs for the GEMM's dtype and layout; its sizes do not matter.

    Raises:
        MeasurementError: "unsupported" for what the kernel does not multiply.
        InputError: an expression that has no value.
    """
    _check_problem(kernel, gemm)
    knobs = chosen_knobs(kernel.name, kernel.description.listed_knobs, config)
    names = _names(kernel.description, gemm, knobs)
    return _compilation(kernel, gemm, knobs, names, arch)


def fit(kernel: TritonKernel, gemm: Gemm, config: KernelConfig, arch: str) -> FittedKernel:
    """Choose the knobs and evaluate the description's expressions.

    Args:
        arch: of the GPU: `sm_90`, ...

    Raises:
        MeasurementError: "unsupported" for what the kernel does not multiply.
        InputError: an expression that has no value, or a value that no kernel can have.
    """
    _check_problem(kernel, gemm)
    knobs = chosen_knobs(kernel.name, kernel.description.listed_knobs, config)
    names = _names(kernel.description, gemm, knobs)
    sizes = {"m": gemm.m, "n": gemm.n, "k": gemm.k, "batch": gemm.batch}
    numbers = _numbers(kernel, {**names, **sizes})
    return FittedKernel(
        knobs=knobs,
        compilation=_compilation(kernel, gemm, knobs, names, arch),
        grid=_grid(kernel.description, {**names, **sizes}),
        pointers=kernel.description.pointers,
        numbers=tuple(numbers.values()),
    )


def _check_problem(kernel: TritonKernel, gemm: Gemm) -> None:
    description = kernel.description
    check_listed(kernel.name, "dtype", gemm.dtype, description.dtypes)
    check_listed(kernel.name, "layout", gemm.layout, description.layouts)
    if (gemm.alpha, gemm.beta) != (1.0, 0.0):
        scaling = f"alpha = {gemm.alpha:g} and beta = {gemm.beta:g}"
        raise MeasurementError("unsupported", f"{kernel.name} computes A·B, without {scaling}")
    if gemm.batch > 1 and not any(re.search(r"\bbatch\b", text) for text in description.grid):
        reason = f"{kernel.name} multiplies one matrix at a time, not {gemm.batch}"
        raise MeasurementError("unsupported", reason)


def _names(description: Description, gemm: Gemm, knobs: Mapping[str, int]) -> dict[str, int]:
    """What may stand in an expression, besides the sizes of the problem."""
    names = {
        "ELEMENT_BYTES": DTYPES[gemm.dtype].in_bytes,
        "TRANS_A": int(gemm.layout[0] == "t"),
        "TRANS_B": int(gemm.layout[1] == "t"),
    }
    for written in description.knobs:
        knob, unit = FIELD_KNOBS.get(written, (written, 1))
        names[written.upper()] = knobs[knob] // unit
    return names


def _numbers(kernel: TritonKernel, names: Mapping[str, int]) -> dict[str, int]:
    """Parameter -> value, of the arguments that are no pointers."""
    description = kernel.description
    numbers = {}
    for name, text in description.numbers.items():
        value = evaluate(f"arguments.{name}", text, names)
        if not 0 <= value <= MAX_NUMBER:
            reason = f"{kernel.name} takes numbers of 32 bits, and {name} is {value}"
            raise MeasurementError("unsupported", reason)
        if name in description.multiples_of_16 and value % MULTIPLE:
            reason = f"{kernel.name} needs a multiple of {MULTIPLE} as {name}, not {value}"
            raise MeasurementError("unsupported", reason)
        numbers[name] = value
    return numbers


def _compilation(
    kernel: TritonKernel,
    gemm: Gemm,
    knobs: Mapping[str, int],
    names: Mapping[str, int],
    arch: str,
) -> Compilation:
    description = kernel.description
    constants = []
    for name, text in description.constants.items():
        constants.append((name, evaluate(f"constants.{name}", text, names)))
    signature = []
    for name, text in description.arguments.items():
        signature.append((name, _type(text, gemm)))
    return Compilation(
        kernel=kernel.name,
        source=kernel.source,
        content=kernel.digest,
        entry=description.entry,
        arch=arch,
        signature=tuple(signature),
        multiples_of_16=description.multiples_of_16,
        constants=tuple(constants),
        warps=knobs.get("block_threads", WARP_THREADS * USUAL_WARPS) // WARP_THREADS,
        stages=knobs.get("stages", USUAL_STAGES),
    )


def _type(argument: str, gemm: Gemm) -> str:
    """Triton's name of an argument's type."""
    if argument in ("a", "b"):
        return f"*{ELEMENT_TYPES[gemm.dtype]}"
    if argument == "c":
        return f"*{ELEMENT_TYPES[gemm.c_dtype]}"
    if argument in SCALES:
        return "*fp32"
    if argument in ROUTING:
        return "*i32"
    return "i32"


def _grid(description: Description, names: Mapping[str, int]) -> Grid:
    blocks = [evaluate("grid", text, names) for text in description.grid]
    x, y, z = (*blocks, 1, 1)[:3]
    if min(x, y, z) < 1:
        raise InputError("grid", (x, y, z), "less than possible", CORRECT_IT)
    if x > MAX_NUMBER or max(y, z) > MAX_GRID_YZ:
        reason = f"grid {(x, y, z)} is over CUDA's limit of {MAX_GRID_YZ} blocks in y and z"
        raise MeasurementError("unsupported", reason)
    return x, y, z
