"""Between the nouns (Gemm, KernelConfig, Device, Cell) and the flat row of a sample.

    known_columns(gemm, config, device)  ->  the columns that are known before anything is measured
    gemm_of(row), config_of(row)  ->  the nouns again
    blank(cell, ...), failed(cell, ...)  ->  a whole row, before its readings

gemmcast/descriptions.py makes devices of rows. Does not know how a cell is measured, nor where
rows are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from gemmcast import __version__
from gemmcast.cell import Cell
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.sample import Sample

Row = dict[str, Any]
"""Column -> int, float, str, bool or None, as `gemmcast.sample.COLUMNS` says."""
ReadRow = Mapping[str, Any]
"""The same, where it is only read."""
GEMM_COLUMNS = ("m", "n", "k", "batch", "dtype", "layout", "alpha", "beta")
"""Columns of a sample that name its problem."""
_CONFIG_COLUMNS = ("family", "kernel", *KNOBS)


def gemm_of(row: ReadRow) -> Gemm:
    """The problem of a row."""
    return Gemm(**{name: row[name] for name in GEMM_COLUMNS})


def config_of(row: ReadRow) -> KernelConfig:
    """The kernel configuration of a row."""
    return KernelConfig(**{name: row[name] for name in _CONFIG_COLUMNS})


def known_columns(gemm: Gemm, config: KernelConfig, device: Device) -> Row:
    """The columns of a row that are known before anything is measured."""
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
        "empty_kernel_us": device.empty_kernel_us,
        "empty_launch_us": device.empty_launch_us,
        "peak_tflops": device.peak_tflops.get(gemm.dtype),
        "driver": device.driver,
        "cuda": device.cuda,
        "library": device.library,
        "mig": device.mig,
    }


def blank(cell: Cell, device: Device, agent: str) -> Row:
    """The row of a cell before anything is read: status ok, no readings."""
    sample = Sample(
        **known_columns(cell.gemm, cell.config, device),
        cache=cell.cache,
        sample_id=uuid4().hex,
        cell_id=cell.cell_id,
        agent=agent,
        program_version=__version__,
        measured_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    return sample.row()


def failed(cell: Cell, device: Device, agent: str, status: str, reason: str) -> Row:
    """The row of a cell that was not measured: no readings, a status of STATUSES and its reason."""
    return {**blank(cell, device, agent), "status": status, "reason": reason}
