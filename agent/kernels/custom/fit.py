"""Fit a custom kernel's description to one GEMM and configuration: grid, block, memory and macros.

Needs no CUDA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from agent.kernels import MAX_GRID_YZ
from agent.kernels.custom.arithmetic import evaluate
from agent.kernels.custom.description import CORRECT_IT, ELEMENT_TYPES, CustomKernel
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.errors import InputError, MeasurementError
from gemmcast.gemm import DTYPES, Gemm

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
    _check_listed(custom.name, "dtype", gemm.dtype, description.dtypes)
    _check_listed(custom.name, "layout", gemm.layout, description.layouts)
    knobs = _knobs(custom, config)
    names = {"ELEMENT_BYTES": DTYPES[gemm.dtype].in_bytes}
    for knob, value in knobs.items():
        names[knob.upper()] = value
    if "block_threads" in knobs:
        # The macro of descriptions that name this knob `threads`, as schema 2 did.
        names["THREADS"] = knobs["block_threads"]
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


def _check_listed(kernel: str, what: str, value: str, listed: Sequence[str]) -> None:
    if value not in listed:
        reason = f"{kernel} has no {what} {value} (it has {', '.join(listed)})"
        raise MeasurementError("unsupported", reason)


def _knobs(custom: CustomKernel, config: KernelConfig) -> dict[str, int]:
    """Every knob of the description: as configured, or else its first value."""
    listed = custom.description.knobs
    for name in KNOBS:
        wanted = getattr(config, name)
        values = listed.get(name, ())
        if not wanted or wanted in values:
            continue
        if name == "block_threads" and not values:
            # Rows record it for every kernel, so a recorded configuration has it; `fit` checks it.
            continue
        shown = ", ".join(map(str, values)) or "no such knob"
        reason = f"{custom.name} has no {name}={wanted} (it has {shown})"
        raise MeasurementError("unsupported", reason)
    return {name: getattr(config, name) or values[0] for name, values in listed.items()}


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
