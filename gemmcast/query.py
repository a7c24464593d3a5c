"""The ONNX contract: how a query is written as one row of float32, and what the graph answers.

    question[n_rows, len(FIELDS)] float32  ->  each output[n_rows] float32

A row holds raw values only; every feature is computed inside the graph. Seven rules fill it: an
unknown tile is the whole dimension; an unknown split_k is 1; an unknown l2_gbps is 2.2 dram_gbps;
an unknown empty_kernel_us is 0.5; threads that the tile determines are never unknown; other
unknowns are 0; on a CPU `active_units` and `peak_tflops` are those of the computing threads.
`_query` is the only place of these rules. docs/onnx.md is the public page of this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache as memoize
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gemmcast.config import FAMILIES, WARP_THREADS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.kernel_names import SCHEDULES, algorithm, resolved, with_named_knobs

CONTRACT: Final = 4
"""The contract that this version writes."""
READ_CONTRACTS: Final = ("2", "3", "4")
"""The contracts that this version serves (gemmcast/contracts.py)."""
OPSET: Final = 21
ML_OPSET: Final = 3
IR_VERSION: Final = 10
INPUT: Final = "question"
OUTPUTS: Final = ("runtime_us", "tflops", "sustained_runtime_us", "power_w", "energy_mj")
"""A model that was trained without power has the first two only."""
INTERVALS: Final = ("low", "high")
"""[n_rows, n_outputs], in the order of the file's outputs."""
COVERAGE: Final = 0.9
"""Share of the measurements that an interval is calibrated to contain."""
EXTRAPOLATING: Final = "extrapolating"
"""True for a query outside the training range."""
L2_OVER_DRAM: Final = 2.2
"""Bandwidth of L2 over that of memory, where L2's was not measured."""
EMPTY_KERNEL_US: Final = 0.5
"""What an empty kernel takes where it was not measured: the reading of an H200. [us]"""
WARPGROUP_THREADS: Final = 128
_WS: Final = SCHEDULES.index("ws") + 1
CACHES: Final = ("cold", "warm")

Rows = npt.NDArray[np.float32]
"""[n_rows, len(FIELDS)]"""
Number = float | npt.NDArray[np.float64]
"""One number for all rows, or one per row."""
SampleColumns = Mapping[str, Sequence[Any]]
"""Columns of gemmcast.sample, all of one length."""


class Query(NamedTuple):
    """The fields of a row, in order. Each holds one number, or one per row."""

    m: Number
    """Rows of C and A; 1 to 2^24, as every size. [elements]"""
    n: Number
    """Columns of C and B. [elements]"""
    k: Number
    """Columns of A, rows of B. [elements]"""
    tile_m: Number
    """Tile of one thread block, or of one cache block on a CPU, along m. [elements] Unknown: `m`"""
    tile_n: Number
    """The same along n. [elements] Unknown: `n`"""
    tile_k: Number
    """The same along k. [elements] Unknown: `k`"""
    batch: Number
    """Independent problems of this shape in one launch. Unknown: 1"""
    in_bytes: Number
    """Storage of one element of A and of B, by dtype (below). [bytes]"""
    out_bytes: Number
    """Storage of one element of C, by dtype (below). [bytes]"""
    beta: Number
    """1 when C is read too (beta ≠ 0), else 0. Unknown: 0"""
    dtype: Number
    """Code (below)."""
    trans_a: Number
    """1 when A is stored transposed (the first letter of the layout is `t`), else 0. Unknown: 0"""
    trans_b: Number
    """1 when B is stored transposed (the second letter), else 0. Unknown: 0"""
    family: Number
    """Code of the kernel family (below)."""
    warp_m: Number
    """Tile of one warp along m. [elements] Unknown: 0"""
    warp_n: Number
    """The same along n. [elements] Unknown: 0"""
    warp_k: Number
    """The same along k. [elements] Unknown: 0"""
    stages: Number
    """Depth of the software pipeline. Unknown: 0"""
    split_k: Number
    """Slices of k that are summed at the end. Unknown: 1"""
    swizzle: Number
    """Rasterisation of thread blocks. Unknown: 0"""
    cluster_m: Number
    """Thread blocks in a cluster along m. [blocks] Unknown: 0"""
    cluster_n: Number
    """The same along n. [blocks] Unknown: 0"""
    threads: Number
    """Threads of one thread block; on a CPU, threads that compute. Unknown: 0"""
    warm: Number
    """1 when the operands are in the cache, 0 when they come from memory. Unknown: 0"""
    active_units: Number
    """The device's `compute_units`; on a CPU min(`threads`, `compute_units`), or `compute_units`
    where `threads` is 0."""
    peak_tflops: Number
    """The device's measured peak at this dtype times `active_units` / `compute_units`. [TFLOP/s]"""
    dram_gbps: Number
    """The device's measured memory bandwidth, read plus written. [GB/s]"""
    l2_bytes: Number
    """L2 cache of a GPU, last-level cache of a CPU. [bytes]"""
    clock_max_mhz: Number
    """Highest clock of the device. [MHz] Unknown: 0"""
    empty_kernel_us: Number
    """The device's `empty_kernel_us`: what an empty kernel takes; nothing of the host. [us]
    Unknown: 0.5"""
    power_limit_w: Number
    """The device's power limit. [W] Unknown: 0"""
    idle_power_w: Number
    """Power of the idle device. [W] Unknown: 0"""
    l2_gbps: Number
    """The device's measured bandwidth of reads from L2. [GB/s] Unknown: 2.2 x `dram_gbps`"""
    algorithm: Number
    """The library's number of the algorithm (cuBLASLt's id); of CUTLASS 3 the code of its schedule
    (below); of `triton` 1 `matmul`, 2 `scaled_block`, 3 `grouped`. Unknown: 0"""


