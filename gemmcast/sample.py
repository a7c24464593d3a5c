"""One measurement, flat: the row of the store, of every Parquet file in datasets/ and of every Arrow batch.

A failed measurement is a row too: `status` is not "ok" and `reason` says why; its readings are null, or as far as they came.
Absent values are null.
The fields below are the schema (docs/schema.md has them for readers without the source, and a test keeps it true).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from gemmcast.config import KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm

SCHEMA_VERSION: Final = 3
STATUSES: Final = (
    "ok",
    "incorrect",  # the result disagrees with the reference
    "timeout",  # the cell ran longer than its limit; its process was killed
    "cuda_error",  # the CUDA runtime or a library refused or faulted
    "crashed",  # the measuring process died, twice on this cell
    "agent_lost",  # the agent itself died, three times on this cell
    "out_of_memory",
    "unsupported",  # this device, family and dtype don't go together
    "not_recorded",  # a replay dataset has no such cell
    "contended",  # somebody else computes on the device
    "throttled",  # the clock stayed low for a reason other than this kernel
    "power_disputed",  # the energy counter and the board's instantaneous power disagree by over 5 %
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Gemm + KernelConfig + Device + conditions + readings + outcome + provenance."""

    # problem
    m: int
    n: int
    k: int
    batch: int
    dtype: str
    layout: str
    alpha: float
    beta: float
    # configuration
    family: str
    kernel: str
    tile_m: int
    tile_n: int
    tile_k: int
    warp_m: int
    warp_n: int
    warp_k: int
    stages: int
    split_k: int
    swizzle: int
    cluster_m: int
    cluster_n: int
    algo_id: int
    block_threads: int
    cpu_threads: int
    # static facts of the compiled kernel
    regs: int | None = None
    smem_bytes: int | None = None
    occupancy: float | None = None
    # resident thread blocks a multiprocessor can hold, as share of its thread limit (0..1)
    spill_bytes: int | None = None
    workspace_bytes: int | None = None
    # device memory that the kernel needs besides its operands
    # conditions
    cache: str = "cold"
    # cold: operand sets rotate beyond 3x L2; warm: one set
    operand_distribution: str = "normal"
    # the operands' values: standard normal
    clock_mhz: float | None = None
    # mean SM clock while timing, counted on the SMs themselves
    clock_start_mhz: float | None = None
    # of an idle-looking kernel just before: what the board allows then
    temperature_c: float | None = None
    throttle_reasons: int | None = None
    # NVML's bit mask while the kernel ran
    power_limit_w: float | None = None
    idle_power_w: float | None = None
    # readings
    runtime_us: float | None = None
    # median of one launch in a short burst, launch overhead not included
    runtime_rse: float | None = None
    # relative standard error of that median
    launches_timed: int | None = None
    # launches timed
    host_launch_us: float | None = None
    # host time of one launch through this program's bindings, the queue never full
    launch_bound: bool | None = None
    # whether a loop of such launches takes longer to enqueue than to run
    sustained_runtime_us: float | None = None
    # of one launch in a window of seconds, where a power cap bites
    sustained_clock_mhz: float | None = None
    # mean SM clock in that window
    power_w: float | None = None
    # mean board power in that window, idle draw included, by the energy counter
    power_instant_w: float | None = None
    # the same by the board's instantaneous power, integrated: a check of the counter
    energy_mj: float | None = None
    # of one launch: power_w x sustained_runtime_us
    window_s: float | None = None
    counter_steps: int | None = None
    # steps of the energy counter that the window spans
    # outcome
    status: str = "ok"
    # one of STATUSES
    reason: str | None = None
    max_error_over_rms: float | None = None
    # largest |C - reference|, relative to the size of C's elements
    # device descriptors (gemmcast.Device; peak_tflops is that of the row's dtype)
    device: str = ""
    device_kind: str = ""
    device_uuid: str = ""
    compute_units: int = 0
    arch: str | None = None
    clock_max_mhz: float | None = None
    memory_bytes: int | None = None
    l2_bytes: int | None = None
    dram_gbps: float | None = None
    l2_gbps: float | None = None
    empty_launch_us: float | None = None
    peak_tflops: float | None = None
    driver: str | None = None
    cuda: str | None = None
    library: str | None = None
    mig: bool = False
    # provenance
    sample_id: str = ""
    cell_id: str = ""
    agent: str = ""
    program_version: str = ""
    measured_at: str = ""
    # UTC, ISO 8601
    schema_version: int = SCHEMA_VERSION

    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS: Final[dict[str, str]] = {f.name: str(f.type).replace(" | None", "") for f in fields(Sample)}
# column -> int, float, str or bool
REQUIRED: Final = frozenset(f.name for f in fields(Sample) if "None" not in str(f.type))


def gemm_of(row: Mapping[str, Any]) -> Gemm:
    return Gemm(**{name: row[name] for name in ("m", "n", "k", "batch", "dtype", "layout", "alpha", "beta")})


def config_of(row: Mapping[str, Any]) -> KernelConfig:
    return KernelConfig(**{name: row[name] for name in ("family", "kernel", *KNOBS)})


def describe(gemm: Gemm, config: KernelConfig, device: Device) -> dict[str, Any]:
    """The columns that are known before anything is measured."""
    return {
        **asdict(gemm),
        **asdict(config),
        "power_limit_w": device.power_limit_w,
        "idle_power_w": device.idle_power_w,
        "device": device.name,
        "device_kind": device.kind,
        "device_uuid": device.uuid,
        "compute_units": device.compute_units,
        "arch": device.arch,
        "clock_max_mhz": device.clock_max_mhz,
        "memory_bytes": device.memory_bytes,
        "l2_bytes": device.l2_bytes,
        "dram_gbps": device.dram_gbps,
        "l2_gbps": device.l2_gbps,
        "empty_launch_us": device.empty_launch_us,
        "peak_tflops": device.peak_tflops.get(gemm.dtype),
        "driver": device.driver,
        "cuda": device.cuda,
        "library": device.library,
        "mig": device.mig,
    }


def device_of(rows: Sequence[Mapping[str, Any]]) -> Device:
    """The device that rows of one device describe; the inverse of `describe`, over all its dtypes."""
    first = rows[0]
    peaks = {row["dtype"]: row["peak_tflops"] for row in rows if row["peak_tflops"]}
    return Device(
        name=first["device"],
        kind=first["device_kind"],
        uuid=first["device_uuid"],
        compute_units=first["compute_units"],
        arch=first["arch"],
        clock_max_mhz=first["clock_max_mhz"],
        power_limit_w=first["power_limit_w"],
        idle_power_w=first["idle_power_w"],
        memory_bytes=first["memory_bytes"] or 0,
        l2_bytes=first["l2_bytes"] or 0,
        dram_gbps=first["dram_gbps"] or 0.0,
        l2_gbps=first["l2_gbps"],
        empty_launch_us=first["empty_launch_us"] or 0.0,
        peak_tflops=peaks,
        driver=first["driver"],
        cuda=first["cuda"],
        library=first["library"],
        mig=first["mig"],
    )


def digest(value: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that name a value; the same on every machine and in every version."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
