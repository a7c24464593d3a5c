"""One measurement, flat: the row of the store, of datasets/*.parquet and of every Arrow batch.

A failed measurement is a row too: its `status` is not "ok", `reason` says why, and its readings are
null or as far as they came. An absent value is null, never 0.

The docstring under each field is the schema, with the unit in brackets. `python docs/generate.py`
makes docs/schema.md from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final

from gemmcast.errors import InputError

SCHEMA_VERSION: Final = 4
STATUSES: Final = {
    "ok": "Measured, and the result is correct.",
    "incorrect": "The result differs from the reference by more than the tolerance.",
    "timeout": "The cell ran longer than its limit; its process was killed.",
    "cuda_error": "The CUDA runtime or a library returned an error.",
    "crashed": "The measuring process died twice on this cell.",
    "agent_lost": "The agent itself died three times on this cell, or its rows were refused.",
    "out_of_memory": "The operands do not fit.",
    "unsupported": "The device, family and dtype do not go together.",
    "not_recorded": "A replayed dataset has no such cell.",
    "contended": "Other processes used the device: no answer, the cell stays due.",
    "throttled": "The clock stayed low for a reason other than this kernel.",
    "power_disputed": "The energy counter fell or was over 5 % off; or an older window was warm.",
}
"""Every value of the column `status` -> its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Gemm + KernelConfig + Device + conditions + readings + outcome + provenance.

    A column without a default must be in every file; one that is `... | None` may be null.
    """

    m: int
    """Rows of C and A. [elements]"""
    n: int
    """Columns of C and B. [elements]"""
    k: int
    """Columns of A, rows of B. [elements]"""
    batch: int = 1
    """Independent problems of this shape in one launch."""
    dtype: str
    """Storage and multiplication: `fp64`, `fp32`, `tf32`, `fp16`, `bf16`, `fp8_e4m3` or `int8`."""
    layout: str = "nn"
    """One letter for A and one for B: `n` row-major as written, `t` stored transposed."""
    alpha: float = 1.0
    """Factor of A·B."""
    beta: float = 0.0
    """Factor of C."""

    family: str
    """Kernel family: `blas`, `tiled`, `cublas`, `cutlass`, `cublaslt`, `custom` or
    `triton`."""
    kernel: str = ""
    """The family's own name of the kernel; free text."""
    tile_m: int = 0
    """Tile of one thread block, or of one cache block on a CPU, along m. [elements]"""
    tile_n: int = 0
    """The same along n. [elements]"""
    tile_k: int = 0
    """The same along k. [elements]"""
    warp_m: int = 0
    """Tile of one warp along m. [elements]"""
    warp_n: int = 0
    """The same along n. [elements]"""
    warp_k: int = 0
    """The same along k. [elements]"""
    stages: int = 0
    """Depth of the software pipeline."""
    split_k: int = 0
    """Slices of k that are summed at the end."""
    swizzle: int = 0
    """Rasterisation of thread blocks; of a Triton kernel `group_m`."""
    cluster_m: int = 0
    """Thread blocks in a cluster along m. [blocks]"""
    cluster_n: int = 0
    """The same along n. [blocks]"""
    algo_id: int = 0
    """The library's own number of the algorithm. For `cublas`, this and the knobs above are those
    of the kernel that cuBLASLt's heuristic puts first."""
    block_threads: int = 0
    """Threads of one thread block; 0 on a CPU. Of a Triton kernel 32 x `warps`."""
    cpu_threads: int = 0
    """Threads of the CPU that compute; 0 on a GPU."""
    regs: int | None = None
    """Registers of one thread, as compiled."""
    smem_bytes: int | None = None
    """Shared memory of one thread block. [bytes]"""
    occupancy: float | None = None
    """Resident threads of this kernel on a multiprocessor, as a share of its limit. [0..1]"""
    spill_bytes: int | None = None
    """Local memory of one thread. [bytes]"""
    workspace_bytes: int | None = None
    """Device memory that the kernel needs besides its operands. [bytes]"""

    cache: str = "cold"
    """State of the L2 cache before each launch. `cold`: operand sets rotate beyond 3x L2; `warm`:
    one set."""
    operand_distribution: str = "normal"
    """Values of the operands: `normal` is the standard normal distribution."""
    clock_mhz: float | None = None
    """Mean SM clock while timing, counted on the SMs themselves. [MHz]"""
    clock_start_mhz: float | None = None
    """SM clock just before, under a kernel that draws little power: what the board allows. [MHz]"""
    temperature_c: float | None = None
    """Temperature of the device. [°C]"""
    capped: bool | None = None
    """Whether the power cap slowed the kernel in its power window, or without one in its burst;
    judged by counted clocks."""
    throttle_reasons: int | None = None
    """NVML's bit mask just after the burst; its bits linger from the kernel before. [bits]"""
    power_limit_w: float | None = None
    """Power limit of the device. [W]"""
    idle_power_w: float | None = None
    """Power of the idle device. [W]"""

    runtime_us: float | None = None
    """Median time of one launch in a short burst, launch overhead not included. [us]"""
    runtime_uncertainty: float | None = None
    """Relative standard uncertainty (k = 1) of `runtime_us`: how far another board of the same type
    is off, another day."""
    launches_timed: int | None = None
    """Launches that the median is taken over."""
    host_launch_us: float | None = None
    """Host time of one launch through this program's bindings, while the queue is not full. [us]"""
    launch_bound: bool | None = None
    """Whether a loop of such launches takes longer to enqueue than to run."""
    sustained_runtime_us: float | None = None
    """Time of one launch in a window of seconds, where a power cap acts. [us]"""
    sustained_clock_mhz: float | None = None
    """Mean SM clock in that window. [MHz]"""
    power_w: float | None = None
    """Mean board power in that window by the energy counter, idle power included. [W]"""
    power_instant_w: float | None = None
    """The same by the board's instantaneous power, integrated: a check of the counter. [W]"""
    energy_mj: float | None = None
    """Energy of one launch: `power_w` x `sustained_runtime_us`. [mJ]"""
    window_s: float | None = None
    """Length of that window. [s]"""
    counter_steps: int | None = None
    """Steps of the energy counter in that window."""

    status: str = "ok"
    """Outcome: one of the statuses below."""
    reason: str | None = None
    """Why the status is not `ok`, as text for people."""
    max_error_over_rms: float | None = None
    """Largest difference of C from a reference, divided by the root mean square of C's elements."""

    device: str = ""
    """Name of the product, from the driver."""
    device_kind: str = ""
    """`cuda` or `cpu`."""
    device_uuid: str = ""
    """Identifies one GPU; on a CPU, the host."""
    compute_units: int = 0
    """Streaming multiprocessors; cores on a CPU."""
    arch: str | None = None
    """Architecture that kernels are compiled for: `sm_90`, ...; null on a CPU."""
    clock_max_mhz: float | None = None
    """Highest SM clock. [MHz]"""
    memory_bytes: int | None = None
    """Memory of the device. [bytes]"""
    l2_bytes: int | None = None
    """L2 cache of a GPU, last-level cache of a CPU. [bytes]"""
    dram_gbps: float | None = None
    """Measured memory bandwidth, read plus written. [GB/s]"""
    l2_gbps: float | None = None
    """Measured bandwidth of reads from L2. [GB/s]"""
    empty_kernel_us: float | None = None
    """Time of an empty kernel on the GPU, as a runtime is timed; on a CPU, of the smallest GEMM.
    [us]"""
    empty_launch_us: float | None = None
    """Host time of one launch of an empty kernel; on a CPU, `empty_kernel_us`. No input of a
    model. [us]"""
    peak_tflops: float | None = None
    """Throughput of the best large GEMM at the row's dtype, on the whole device; of int8 in TOP/s.
    [TFLOP/s]"""
    driver: str | None = None
    """Version of the GPU driver."""
    cuda: str | None = None
    """Version of the CUDA runtime."""
    library: str | None = None
    """Name and version of the BLAS."""
    mig: bool = False
    """Whether the device is a slice of a GPU."""

    sample_id: str = ""
    """Identifies this row; no two rows share it."""
    cell_id: str = ""
    """Identifies problem, configuration, conditions and device; the same in every run."""
    agent: str = ""
    """The agent that measured the row."""
    program_version: str = ""
    """Version of gemmcast."""
    measured_at: str = ""
    """UTC, ISO 8601."""
    schema_version: int = SCHEMA_VERSION
    """Version of this schema."""

    def row(self) -> dict[str, Any]:
        """Column -> value, in the order of COLUMNS."""
        return {name: getattr(self, name) for name in COLUMNS}


_FIELDS: Final = {field.name: field for field in fields(Sample)}
COLUMNS: Final = {name: str(field.type).removesuffix(" | None") for name, field in _FIELDS.items()}
"""Column -> `int`, `float`, `str` or `bool`."""
REQUIRED: Final = frozenset(
    name for name, field in _FIELDS.items() if "None" not in str(field.type)
)
"""Columns that are never null."""
DEFAULTS: Final[dict[str, int | float | str | bool | None]] = {
    name: field.default for name, field in _FIELDS.items() if field.default is not MISSING
}
"""Column -> its value in a file without this column. The other columns must be there."""


def check_version(version: int, source: str) -> None:
    """Refuse rows of a schema that this version does not know.

    Args:
        version: the newest of the rows.
        source: where they were read; for messages.
    """
    if version > SCHEMA_VERSION:
        rule = f"{source} is of a newer schema; this gemmcast reads schemas up to {SCHEMA_VERSION}"
        way_out = "use the gemmcast that wrote it, or a newer one"
        raise InputError("schema_version", version, rule, way_out)


def digest(value: Mapping[str, object]) -> str:
    """Sixteen hexadecimal digits that name a value, on every machine and in every version."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