FIELDS: Final = Query._fields
AT: Final = {name: i for i, name in enumerate(FIELDS)}
"""Field -> its place in a row."""
KNOB_FIELDS: Final = FIELDS[AT["warp_m"] : AT["warm"]]
DTYPE_CODES: Final = {name: float(i) for i, name in enumerate(DTYPES)}
FAMILY_CODES: Final = {name: float(i) for i, name in enumerate(FAMILIES)}


def encode(gemm: Gemm, config: KernelConfig, device: Device, *, cache: str = "cold") -> Query:
    """One query.

    Raises:
        InputError: the device was not measured, or not at this dtype; or `cache` is unknown.
    """
    problem, machine = _problem(gemm), _machine(device, gemm.dtype, cache)
    whole = resolved(gemm, config)
    kernel = KernelColumns(*_codes(whole), *_knobs(whole))
    return _query(problem, kernel, machine, cache == "warm")


def encode_configs(
    gemm: Gemm, configs: Sequence[KernelConfig], device: Device, *, cache: str = "cold"
) -> Rows:
    """One row per configuration of one problem. Raises InputError as `encode` does."""
    return encode_columns(gemm, kernel_columns(gemm, configs), device, cache=cache)


def kernel_columns(gemm: Gemm, configs: Sequence[KernelConfig]) -> KernelColumns:
    """What the configurations bring to the rows of every problem of the GEMM's dtype and layout."""
    whole = [resolved(gemm, config) for config in configs]
    codes = _columns(map(_codes, whole))
    knobs = _columns(map(_knobs, whole))
    return KernelColumns(*codes, *knobs)


def encode_columns(
    gemm: Gemm, columns: KernelColumns, device: Device, *, cache: str = "cold"
) -> Rows:
    """`encode_configs` of columns that are made already."""
    problem, machine = _problem(gemm), _machine(device, gemm.dtype, cache)
    query = _query(problem, columns, machine, cache == "warm")
    return _rows(query, np.size(columns.family))


