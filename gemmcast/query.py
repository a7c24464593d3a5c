"""The ONNX contract: how a question is written as one row of float32, and what the graph answers.

    question[n_rows, len(FIELDS)] float32  ->  each output[n_rows] float32

One row holds the raw question; every feature is computed inside the graph, so an embedder in any language only fills this row, by
five rules: a tile that is not known is the whole dimension; split_k that is not known is 1; l2_gbps that is not known is 2.2 dram_gbps; other
unknowns are 0; on a CPU `active_units` and `peak_tflops` are those of the threads that compute. docs/onnx.md is the public page of this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES, Gemm

CONTRACT: Final = 3
OPSET: Final = 21
ML_OPSET: Final = 3
IR_VERSION: Final = 10
INPUT: Final = "question"
OUTPUTS: Final = ("runtime_us", "tflops", "sustained_runtime_us", "power_w", "energy_mj")
# A model that was never shown power has the first two only.
INTERVALS: Final = ("low", "high")
# [n_rows, n_outputs], in the order of the file's outputs
COVERAGE: Final = 0.9
# of measurements that lie between them
EXTRAPOLATING: Final = "extrapolating"
# 1 for a question outside of what the model was taught

FIELDS: Final = (
    "m", "n", "k", "tile_m", "tile_n", "tile_k", "batch", "in_bytes", "out_bytes", "beta", "dtype", "trans_a", "trans_b",
    "family", "warp_m", "warp_n", "warp_k", "stages", "split_k", "swizzle", "cluster_m", "cluster_n", "threads", "warm",
    "active_units", "peak_tflops", "dram_gbps", "l2_bytes", "clock_max_mhz", "empty_launch_us", "power_limit_w", "idle_power_w",
    "l2_gbps", "algorithm",
)  # fmt: skip
L2_OVER_DRAM: Final = 2.2
# bandwidths, where L2's was not measured
SCHEDULES: Final = ("ws", "pingpong", "coop", "streamk", "pingpongfast", "coopfast")
# of CUTLASS 3 kernels, as their names tell them; the code is the place in this list, from 1
CACHES: Final = ("cold", "warm")
KNOB_FIELDS: Final = FIELDS[FIELDS.index("warp_m") : FIELDS.index("warm")]
AT: Final = {name: i for i, name in enumerate(FIELDS)}
DTYPE_CODES: Final = {name: float(i) for i, name in enumerate(DTYPES)}
FAMILY_CODES: Final = {name: float(i) for i, name in enumerate(FAMILIES)}

Rows = npt.NDArray[np.float32]
# [n_rows, len(FIELDS)]


@cache
def algorithm(family: str, kernel: str, algo_id: int) -> int:
    """The library's own number of the algorithm; of a CUTLASS 3 kernel the code of its schedule; 0 for what has neither."""
    if algo_id or family != "cutlass":
        return algo_id
    return next((SCHEDULES.index(part) + 1 for part in kernel.split("_") if part in SCHEDULES), 0)


def encode(gemm: Gemm, config: KernelConfig, device: Device, *, cache: str = "cold") -> tuple[float, ...]:
    """One question as the numbers of FIELDS, in order.

    Raises:
        InputError: the device was never measured, or not at this dtype; or `cache` is neither cold nor warm.
    """
    peak = device.peak_tflops.get(gemm.dtype)
    if not (peak and device.compute_units and device.dram_gbps and cache in CACHES):
        raise _refusal(gemm, device, cache)
    t = DTYPES[gemm.dtype]
    active_units = min(config.threads, device.compute_units) if device.kind == "cpu" and config.threads else device.compute_units
    return (
        gemm.m, gemm.n, gemm.k, config.tile_m or gemm.m, config.tile_n or gemm.n, config.tile_k or gemm.k, gemm.batch,
        t.in_bytes, t.out_bytes, gemm.beta != 0, DTYPE_CODES[gemm.dtype], gemm.layout[0] == "t", gemm.layout[1] == "t",
        FAMILY_CODES[config.family], config.warp_m, config.warp_n, config.warp_k, config.stages, config.split_k or 1, config.swizzle,
        config.cluster_m, config.cluster_n, config.threads, cache == "warm",
        active_units, peak * (active_units / device.compute_units), device.dram_gbps, device.l2_bytes, device.clock_max_mhz or 0.0,
        device.empty_launch_us, device.power_limit_w or 0.0, device.idle_power_w or 0.0,
        device.l2_gbps or L2_OVER_DRAM * device.dram_gbps, algorithm(config.family, config.kernel, config.algo_id),
    )  # fmt: skip


