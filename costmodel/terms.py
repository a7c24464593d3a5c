"""The terms of a query: the floor, and the quantities that networks and trees learn from.

    query[n, len(FIELDS)]  ->  floor_us[n, 1], quantities[n, len(QUANTITIES)]
    floor_us = computing + loads from L2 + DRAM traffic + latency along k + start

The floor is the time if nothing overlapped (costmodel/formulas.py); networks and trees learn the
correction. Trees see most quantities as they are, with the same bits in NumPy and ONNX Runtime, and
which powers of two divide a size; networks see logarithms (costmodel/seen.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from costmodel.formulas import (
    LIBRARY_TILES,
    LOADS,
    alignments,
    floor_us,
    grid_of,
    least_times_us,
    library_times_us,
    query_of,
    rates_of,
    tile_of,
    times_us,
)
from costmodel.graph_ops import Array
from costmodel.occupancy import blocks_per_sm, smem_bytes_of, waves_of
from gemmcast.query import AT, FIELDS, Rows

DERIVED_SCALES: Final[Mapping[str, float]] = {
    "tile_unknown": 1.0,
    "blocks_per_sm": 1.0,
    "alignment_a": 8.0,
    "alignment_b": 8.0,
    "alignment_c": 8.0,
    **{f"loads_{of}_{width}": 1.0 for of in ("a", "b", "c", "a_and_b") for width in LOADS},
    "dram_a_us": 10.0,
    "dram_b_us": 10.0,
    "dram_c_us": 10.0,
    "mflop": 1e3,
    "floor_us": 10.0,
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
    "waves": 1.0,
    "wave_load_us": 10.0,
    **{f"library_{m}x{n}_us": 10.0 for m, n in LIBRARY_TILES},
}
"""Quantities beside the fields, in the order of `terms`, and typical values."""
QUANTITIES: Final = (*FIELDS, *DERIVED_SCALES)
"""What is known of a query, in the order of the columns."""
FOR_TREES: Final = tuple(name for name in QUANTITIES if not name.startswith("library_"))
"""What the trees see, as it is. The times of library kernels are much alike, and trees that choose
among them learn their noise."""
WHOLE: Final = (8, 64, 128)
"""Trees also see whether these divide m, n and k: then all tiles of such a side are whole."""
RESOURCES: Final = ("named_tile_k", "smem_bytes", "cluster_blocks")
"""What a kernel takes of an SM, as far as a query names it."""
SIZES: Final = np.array([QUANTITIES.index(name) for name in ("m", "n", "k")])
"""Their columns."""
MAY_BE_UNKNOWN: Final = ("power_limit_w", "idle_power_w")
"""Readings of a device that a query may not know, and that the networks see."""


class Terms(NamedTuple):
    """What the model computes with."""

    floor_us: Array
    """[n, 1]."""
    mflop: Array
    """[n, 1] millions of floating-point operations: TFLOP/s x us."""
    power_limit_w: Array
    """[n, 1], 0 where it is unknown."""
    idle_power_w: Array
    """[n, 1], likewise."""
    least_us: Array
    """[n, 2] what computing and moving the operands take at least."""
    resources: Array
    """[n, len(RESOURCES)] for the training range alone."""
    quantities: Array
    """[n, len(QUANTITIES)]."""


def terms(query: Array) -> Terms:
    """The terms of query[n, len(FIELDS)]; array-API code, traced into the graph."""
    xp = query.__array_namespace__()
    q = query_of(query)
    tile = tile_of(q)
    grid = grid_of(q, tile)
    smem_bytes = smem_bytes_of(q, tile)
    room = blocks_per_sm(q, tile, grid, smem_bytes)
    rates = rates_of(q)
    times = times_us(q, rates, tile, grid, room)
    waves = waves_of(q, grid, times, room)
    blocks_of_cluster = graph_ops.reduce_prod(q.cluster, axis=1)
    floor = floor_us(times)
    mflop = 2e-6 * q.elements * q.k * q.batch
    # In the order of DERIVED_SCALES
    derived = [
        xp.astype(tile.is_unknown, xp.float32),
        room,
        alignments(q),
        times.dram,
        mflop,
        floor,
        tile.side,
        tile.k,
        tile.inside,
        q.size / (grid.count * tile.side),
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
        waves.count,
        waves.load_us,
        library_times_us(q, rates, times),
    ]
    quantities = xp.concat([query, *derived], axis=1)
    return Terms(
        floor_us=floor,
        mflop=mflop,
        power_limit_w=q.power_limit_w,
        idle_power_w=q.idle_power_w,
        least_us=least_times_us(q, rates, times, mflop),
        resources=xp.concat([tile.named_k, smem_bytes, blocks_of_cluster], axis=1),
        quantities=quantities,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Typical:
    """What stands for a reading that a query does not know of its device: the training median.

    0 means unknown, and its logarithm is far from every device's. Without a known value among the
    training rows 0 is all that a model has seen, and stays.
    """

    values: npt.NDArray[np.float32]
    """[len(QUANTITIES)], 0 for every quantity that is no reading of a device."""

    @classmethod
    def of(cls, queries: Rows) -> Self:
        """Of the training rows[n, len(FIELDS)]."""
        values = np.zeros(len(QUANTITIES), dtype=np.float32)
        for name in MAY_BE_UNKNOWN:
            column = queries[:, AT[name]]
            known = column[column > 0]
            if len(known):
                values[QUANTITIES.index(name)] = np.median(known)
        return cls(values=values)

    def filled(self, quantities: Array) -> Array:
        """The quantities[n, len(QUANTITIES)] without unknown readings; array-API code."""
        if not self.values.any():
            return quantities
        xp = quantities.__array_namespace__()
        return xp.where(quantities == 0.0, xp.asarray(self.values), quantities)


def tree_inputs(quantities: Array) -> Array:
    """[n, len(FOR_TREES) + 3 * len(WHOLE)] for the trees, of quantities[n, len(QUANTITIES)]."""
    xp = quantities.__array_namespace__()
    columns = np.array([QUANTITIES.index(name) for name in FOR_TREES])
    sizes = xp.take(quantities, xp.asarray(SIZES), axis=1)
    multiples = xp.expand_dims(sizes, axis=2) / xp.asarray(np.array(WHOLE, dtype=np.float32))
    is_whole = xp.astype(xp.ceil(multiples) == multiples, xp.float32)
    chosen = xp.take(quantities, xp.asarray(columns), axis=1)
    return xp.concat([chosen, xp.reshape(is_whole, (-1, 3 * len(WHOLE)))], axis=1)