def from_columns(columns: SampleColumns) -> Rows:
    """One row per sample: `encode` for every row of the sample schema."""
    count = len(columns["m"])
    if not count:
        return np.empty((0, len(FIELDS)), dtype=np.float32)
    columns = with_named_knobs(columns)
    sizes = [_numbers(columns[name]) for name in _Problem._fields[:5]]
    storage = _columns(map(_storage, columns["dtype"], columns["layout"]))
    problem = _Problem._make([*sizes, *storage])
    codes = _columns(map(_kernel_codes, columns["family"], columns["kernel"], columns["algo_id"]))
    knobs = [_numbers(columns[name]) for name in _KNOB_NAMES if name != "threads"]
    threads = np.maximum(_numbers(columns["block_threads"]), _numbers(columns["cpu_threads"]))
    kernel = KernelColumns._make([*codes, *knobs, threads])
    on_cpu = _numbers([kind == "cpu" for kind in columns["device_kind"]])
    machine = _Machine(on_cpu, *(_numbers(columns[name]) for name in _Machine._fields[1:]))
    warm = _numbers([state == "warm" for state in columns["cache"]])
    return _rows(_query(problem, kernel, machine, warm), count)


class _Problem(NamedTuple):
    """What a Gemm brings to a query."""

    m: Number
    n: Number
    k: Number
    batch: Number
    beta: Number
    in_bytes: Number
    out_bytes: Number
    dtype: Number
    trans_a: Number
    trans_b: Number


class KernelColumns(NamedTuple):
    """What configurations bring to queries, one number or one per row; 0 is unknown."""

    family: Number
    algorithm: Number
    tile_m: Number
    tile_n: Number
    tile_k: Number
    warp_m: Number
    warp_n: Number
    warp_k: Number
    stages: Number
    split_k: Number
    swizzle: Number
    cluster_m: Number
    cluster_n: Number
    threads: Number


class _Machine(NamedTuple):
    """What a Device brings to a query; 0 is unknown. All but `on_cpu` are named as the columns."""

    on_cpu: Number
    compute_units: Number
    peak_tflops: Number
    dram_gbps: Number
    l2_bytes: Number
    clock_max_mhz: Number
    empty_kernel_us: Number
    power_limit_w: Number
    idle_power_w: Number
    l2_gbps: Number


_KNOB_NAMES: Final = KernelColumns._fields[2:]
_knobs = attrgetter(*_KNOB_NAMES)


def _query(problem: _Problem, kernel: KernelColumns, machine: _Machine, warm: Number) -> Query:
    """The seven rules. Each argument holds one number for all rows, or one per row."""
    threads_on_cpu = _smaller(kernel.threads, machine.compute_units) * machine.on_cpu
    active_units = _known(threads_on_cpu, machine.compute_units)
    active_share = active_units / _known(machine.compute_units, 1)
    return Query(
        m=problem.m,
        n=problem.n,
        k=problem.k,
        tile_m=_known(kernel.tile_m, problem.m),
        tile_n=_known(kernel.tile_n, problem.n),
        tile_k=_known(kernel.tile_k, problem.k),
        batch=problem.batch,
        in_bytes=problem.in_bytes,
        out_bytes=problem.out_bytes,
        beta=problem.beta != 0,
        dtype=problem.dtype,
        trans_a=problem.trans_a,
        trans_b=problem.trans_b,
        family=kernel.family,
        warp_m=kernel.warp_m,
        warp_n=kernel.warp_n,
        warp_k=kernel.warp_k,
        stages=kernel.stages,
        split_k=_known(kernel.split_k, 1),
        swizzle=kernel.swizzle,
        cluster_m=kernel.cluster_m,
        cluster_n=kernel.cluster_n,
        threads=_known(kernel.threads, _threads_of_tile(kernel)),
        warm=warm,
        active_units=active_units,
        peak_tflops=machine.peak_tflops * active_share,
        dram_gbps=machine.dram_gbps,
        l2_bytes=machine.l2_bytes,
        clock_max_mhz=machine.clock_max_mhz,
        empty_kernel_us=_known(machine.empty_kernel_us, EMPTY_KERNEL_US),
        power_limit_w=machine.power_limit_w,
        idle_power_w=machine.idle_power_w,
        l2_gbps=_known(machine.l2_gbps, L2_OVER_DRAM * machine.dram_gbps),
        algorithm=kernel.algorithm,
    )


