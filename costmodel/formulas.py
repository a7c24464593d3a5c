"""What a kernel does with a GEMM, as a GPU engineer would write it: tiles, waves, bytes, times.

    waves      = ceil(tiles in whole clusters and swizzles / SMs)
    compute    = waves x FLOP of a tile / FLOP rate of an SM
    L2, DRAM   = bytes loaded / bandwidth
    steps      = waves x steps along k x latency of a step
    start      = a few empty kernels

A query that does not name its tile is computed with the usual one. Arrays are [n, 1], or [n, 2] for
both sides m and n. Only + - * / ceil floor min max where are used, which NumPy and ONNX Runtime
round alike, bit for bit: a whole quotient stays whole. Products with a matrix are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.graph_ops import Array
from gemmcast.query import FIELDS, L2_OVER_DRAM

Matrix = npt.NDArray[np.float32]

USUAL_TILE: Final = 128.0
USUAL_TILE_K: Final = 64.0
"""In place of a tile that the query does not name: 128 x 128 x 64."""

LIBRARY_TILES: Final = (
    (32, 64),
    (64, 32),
    (32, 128),
    (128, 32),
    (64, 64),
    (64, 128),
    (128, 64),
    (128, 128),
    (64, 256),
    (256, 64),
    (128, 192),
    (192, 128),
    (128, 256),
    (256, 128),
)
"""Tiles (m, n) that libraries choose from, where the query does not name one."""
STEP_US: Final = 0.3
"""Latency of one step along k, on recent NVIDIA GPUs."""
START: Final = 4.0
"""What a GEMM takes besides its work, in empty kernels: pipelines fill, a last tile is written."""
SWIZZLE_STEPS: Final = ((2, 1), (3, 2), (6, 4))
"""(clusters, step): from so many along the shorter side, the widest swizzle is so much wider than
1; it is 8 from 6 clusters on."""
ALIGNMENTS: Final = (2, 4, 8, 16, 32, 64, 128)
"""In elements."""
LOADS: Final = ALIGNMENTS[:4]
"""Elements that one instruction loads. Libraries have other kernels where a row forbids it."""
PRODUCTS_PER_US: Final = 5e5
"""Of 1 TFLOP/s: multiplications, each with its addition."""
BYTES_PER_US: Final = 1e3
"""Of 1 GB/s."""
MEASURED_L2: Final = 1e-4
"""A bandwidth of L2 so near to 2.2 times the memory's was not measured: that stands for it."""


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
    beta: Array
    trans_a: Array
    trans_b: Array
    stages: Array
    split_k: Array
    swizzle: Array
    cluster: Array
    threads: Array
    warm: Array
    active_units: Array
    peak_tflops: Array
    dram_gbps: Array
    l2_bytes: Array
    empty_kernel_us: Array
    power_limit_w: Array
    idle_power_w: Array
    l2_gbps: Array
    m: Array
    n: Array
    elements: Array
    """Of C, of one problem."""


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
    inside: Array
    """[n, 2] what of a side lies within the matrix."""
    area: Array
    """[n, 1] elements of C."""
    named_k: Array
    """[n, 1] the tile along k if the query names it, else 0."""


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
    of_slice: Array
    """[n, 1] tiles of one problem and one split."""
    busiest_sm: Array
    """[n, 1] tiles of the busiest SM: whole waves."""
    has_clusters: Array
    """[n, 1] whether the kernel is one of CUTLASS 3, with clusters of tiles."""
    requested_swizzle: Array
    """[n, 1] 1 or more."""


class Rates(NamedTuple):
    """What the device does at most. [n, 1]"""

    products_per_us: Array
    """Of one SM."""
    dram_bytes_per_us: Array
    l2_element_us: Array
    """To load one element of A or B from L2."""


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
    moved: Array
    """[n, 1] all of it."""
    any_tile: Array
    """[n, 1] what is the same for every tile: moving, and what is no work."""


def query_of(query: Array) -> Query:
    """The entries of Query from query[n, len(FIELDS)]."""
    # The last three are made of the first
    entries = [BOTH_SIDES.get(name, (name,)) for name in Query._fields[:-3]]
    wanted = [(FIELDS.index(entry[0]), len(entry)) for entry in entries]
    size, *others = graph_ops.spans(query, wanted, len(FIELDS))
    m, n = graph_ops.split(size, [1, 1])
    return Query._make([size, *others, m, n, m * n])