def _refusal(gemm: Gemm, device: Device, cache: str) -> InputError:
    if cache not in CACHES:
        return InputError("cache", cache, "unknown cache state", f"use one of {', '.join(CACHES)}")
    if not device.peak_tflops.get(gemm.dtype):
        known = ", ".join(sorted(device.peak_tflops)) or "none"
        return InputError("dtype", gemm.dtype, f"device {device.name} has no measured peak for it (known: {known})", "ask for a known dtype")
    field = "dram_gbps" if device.compute_units else "compute_units"
    return InputError(field, getattr(device, field), f"device {device.name} was never measured", "describe it with its measured values")


def from_columns(columns: Mapping[str, Sequence[Any]]) -> Rows:
    """The questions of many samples at once: `encode` for every row of the sample schema.

    Args:
        columns: the sample columns (gemmcast.sample), each of one length.
    """
    rows = np.zeros((len(columns["m"]), len(FIELDS)), dtype=np.float32)
    derived = _derived(columns)
    for i, name in enumerate(FIELDS):
        values = derived[name] if name in derived else _numbers(columns[name])
        rows[:, i] = values
    return rows


def _derived(columns: Mapping[str, Sequence[Any]]) -> dict[str, npt.NDArray[np.float64]]:
    kinds, layouts = [DTYPES[name] for name in columns["dtype"]], list(columns["layout"])
    tiles = {f"tile_{d}": np.where(_numbers(columns[f"tile_{d}"]) > 0, _numbers(columns[f"tile_{d}"]), _numbers(columns[d])) for d in "mnk"}
    cores, threads = _numbers(columns["compute_units"]), np.maximum(_numbers(columns["block_threads"]), _numbers(columns["cpu_threads"]))
    on_cpu = np.array([kind == "cpu" for kind in columns["device_kind"]], dtype=bool)
    active_units = np.where(on_cpu & (threads > 0), np.minimum(threads, cores), cores)
    return {
        **tiles,
        "in_bytes": np.array([t.in_bytes for t in kinds], dtype=np.float64),
        "out_bytes": np.array([t.out_bytes for t in kinds], dtype=np.float64),
        "beta": _numbers([value != 0 for value in columns["beta"]]),
        "dtype": _numbers([DTYPE_CODES[name] for name in columns["dtype"]]),
        "trans_a": _numbers([layout[0] == "t" for layout in layouts]),
        "trans_b": _numbers([layout[1] == "t" for layout in layouts]),
        "family": _numbers([FAMILY_CODES[name] for name in columns["family"]]),
        "split_k": np.maximum(_numbers(columns["split_k"]), 1.0),
        "warm": _numbers([value == "warm" for value in columns["cache"]]),
        "threads": threads,
        "active_units": active_units,
        "l2_gbps": np.where(_numbers(columns["l2_gbps"]) > 0, _numbers(columns["l2_gbps"]), L2_OVER_DRAM * _numbers(columns["dram_gbps"])),
        "algorithm": _numbers([algorithm(*names) for names in zip(columns["family"], columns["kernel"], columns["algo_id"], strict=True)]),
        "peak_tflops": _numbers(columns["peak_tflops"]) * (active_units / np.maximum(cores, 1.0)),
    }


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Absent values as 0."""
    return np.array([0 if value is None else value for value in values], dtype=np.float64)
