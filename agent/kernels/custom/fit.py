"""Fit a custom kernel's description to one GEMM and configuration: grid, block, memory and macros.

Needs no CUDA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from agent.kernels.arithmetic import evaluate
from agent.kernels.custom.description import CORRECT_IT, ELEMENT_TYPES, CustomKernel
from agent.kernels.described import check_listed, chosen_knobs
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError, MeasurementError
from gemmcast.feasible import MAX_GRID_YZ
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.renames import CUSTOM_KNOBS

MAX_THREADS = 1024
"""CUDA's limit of threads in a block."""
MAX_GRID_X = 2**31 - 1
"""CUDA's limit of thread blocks along x."""
TILED_GRID = ("(n + TILE_N - 1) / TILE_N", "(m + TILE_M - 1) / TILE_M")
"""One block for each tile of C."""

Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedKernel:
    """All that a launch needs."""

    knobs: dict[str, int]
    """Every knob of the description with its value."""
    grid: Grid
    """Blocks along x, y and z."""
    block: tuple[int, ...]
    """Threads along x, or x and y, or x, y and z."""
    smem_bytes: int
    """Dynamic shared memory of one block."""
    options: tuple[str, ...]
    """NVRTC's."""

    @property
    def threads(self) -> int:
        """Of one block."""
        return prod(self.block)


def fit(custom: CustomKernel, gemm: Gemm, config: KernelConfig) -> FittedKernel:
    """Choose the knobs and evaluate the description's expressions.

    Raises:
        MeasurementError: "unsupported" for what the kernel does not multiply.
        InputError: an expression that has no value, or a value that no kernel can have.
    """
    description = custom.description
    check_listed(custom.name, "dtype", gemm.dtype, description.dtypes)
    check_listed(custom.name, "layout", gemm.layout, description.layouts)
    knobs = chosen_knobs(custom.name, description.listed_knobs, config)
    names = {"ELEMENT_BYTES": DTYPES[gemm.dtype].in_bytes}
    for written in custom.description.knobs:
        names[written.upper()] = knobs[CUSTOM_KNOBS.get(written, written)]
    block = tuple(evaluate("block", text, names) for text in description.block)
    smem_bytes = evaluate("smem", description.smem, names)
    grid = _grid(custom, gemm, names)
    _check_launch(grid, block, smem_bytes)
    threads = prod(block)
    if config.block_threads not in (0, threads):
        reason = f"{custom.name} has blocks of {threads} threads here, not {config.block_threads}"
        raise MeasurementError("unsupported", reason)
    return FittedKernel(
        knobs=knobs,
        grid=grid,
        block=block,
        smem_bytes=smem_bytes,
        options=_options(gemm, names),
    )


def _grid(custom: CustomKernel, gemm: Gemm, names: Mapping[str, int]) -> Grid:
    names_and_sizes = {**names, "m": gemm.m, "n": gemm.n, "k": gemm.k}
    along_x, along_y = custom.description.grid or TILED_GRID
    x = evaluate("grid", along_x, names_and_sizes)
    y = evaluate("grid", along_y, names_and_sizes)
    return x, y, gemm.batch


def _check_launch(grid: Grid, block: tuple[int, ...], smem_bytes: int) -> None:
    if min(block) < 1 or prod(block) > MAX_THREADS:
        raise InputError("block", block, f"a block has 1 to {MAX_THREADS} threads", CORRECT_IT)
    x, y, _ = grid
    if smem_bytes < 0 or min(x, y) < 1:
        raise InputError("grid and smem", (x, y, smem_bytes), "less than possible", CORRECT_IT)
    if x > MAX_GRID_X or max(grid[1:]) > MAX_GRID_YZ:
        reason = f"grid {grid} is over CUDA's limit of {MAX_GRID_YZ} blocks in y and z"
        raise MeasurementError("unsupported", reason)


def _options(gemm: Gemm, names: Mapping[str, int]) -> tuple[str, ...]:
    """The macros of docs/custom-kernels.md."""
    macros: dict[str, str | int] = {
        **names,
        "ELEMENT": ELEMENT_TYPES[gemm.dtype],
        "SCALAR": "double" if gemm.dtype == "fp64" else "float",
        f"DTYPE_{gemm.dtype.upper()}": 1,
        "TRANS_A": int(gemm.layout[0] == "t"),
        "TRANS_B": int(gemm.layout[1] == "t"),
    }
    return tuple(f"-D{name}={value}" for name, value in macros.items())