def tile_of(q: Query) -> Tile:
    """Where the query does not name its tile, its tile is the whole matrix."""
    xp = q.k.__array_namespace__()
    is_whole_k = q.tile_k == q.k
    is_unknown = graph_ops.is_all(q.tile == q.size, axis=1) & is_whole_k
    side = xp.where(is_unknown, USUAL_TILE, q.tile)
    return Tile(
        is_unknown=is_unknown,
        side=side,
        k=xp.where(is_unknown, USUAL_TILE_K, q.tile_k),
        inside=xp.minimum(side, q.size),
        area=graph_ops.reduce_prod(side, axis=1),
        named_k=xp.where(is_whole_k, 0.0, q.tile_k),
    )


# waves


def grid_of(q: Query, tile: Tile) -> Grid:
    """Tiles, and how CUTLASS 3 rounds their grid up (PersistentTileSchedulerSm90)."""
    xp = q.k.__array_namespace__()
    cluster = xp.maximum(q.cluster, 1.0)
    count = xp.ceil(q.size / tile.side)
    clusters = xp.ceil(count / cluster)
    has_clusters = graph_ops.reduce_min(q.cluster, axis=1) > 0.0
    requested_swizzle = xp.maximum(q.swizzle, 1.0)
    swizzle = xp.minimum(xp.where(has_clusters, requested_swizzle, 1.0), widest_swizzle(clusters))
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
        of_slice=tiles_of_slice,
        busiest_sm=xp.ceil(blocks_of_slice * slices / q.active_units),
        has_clusters=has_clusters,
        requested_swizzle=requested_swizzle,
    )


def widest_swizzle(clusters: Array) -> Array:
    """[n, 1] the widest that the shorter side of the grid allows, of clusters[n, 2]."""
    xp = clusters.__array_namespace__()
    limits, steps = np.array(SWIZZLE_STEPS, dtype=np.float32).T
    shorter = graph_ops.reduce_min(clusters, axis=1)
    is_reached = xp.astype(shorter >= xp.asarray(limits), xp.float32)
    wider = xp.asarray(steps[:, np.newaxis])
    return graph_ops.gemm(is_reached, wider, xp.asarray(np.ones(1, dtype=np.float32)))


# time at each level


def rates_of(q: Query) -> Rates:
    """The rates of the device at the query's dtype."""
    return Rates(
        products_per_us=q.peak_tflops * PRODUCTS_PER_US / q.active_units,
        dram_bytes_per_us=q.dram_gbps * BYTES_PER_US,
        l2_element_us=q.in_bytes / (q.l2_gbps * BYTES_PER_US),
    )


def times_us(q: Query, rates: Rates, tile: Tile, grid: Grid, room: Array) -> Times:
    """Of computing, of the loads from L2, of the latency along k, of DRAM traffic, of starting."""
    xp = q.k.__array_namespace__()
    depth = tile.k * grid.count_k
    # Every tile loads so many rows of A and so many columns of B
    row_us = grid.tiles * depth * rates.l2_element_us
    dram = dram_us(q, rates)
    moved = xp.sum(dram, axis=1, keepdims=True)
    return Times(
        compute=grid.busiest_sm * (tile.area * depth) / rates.products_per_us,
        l2=row_us * tile.inside,
        steps=grid.busiest_sm * grid.count_k * STEP_US / room,
        dram=dram,
        moved=moved,
        any_tile=moved + START * q.empty_kernel_us,
    )


def dram_us(q: Query, rates: Rates) -> Array:
    """[n, 3] of A, B and C, each once."""
    xp = q.k.__array_namespace__()
    a_and_b = q.size * (q.k * q.in_bytes)
    c = q.elements * q.out_bytes
    return xp.concat([a_and_b, c], axis=1) * q.batch / rates.dram_bytes_per_us


def floor_us(times: Times) -> Array:
    """[n, 1] the sum of all times: nothing overlaps."""
    xp = times.compute.__array_namespace__()
    l2 = xp.sum(times.l2, axis=1, keepdims=True)
    return times.compute + l2 + times.steps + times.any_tile