def _threads_of_tile(kernel: KernelColumns) -> Number:
    """Threads of one block, where family and tile determine them; else 0.

    The tiled kernel has a thread for each element of its tile, CUTLASS 2 a warp for each warp tile.
    CUTLASS 3, whose kernels have clusters, has a warpgroup that loads, and one that computes with
    the schedule `ws`, two with others.
    """
    is_tiled = kernel.family == FAMILY_CODES["tiled"]
    is_cutlass = kernel.family == FAMILY_CODES["cutlass"]
    has_clusters = kernel.cluster_m > 0
    # 0 where the warp tile is unknown
    warps = (
        (kernel.tile_m // _known(kernel.warp_m, np.inf))
        * (kernel.tile_n // _known(kernel.warp_n, np.inf))
        * (kernel.tile_k // _known(kernel.warp_k, np.inf))
    )
    warpgroups = 3 - (kernel.algorithm == _WS)
    cutlass2 = (1 - has_clusters) * warps * WARP_THREADS
    cutlass3 = has_clusters * warpgroups * WARPGROUP_THREADS
    tiled = is_tiled * kernel.tile_m * kernel.tile_n
    # NumPy's stubs forget that these are float64.
    return tiled + is_cutlass * (cutlass2 + cutlass3)  # type: ignore[return-value]


def _known(value: Number, otherwise: Number) -> Number:
    """`value`, or `otherwise` where it is 0."""
    if isinstance(value, np.ndarray):
        return np.where(value > 0, value, otherwise)
    return value or otherwise


def _smaller(one: Number, other: Number) -> Number:
    if isinstance(one, np.ndarray):
        return np.minimum(one, other)
    return min(one, other)


def _problem(gemm: Gemm) -> _Problem:
    storage = _storage(gemm.dtype, gemm.layout)
    return _Problem(gemm.m, gemm.n, gemm.k, gemm.batch, gemm.beta, *storage)


@memoize
def _storage(dtype: str, layout: str) -> tuple[float, ...]:
    """The last five fields of _Problem."""
    stored = DTYPES[dtype]
    code = DTYPE_CODES[dtype]
    return stored.in_bytes, stored.out_bytes, code, layout[0] == "t", layout[1] == "t"


def _codes(config: KernelConfig) -> tuple[float, int]:
    return _kernel_codes(config.family, config.kernel, config.algo_id)


@memoize
def _kernel_codes(family: str, kernel: str, algo_id: int) -> tuple[float, int]:
    """The first two fields of KernelColumns."""
    return FAMILY_CODES[family], algorithm(family, kernel, algo_id)


def _machine(device: Device, dtype: str, cache: str) -> _Machine:
    peak_tflops = device.peak_tflops.get(dtype)
    if not (peak_tflops and device.compute_units and device.dram_gbps and cache in CACHES):
        raise _refusal(device, dtype, cache)
    return _Machine(
        device.kind == "cpu",
        device.compute_units,
        peak_tflops,
        device.dram_gbps,
        device.l2_bytes,
        device.clock_max_mhz or 0.0,
        device.empty_kernel_us or 0.0,
        device.power_limit_w or 0.0,
        device.idle_power_w or 0.0,
        device.l2_gbps or 0.0,
    )


def _refusal(device: Device, dtype: str, cache: str) -> InputError:
    if cache not in CACHES:
        return InputError("cache", cache, "unknown cache state", f"use one of {', '.join(CACHES)}")
    if not device.peak_tflops.get(dtype):
        measured = ", ".join(sorted(device.peak_tflops)) or "none"
        rule = f"device {device.name} has no measured peak for it (measured: {measured})"
        return InputError("dtype", dtype, rule, "use a measured dtype")
    field = "dram_gbps" if device.compute_units else "compute_units"
    rule = f"device {device.name} was not measured"
    return InputError(field, getattr(device, field), rule, "describe it with its measured values")


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    """A column; absent values become 0."""
    return np.array([value or 0 for value in values], dtype=np.float64)


def _columns(rows: Iterable[tuple[float, ...]]) -> npt.NDArray[np.float64]:
    """[n_columns, n_rows] of tuples that each hold one row."""
    return np.array(list(rows), dtype=np.float64).T


def _rows(query: Query, count: int) -> Rows:
    rows = np.empty((count, len(FIELDS)), dtype=np.float32)
    for place, numbers in enumerate(query):
        rows[:, place] = numbers
    return rows
