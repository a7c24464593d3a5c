"""What a GEMM costs a GPU, as a GPU engineer would write it down: tiles, waves, bytes, times.

    query[n, len(FIELDS)]  ->  floor_us[n, 1], quantities[n, len(QUANTITIES)]
    floor_us = computing + loads from L2 + DRAM traffic + latency along k + launch

That is the time if nothing overlapped; networks and trees learn the correction. A query that does
not name its tile is computed with the usual one. Arrays are [n, 1], or [n, 2] for both sides m, n.

Before the logarithms only + - * / ceil min max where are used. NumPy and ONNX Runtime round these
alike, bit for bit: a whole quotient stays whole, and a tree's split falls the same way in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from costmodel import graph_ops
from costmodel.graph_ops import Array
from gemmcast.query import FIELDS, KNOB_FIELDS

USUAL_TILE: Final = 128.0
USUAL_TILE_K: Final = 64.0
"""In place of a tile that the query does not name: 128 x 128 x 64."""

STEP_US: Final = 0.3
"""Latency of one step along k, on recent NVIDIA GPUs."""
WIDEST_SWIZZLE: Final = 8
SWIZZLE_LIMITS: Final = ((6, 4), (3, 2), (2, 1))
"""(clusters, width): the widest swizzle with fewer clusters along the shorter side."""
ALIGNMENTS: Final = (2, 4, 8, 16, 32, 64, 128)
"""In elements."""
FLOPS_PER_US: Final = 1e6
"""Of 1 TFLOP/s."""
BYTES_PER_US: Final = 1e3
"""Of 1 GB/s."""

DERIVED_SCALES: Final[Mapping[str, float]] = {
    "tile_unknown": 1.0,
    "alignment_a": 8.0,
    "alignment_b": 8.0,
    "alignment_c": 8.0,
    "dram_a_us": 10.0,
    "dram_b_us": 10.0,
    "dram_c_us": 10.0,
    "flops": 1e9,
    "floor_us": 10.0,
    "used_tile_m": 128.0,
    "used_tile_n": 128.0,
    "used_tile_k": 64.0,
    "inside_m": 128.0,
    "inside_n": 128.0,
    "count_m": 10.0,
    "count_n": 10.0,
    "count_k": 10.0,
    "blocks_m": 10.0,
    "blocks_n": 10.0,
    "padding": 1.0,
    "used_swizzle": 1.0,
    "tiles": 100.0,
    "busiest_sm": 1.0,
    "compute_us": 10.0,
    "l2_a_us": 10.0,
    "l2_b_us": 10.0,
    "steps_us": 10.0,
}
"""Quantities beside the fields, in the order of `terms`, and typical values."""
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
QUANTITIES: Final = (*FIELDS, *DERIVED_SCALES)
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
    # they brought nothing
    "warm",
    "l2_bytes",
    "clock_max_mhz",
    "flops",
)
INPUTS: Final = tuple(name for name in QUANTITIES if name not in NOT_FOR_NETWORKS)
"""What the networks see, in logarithms."""
SMALLEST: Final = 1e-4
"""In place of less, over the typical value: a logarithm needs more than 0."""


class Query(NamedTuple):
    """The fields that the formulas use: [n, 1], or [n, 2] for both sides."""

    size: Array
    """m and n."""
    k: Array
    tile: Array
    tile_k: Array
    batch: Array
    in_bytes: Array
    out_bytes: Array
    trans_a: Array
    trans_b: Array
    split_k: Array
    swizzle: Array
    cluster: Array
    active_units: Array
    peak_tflops: Array
    dram_gbps: Array
    empty_launch_us: Array
    power_limit_w: Array
    l2_gbps: Array


BOTH_SIDES: Final[Mapping[str, tuple[str, ...]]] = {
    "size": ("m", "n"),
    "tile": ("tile_m", "tile_n"),
    "cluster": ("cluster_m", "cluster_n"),
}
"""Entries of Query that are two fields; the others are the field of their name."""


class Tile(NamedTuple):
    """The tile of the query, or the usual one."""

    is_unknown: Array
    """[n, 1] whether the query does not name it."""
    side: Array
    """[n, 2]."""
    k: Array
    """[n, 1]."""


class Grid(NamedTuple):
    """How the tiles cover the problem and the device."""

    count: Array
    """[n, 2] tiles along m and n."""
    count_k: Array
    """[n, 1] tiles along k, within one split."""
    swizzle: Array
    """[n, 1] width of the swizzle that the scheduler uses."""
    blocks: Array
    """[n, 2] tiles along m and n, rounded up to whole clusters and swizzles."""
    padding: Array
    """[n, 1] how many times more tiles that makes."""
    tiles: Array
    """[n, 1] tiles that have work to do, over the whole problem."""
    busiest_sm: Array
    """[n, 1] tiles of the busiest SM: whole waves."""


class Times(NamedTuple):
    """In microseconds, if nothing else happened."""

    compute: Array
    """[n, 1]."""
    l2: Array
    """[n, 2] loads of A and of B."""
    steps: Array
    """[n, 1] latency along k."""
    dram: Array
    """[n, 3] traffic of A, B and C."""


class Terms(NamedTuple):
    """What the model computes with."""

    floor_us: Array
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
    q = query_of(query)
    tile = tile_of(q)
    grid = grid_of(q, tile)
    times = times_us(q, tile, grid)
    floor = floor_us(q, times)
    flops = 2.0 * graph_ops.reduce_prod(q.size, axis=1) * q.k * q.batch
    # In the order of DERIVED_SCALES
    derived = [
        xp.astype(tile.is_unknown, xp.float32),
        alignments(q),
        times.dram,
        flops,
        floor,
        tile.side,
        tile.k,
        xp.minimum(tile.side, q.size),
        grid.count,
        grid.count_k,
        grid.blocks,
        grid.padding,
        grid.swizzle,
        grid.tiles,
        grid.busiest_sm,
        times.compute,
        times.l2,
        times.steps,
    ]
    quantities = xp.concat([query, *derived], axis=1)
    return Terms(floor_us=floor, flops=flops, power_limit_w=q.power_limit_w, quantities=quantities)


def log_inputs(quantities: Array) -> Array:
    """[n, len(INPUTS)] for the networks: logarithms near 0, where float32 rounds least."""
    xp = quantities.__array_namespace__()
    scales = {**dict.fromkeys(INPUTS, 1.0), **FIELD_SCALES, **DERIVED_SCALES}
    typical = np.array([scales[name] for name in INPUTS], dtype=np.float32)
    smallest = SMALLEST * typical
    for name in KNOB_FIELDS:
        # 0 means unknown: the logarithm is that of 1
        smallest[INPUTS.index(name)] = 1
    columns = np.array([QUANTITIES.index(name) for name in INPUTS])
    chosen = xp.take(quantities, xp.asarray(columns), axis=1)
    return xp.log(xp.maximum(chosen, xp.asarray(smallest)) / xp.asarray(typical))


def query_of(query: Array) -> Query:
    """The entries of Query from query[n, len(FIELDS)]: one gather and one split."""
    xp = query.__array_namespace__()
    entries = [BOTH_SIDES.get(name, (name,)) for name in Query._fields]
    columns = [FIELDS.index(name) for entry in entries for name in entry]
    used = xp.take(query, xp.asarray(np.array(columns)), axis=1)
    return Query(*graph_ops.split(used, [len(entry) for entry in entries]))


def tile_of(q: Query) -> Tile:
    """Where the query does not name its tile, its tile is the whole matrix."""
    xp = q.k.__array_namespace__()
    same_side = graph_ops.reduce_min(xp.astype(q.tile == q.size, xp.float32), axis=1) > 0.0
    is_unknown = same_side & (q.tile_k == q.k)
    return Tile(
        is_unknown=is_unknown,
        side=xp.where(is_unknown, USUAL_TILE, q.tile),
        k=xp.where(is_unknown, USUAL_TILE_K, q.tile_k),
    )


# waves


def grid_of(q: Query, tile: Tile) -> Grid:
    """Tiles, and how CUTLASS 3 rounds their grid up (PersistentTileSchedulerSm90)."""
    xp = q.k.__array_namespace__()
    cluster = xp.maximum(q.cluster, 1.0)
    count = xp.ceil(q.size / tile.side)
    clusters = xp.ceil(count / cluster)
    swizzle = swizzle_width(q, clusters)
    blocks = xp.ceil(clusters / swizzle) * swizzle * cluster
    tiles_of_slice = graph_ops.reduce_prod(count, axis=1)
    blocks_of_slice = graph_ops.reduce_prod(blocks, axis=1)
    slices = q.split_k * q.batch
    return Grid(
        count=count,
        count_k=xp.ceil(q.k / (tile.k * q.split_k)),
        swizzle=swizzle,
        blocks=blocks,
        padding=blocks_of_slice / tiles_of_slice,
        tiles=tiles_of_slice * slices,
        busiest_sm=xp.ceil(blocks_of_slice * slices / q.active_units),
    )


def swizzle_width(q: Query, clusters: Array) -> Array:
    """Not wider than requested, nor than the shorter side of the grid allows; 1 without clusters.

    Args:
        q: the query.
        clusters: [n, 2] along m and n.
    """
    xp = q.k.__array_namespace__()
    shorter = graph_ops.reduce_min(clusters, axis=1)
    allowed = xp.asarray(np.float32(WIDEST_SWIZZLE))
    for limit, width in SWIZZLE_LIMITS:
        allowed = xp.where(shorter < limit, xp.asarray(np.float32(width)), allowed)
    has_clusters = graph_ops.reduce_min(q.cluster, axis=1) > 0.0
    requested = xp.where(has_clusters, xp.maximum(q.swizzle, 1.0), 1.0)
    return xp.minimum(requested, allowed)


# time at each level


def times_us(q: Query, tile: Tile, grid: Grid) -> Times:
    """Of computing, of the loads from L2, of the latency along k, of DRAM traffic."""
    xp = q.k.__array_namespace__()
    depth = tile.k * grid.count_k
    flops_of_tile = 2.0 * graph_ops.reduce_prod(tile.side, axis=1) * depth
    flops_per_us_of_sm = q.peak_tflops * FLOPS_PER_US / q.active_units
    # Every tile loads so many rows of A and so many columns of B
    row_us = grid.tiles * depth * q.in_bytes / (q.l2_gbps * BYTES_PER_US)
    return Times(
        compute=grid.busiest_sm * flops_of_tile / flops_per_us_of_sm,
        l2=row_us * xp.minimum(tile.side, q.size),
        steps=grid.busiest_sm * grid.count_k * STEP_US,
        dram=dram_us(q),
    )


def dram_us(q: Query) -> Array:
    """[n, 3] of A, B and C, each once."""
    xp = q.k.__array_namespace__()
    bytes_per_us = q.dram_gbps * BYTES_PER_US
    a_and_b = q.size * q.k * q.in_bytes
    c = graph_ops.reduce_prod(q.size, axis=1) * q.out_bytes
    return xp.concat([a_and_b, c], axis=1) * q.batch / bytes_per_us


def floor_us(q: Query, times: Times) -> Array:
    """[n, 1] the sum of all times: nothing overlaps."""
    xp = q.k.__array_namespace__()
    l2 = xp.sum(times.l2, axis=1, keepdims=True)
    dram = xp.sum(times.dram, axis=1, keepdims=True)
    return times.compute + l2 + dram + times.steps + q.empty_launch_us


# alignment


def alignments(q: Query) -> Array:
    """[n, 3] of A, B and C: the largest of ALIGNMENTS that divides a row in memory, or 1."""
    xp = q.k.__array_namespace__()
    m, n = graph_ops.split(q.size, [1, 1])
    row_of_a = xp.where(q.trans_a > 0.0, m, q.k)
    row_of_b = xp.where(q.trans_b > 0.0, q.k, n)
    rows = xp.concat([row_of_a, row_of_b, n], axis=1)
    divisors = xp.asarray(np.array(ALIGNMENTS, dtype=np.float32))
    multiples = xp.expand_dims(rows, axis=2) / divisors
    divides = xp.ceil(multiples) == multiples
    largest = graph_ops.reduce_max(xp.where(divides, divisors, 1.0), axis=2)
    return xp.squeeze(largest, axis=2)
