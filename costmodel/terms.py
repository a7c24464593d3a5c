"""What a GEMM costs a GPU, as a GPU engineer would write it down: tiles, waves, bytes, times.

    query[n, len(FIELDS)]  ->  analytical_us[n, 1], quantities[n, len(QUANTITIES)]
    analytical_us = computing + loads from L2 + DRAM traffic + latency along k + launch

That is the time if nothing overlapped; networks and trees learn the correction. A query that does
not name its tile gets the time of the best of fourteen candidates. Every value of a tile is an array
[n, 1 + n_candidates]: column 0 is the tile of the query, the others are the candidates.

Only + - * / ceil min max where come before the logarithms: NumPy and ONNX Runtime round these alike,
bit for bit. So a whole quotient stays whole, and a split of a tree falls the same way in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Final, NamedTuple

import numpy as np

from costmodel import graph_ops
from costmodel.graph_ops import Array
from gemmcast.query import FIELDS

CANDIDATES: Final = (
    (64, 64),
    (64, 128),
    (128, 64),
    (128, 128),
    (64, 256),
    (256, 64),
    (128, 256),
    (256, 128),
    (128, 192),
    (192, 128),
    (32, 64),
    (64, 32),
    (32, 128),
    (128, 32),
)
"""Tiles (m, n) that libraries choose from."""
DEFAULT_TILE_M: Final = 128.0
DEFAULT_TILE_N: Final = 128.0
DEFAULT_TILE_K: Final = 64.0
"""In place of a tile that the query does not name; every candidate has this side along k."""

STEP_US: Final = 0.3
"""Latency of one step along k, on recent NVIDIA GPUs."""
THREADS_PER_SM: Final = 2048.0
MIN_BLOCK_THREADS: Final = 64.0
WIDEST_SWIZZLE: Final = 8.0
SWIZZLE_LIMITS: Final = ((6.0, 4.0), (3.0, 2.0), (2.0, 1.0))
"""(clusters, width): with fewer clusters along the shorter side the swizzle is at most this wide."""
ALIGNMENTS: Final = (2, 4, 8, 16, 32, 64, 128)
"""In elements."""
FLOPS_TO_US: Final = 1e-6
"""Of FLOP over TFLOP/s."""
BYTES_TO_US: Final = 1e-3
"""Of bytes over GB/s."""

PROBLEM_SCALES: Final[Mapping[str, float]] = {
    "tile_known": 1.0,
    "pipeline_stages": 1.0,
    "used_cluster_m": 1.0,
    "used_cluster_n": 1.0,
    "blocks_per_sm": 1.0,
    "alignment_a": 8.0,
    "alignment_b": 8.0,
    "alignment_c": 8.0,
    "dram_a_us": 10.0,
    "dram_b_us": 10.0,
    "dram_c_us": 10.0,
    "flops_us": 10.0,
    "analytical_us": 10.0,
}
"""Quantities that do not depend on the tile, and typical values."""
TILE_SCALES: Final[Mapping[str, float]] = {
    "used_tile_m": 128.0,
    "used_tile_n": 128.0,
    "used_tile_k": 64.0,
    "inside_m": 128.0,
    "inside_n": 128.0,
    "fill_m": 1.0,
    "fill_n": 1.0,
    "count_m": 10.0,
    "count_n": 10.0,
    "count_k": 10.0,
    "used_swizzle": 1.0,
    "blocks_m": 10.0,
    "blocks_n": 10.0,
    "padding": 1.0,
    "tiles": 100.0,
    "busiest_sm": 1.0,
    "compute_us": 10.0,
    "l2_a_us": 10.0,
    "l2_b_us": 10.0,
    "steps_us": 10.0,
}
"""Quantities of the tile, and typical values."""
FIELD_SCALES: Final[Mapping[str, float]] = {
    "m": 1e3,
    "n": 1e3,
    "k": 1e3,
    "warp_m": 64.0,
    "warp_n": 64.0,
    "warp_k": 64.0,
    "threads": 256.0,
    "active_units": 100.0,
    "peak_tflops": 300.0,
    "dram_gbps": 3e3,
    "l2_gbps": 6e3,
    "empty_launch_us": 2.0,
    "power_limit_w": 700.0,
    "idle_power_w": 100.0,
}
"""Typical values of fields, where not 1."""
QUANTITIES: Final = (*FIELDS, *PROBLEM_SCALES, *TILE_SCALES)
"""What the trees see, as it is."""
NOT_FOR_NETWORKS: Final = (
    # codes, which are categories
    "dtype",
    "family",
    "algorithm",
    # the whole matrix where the tile is not named
    "tile_m",
    "tile_n",
    "tile_k",
    # the same in most samples, or the sum of other logarithms
    "warm",
    "l2_bytes",
    "clock_max_mhz",
    "flops_us",
)
INPUTS: Final = tuple(name for name in QUANTITIES if name not in NOT_FOR_NETWORKS)
"""What the networks see, in logarithms."""
SMALLEST_INPUT: Final = 1e-4
"""In place of less, over the typical value."""


class Tiles(NamedTuple):
    """Sides of the tiles, each [n, 1 + n_candidates]."""

    m: Array
    n: Array
    k: Array


class Grid(NamedTuple):
    """How the tiles cover the problem and the device, each [n, 1 + n_candidates]."""

    count_m: Array
    count_n: Array
    count_k: Array
    """Tiles along each side; along k within one split."""
    swizzle: Array
    """Width of the swizzle that the scheduler uses."""
    blocks_m: Array
    blocks_n: Array
    """Tiles along m and n, rounded up to whole clusters and swizzles."""
    tiles: Array
    """Tiles that have work to do, over the whole problem."""
    busiest_sm: Array
    """Tiles of the busiest SM: whole waves."""


class Times(NamedTuple):
    """In microseconds, if nothing else happened."""

    compute: Array
    l2_a: Array
    l2_b: Array
    steps: Array
    """These four are of a tile, [n, 1 + n_candidates]."""
    dram_a: Array
    dram_b: Array
    dram_c: Array
    """These three are of the problem, [n, 1]."""


class Terms(NamedTuple):
    """What the model computes with."""

    analytical_us: Array
    """[n, 1]."""
    flops: Array
    """[n, 1]."""
    power_limit_w: Array
    """[n, 1]."""
    quantities: Array
    """[n, len(QUANTITIES)]."""


def terms(query: Array) -> Terms:
    """The terms of query[n, len(FIELDS)]; array-API code, traced into the graph."""
    xp = query.__array_namespace__()
    q = fields(query)
    known = tile_is_known(q)
    tile = tiles(q, known)
    grid = grid_of(q, tile)
    room = blocks_per_sm(q)
    times = times_us(q, tile, grid, room)
    analytical = analytical_us(q, known, times)
    flops = 2.0 * q.m * q.n * q.k * q.batch
    of_problem = {
        "tile_known": xp.astype(known, xp.float32),
        "pipeline_stages": xp.maximum(q.stages, 1.0),
        "used_cluster_m": xp.maximum(q.cluster_m, 1.0),
        "used_cluster_n": xp.maximum(q.cluster_n, 1.0),
        "blocks_per_sm": room,
        **alignments(q),
        "dram_a_us": times.dram_a,
        "dram_b_us": times.dram_b,
        "dram_c_us": times.dram_c,
        "flops_us": flops / q.peak_tflops * FLOPS_TO_US,
        "analytical_us": analytical,
    }
    columns = [of_problem[name] for name in PROBLEM_SCALES]
    own = _own_tile(tile_quantities(q, tile, grid, times))
    return Terms(
        analytical_us=analytical,
        flops=flops,
        power_limit_w=q.power_limit_w,
        quantities=xp.concat([query, *columns, own], axis=1),
    )


def log_inputs(quantities: Array) -> Array:
    """[n, len(INPUTS)] for the networks: logarithms near 0, where float32 rounds least."""
    xp = quantities.__array_namespace__()
    scales = {**dict.fromkeys(INPUTS, 1.0), **FIELD_SCALES, **PROBLEM_SCALES, **TILE_SCALES}
    typical = np.array([scales[name] for name in INPUTS], dtype=np.float32)
    columns = np.array([QUANTITIES.index(name) for name in INPUTS])
    chosen = xp.take(quantities, xp.asarray(columns), axis=1)
    return xp.log(xp.maximum(chosen / xp.asarray(typical), SMALLEST_INPUT))


def fields(query: Array) -> SimpleNamespace:
    """Each field of query[n, len(FIELDS)] as a column [n, 1], by its name."""
    columns = graph_ops.split(query, [1] * len(FIELDS))
    return SimpleNamespace(**dict(zip(FIELDS, columns, strict=True)))


# tiles


def tile_is_known(q: SimpleNamespace) -> Array:
    """[n, 1] False where the query does not name its tile, which is then the whole matrix."""
    return (q.tile_m != q.m) | (q.tile_n != q.n) | (q.tile_k != q.k)


def tiles(q: SimpleNamespace, known: Array) -> Tiles:
    """The tile of the query, or the default one; then the candidates."""
    xp = q.m.__array_namespace__()
    own_m = xp.where(known, q.tile_m, DEFAULT_TILE_M)
    own_n = xp.where(known, q.tile_n, DEFAULT_TILE_N)
    own_k = xp.where(known, q.tile_k, DEFAULT_TILE_K)
    return Tiles(
        m=_with_candidates(own_m, [m for m, _ in CANDIDATES]),
        n=_with_candidates(own_n, [n for _, n in CANDIDATES]),
        k=_with_candidates(own_k, [DEFAULT_TILE_K] * len(CANDIDATES)),
    )


def _with_candidates(own: Array, sides: Sequence[float]) -> Array:
    """[n, 1 + n_candidates]: own[n, 1], then the same sides in every row."""
    xp = own.__array_namespace__()
    row = np.array([[0, *sides]], dtype=np.float32)
    is_candidate = row > 0
    return xp.where(xp.asarray(is_candidate), xp.asarray(row), own)


# waves


def grid_of(q: SimpleNamespace, tile: Tiles) -> Grid:
    """Tiles, and how CUTLASS 3 rounds their grid up (PersistentTileSchedulerSm90)."""
    xp = q.m.__array_namespace__()
    count_m = xp.ceil(q.m / tile.m)
    count_n = xp.ceil(q.n / tile.n)
    count_k = xp.ceil(q.k / (tile.k * q.split_k))
    cluster_m = xp.maximum(q.cluster_m, 1.0)
    cluster_n = xp.maximum(q.cluster_n, 1.0)
    clusters_m = xp.ceil(count_m / cluster_m)
    clusters_n = xp.ceil(count_n / cluster_n)
    swizzle = swizzle_width(q, clusters_m, clusters_n)
    blocks_m = xp.ceil(clusters_m / swizzle) * swizzle * cluster_m
    blocks_n = xp.ceil(clusters_n / swizzle) * swizzle * cluster_n
    slices = q.split_k * q.batch
    return Grid(
        count_m=count_m,
        count_n=count_n,
        count_k=count_k,
        swizzle=swizzle,
        blocks_m=blocks_m,
        blocks_n=blocks_n,
        tiles=count_m * count_n * slices,
        busiest_sm=xp.ceil(blocks_m * blocks_n * slices / q.active_units),
    )


def swizzle_width(q: SimpleNamespace, clusters_m: Array, clusters_n: Array) -> Array:
    """Not wider than requested, nor than the shorter side of the grid allows; 1 without clusters."""
    xp = q.m.__array_namespace__()
    shorter = xp.minimum(clusters_m, clusters_n)
    requested = xp.where(q.cluster_m > 0.0, xp.maximum(q.swizzle, 1.0), 1.0)
    width = xp.minimum(requested, WIDEST_SWIZZLE)
    for clusters, widest in SWIZZLE_LIMITS:
        width = xp.where(shorter < clusters, xp.minimum(width, widest), width)
    return width


def blocks_per_sm(q: SimpleNamespace) -> Array:
    """[n, 1] blocks of threads that one SM runs at the same time.

    It is 1 where clusters are used, because their blocks need the SM's whole shared memory, and
    where the query does not name the threads of a block.
    """
    xp = q.m.__array_namespace__()
    threads = xp.maximum(q.threads, MIN_BLOCK_THREADS)
    blocks = xp.maximum(THREADS_PER_SM / threads, 1.0)
    return xp.where((q.cluster_m > 0.0) | (q.threads == 0.0), 1.0, blocks)


# time at each level


def times_us(q: SimpleNamespace, tile: Tiles, grid: Grid, room: Array) -> Times:
    """Of computing, of the loads from L2, of the latency along k, of DRAM traffic."""
    xp = q.m.__array_namespace__()
    depth = tile.k * grid.count_k
    tiles_of_waves = grid.busiest_sm * q.active_units
    flops = 2.0 * (tiles_of_waves * tile.m * tile.n * depth)
    loaded_per_row = grid.tiles * depth * q.in_bytes
    return Times(
        compute=flops / q.peak_tflops * FLOPS_TO_US,
        l2_a=loaded_per_row * xp.minimum(tile.m, q.m) / q.l2_gbps * BYTES_TO_US,
        l2_b=loaded_per_row * xp.minimum(tile.n, q.n) / q.l2_gbps * BYTES_TO_US,
        steps=grid.busiest_sm * grid.count_k / room * STEP_US,
        dram_a=q.m * q.k * q.batch * q.in_bytes / q.dram_gbps * BYTES_TO_US,
        dram_b=q.k * q.n * q.batch * q.in_bytes / q.dram_gbps * BYTES_TO_US,
        dram_c=q.m * q.n * q.batch * q.out_bytes / q.dram_gbps * BYTES_TO_US,
    )


def analytical_us(q: SimpleNamespace, known: Array, times: Times) -> Array:
    """[n, 1] the sum of all times, of the tile of the query or of the best candidate."""
    xp = q.m.__array_namespace__()
    l2 = times.l2_a + times.l2_b
    dram = times.dram_a + times.dram_b + times.dram_c
    per_tile = times.compute + l2 + dram + times.steps + q.empty_launch_us
    best = graph_ops.reduce_min(per_tile[:, 1:], axis=1)
    return xp.where(known, per_tile[:, :1], best)


# alignment


def alignments(q: SimpleNamespace) -> dict[str, Array]:
    """[n, 1] of each matrix: the largest of ALIGNMENTS that divides its rows in memory, or 1."""
    xp = q.m.__array_namespace__()
    row_of_a = xp.where(q.trans_a > 0.0, q.m, q.k)
    row_of_b = xp.where(q.trans_b > 0.0, q.k, q.n)
    return {
        "alignment_a": alignment(row_of_a),
        "alignment_b": alignment(row_of_b),
        "alignment_c": alignment(q.n),
    }


def alignment(length: Array) -> Array:
    """[n, 1] of length[n, 1]."""
    xp = length.__array_namespace__()
    divisors = xp.asarray(np.array([ALIGNMENTS], dtype=np.float32))
    multiples = length / divisors
    divides = xp.ceil(multiples) == multiples
    return graph_ops.reduce_max(xp.where(divides, divisors, 1.0), axis=1)


# quantities of the tile


def tile_quantities(
    q: SimpleNamespace, tile: Tiles, grid: Grid, times: Times
) -> dict[str, Array]:
    """Each [n, 1 + n_candidates], by the names of TILE_SCALES."""
    xp = q.m.__array_namespace__()
    blocks = grid.blocks_m * grid.blocks_n
    return {
        "used_tile_m": tile.m,
        "used_tile_n": tile.n,
        "used_tile_k": tile.k,
        "inside_m": xp.minimum(tile.m, q.m),
        "inside_n": xp.minimum(tile.n, q.n),
        "fill_m": q.m / (grid.count_m * tile.m),
        "fill_n": q.n / (grid.count_n * tile.n),
        "count_m": grid.count_m,
        "count_n": grid.count_n,
        "count_k": grid.count_k,
        "used_swizzle": grid.swizzle,
        "blocks_m": grid.blocks_m,
        "blocks_n": grid.blocks_n,
        "padding": blocks / (grid.count_m * grid.count_n),
        "tiles": grid.tiles,
        "busiest_sm": grid.busiest_sm,
        "compute_us": times.compute,
        "l2_a_us": times.l2_a,
        "l2_b_us": times.l2_b,
        "steps_us": times.steps,
    }


def _own_tile(values: Mapping[str, Array]) -> Array:
    """[n, len(TILE_SCALES)] column 0 of each: one concatenation and one gather for all."""
    together = [values[name] for name in TILE_SCALES]
    xp = together[0].__array_namespace__()
    first_columns = np.arange(len(together)) * (1 + len(CANDIDATES))
    return xp.take(xp.concat(together, axis=1), xp.asarray(first_columns), axis=1)