def least_times_us(q: Query, rates: Rates, times: Times, mflop: Array) -> Array:
    """[n, 2] of computing at the peak, and of moving every byte once at the bandwidth.

    Of warm operands L2 holds what fits, and reads from it are bounded too, where that was measured.
    """
    xp = q.k.__array_namespace__()
    compute_us = mflop / q.peak_tflops
    # With beta, C is read and written
    _, c_us = graph_ops.split(times.dram, [2, 1])
    moved_us = times.moved + c_us * q.beta
    kept_us = q.warm * q.l2_bytes / rates.dram_bytes_per_us
    l2_over_dram = q.l2_gbps / q.dram_gbps
    is_measured = xp.abs(l2_over_dram - L2_OVER_DRAM) > MEASURED_L2
    through_l2_us = xp.where(is_measured, moved_us / l2_over_dram, 0.0)
    return xp.concat([compute_us, xp.maximum(moved_us - kept_us, through_l2_us)], axis=1)


def library_times_us(q: Query, rates: Rates, times: Times) -> Array:
    """[n, n_tiles] the floor of every tile of LIBRARY_TILES: which of them suit the problem."""
    xp = q.k.__array_namespace__()
    sides = np.array(LIBRARY_TILES, dtype=np.float32)
    tile_m, tile_n = (xp.asarray(side) for side in sides.T)
    area = xp.asarray(sides.prod(axis=1))
    tiles = xp.ceil(q.m / tile_m) * xp.ceil(q.n / tile_n) * q.batch
    busiest_sm = xp.ceil(tiles / q.active_units)
    # of one element along k
    busy_us = busiest_sm * (area / rates.products_per_us + STEP_US / USUAL_TILE_K)
    l2_us = tiles * (xp.minimum(tile_m, q.m) + xp.minimum(tile_n, q.n)) * rates.l2_element_us
    return (busy_us + l2_us) * q.k + times.any_tile


# alignment


def alignments(q: Query) -> Array:
    """[n, 3 + 4 * n_loads] of A, B and C the largest of ALIGNMENTS that divides a row, or 1.

    Then of A, B, C and both A and B: 2 where rows allow a load of LOADS, else 1.
    """
    xp = q.k.__array_namespace__()
    row_of_a = xp.where(q.trans_a > 0.0, q.m, q.k)
    row_of_b = xp.where(q.trans_b > 0.0, q.k, q.n)
    # as they lie in memory
    rows = xp.concat([row_of_a, row_of_b, q.n], axis=1)
    multiples = graph_ops.matmul(rows, xp.asarray(TO_MULTIPLES))
    divides = xp.astype(xp.ceil(multiples) == multiples, xp.float32)
    together = graph_ops.gemm(divides, xp.asarray(TO_ALIGNMENTS), xp.asarray(LEAST_ALIGNMENTS))
    return xp.maximum(together, xp.asarray(np.float32(1)))


def _to_multiples() -> Matrix:
    """[3, 3 * n_alignments] each row over each of ALIGNMENTS: exact, for they are powers of 2."""
    shares = 1 / np.array(ALIGNMENTS, dtype=np.float32)
    return np.kron(np.eye(3, dtype=np.float32), shares)


def _to_alignments() -> Matrix:
    """[3 * n_alignments, 3 + 4 * n_loads] what `alignments` gains where a row is divided.

    What divides a row by 8 divides it by 4, so the alignment is the sum of the steps up to it. Both
    A and B allow a load where two rows do: 1 for each.
    """
    steps = np.diff([1, *ALIGNMENTS])[:, np.newaxis]
    loads = np.eye(len(ALIGNMENTS), len(LOADS))
    of_each = np.eye(3)
    of_both = np.array([[1], [1], [0]])
    parts = [np.kron(of_each, steps), np.kron(of_each, loads), np.kron(of_both, loads)]
    return np.concatenate(parts, axis=1).astype(np.float32)


TO_MULTIPLES: Final = _to_multiples()
TO_ALIGNMENTS: Final = _to_alignments()
LEAST_ALIGNMENTS: Final = np.array([1] * 3 * (1 + len(LOADS)) + [0] * len(LOADS), np.float32)
"""Of rows that nothing divides; both A and B count from 0."""
