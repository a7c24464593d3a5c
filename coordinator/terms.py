"""What a kernel does, term by term: tiles, waves, bytes and time at each level, as logarithms for the network.

    question[n, len(FIELDS)] float32  ->  terms[len(TERMS), n] float32

Array-API code like coordinator/features.py, traced into the graph by ndonnx. Most terms are products of powers, so they are
written as such (`MONOMIALS`) and reckoned in logarithms: a block of them is one matrix product, whatever their number, and the network
wants logarithms anyway. Rounding differs a little between NumPy and ONNX Runtime there; a network does not mind, trees would.
What is counted (tiles, waves) is divided and rounded up before, or with a guard against such rounding.

The floor is what a kernel of that tile can't do without: the largest of tensor-core time wave by wave, loads from L2 and traffic to DRAM, plus
the latency of its steps along k and a launch. A library that does not say which tile it chose is taken to choose the best of six.

Rounding of the grid to clusters and swizzles is that of CUTLASS 3 (PersistentTileSchedulerSm90). Shared memory and registers of an SM, and
0.3 us a step, are of recent NVIDIA GPUs; the network corrects what is wrong about them elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from coordinator import lean
from gemmcast.question import AT, FIELDS

TILES: Final = ((64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
# that libraries choose from, m x n
OF_TILES: Final = tuple(f"t{m}x{n}" for m, n in TILES)
DEFAULT_TILE: Final = np.array([[128], [128], [64]], dtype=np.float32)
ALIGNMENTS: Final = np.array([[2], [4], [8], [16], [32], [64], [128]], dtype=np.float32)
# elements
SWIZZLES: Final = np.array([[1], [2], [5]], dtype=np.float32)
# 2, 4 and 8 from so many tiles and one more on, along the shorter side
ROOM: Final = np.array([[227e3], [65536], [2048]], dtype=np.float32)
# bytes of shared memory, registers, threads of an SM
REGISTERS_BESIDES: Final = 6000
STEP_US: Final = 0.3
TINY: Final = 1e-4
# in place of zeros, before a logarithm
GUARD: Final = 1 - 1e-5
# a quotient of logarithms may be a little over a whole number


class Monomials(NamedTuple):
    """Products of powers of named rows, and the constant before them."""

    names: tuple[str, ...]
    powers: tuple[dict[str, int], ...]
    scales: tuple[float, ...]


def _monomials(lines: Sequence[str]) -> Monomials:
    """From lines like "time = 2e-6 work / peak peak"."""
    names, powers, scales = [], [], []
    for line in lines:
        name, _, right = line.partition(" = ")
        over, _, under = right.partition(" / ")
        factors = over.split()
        scales.append(float(factors.pop(0)) if factors[0][0].isdigit() else 1.0)
        power: dict[str, int] = {}
        for factor, by in (*((f, 1) for f in factors), *((f, -1) for f in under.split())):
            power[factor] = power.get(factor, 0) + by
        names.append(name)
        powers.append(power)
    return Monomials(tuple(names), tuple(powers), tuple(scales))


FIRST: Final = _monomials([
    # in pairs of A's and B's share, summed after
    "smem_a = tile_m tile_k in_bytes depth", "l2_a = 1e-3 seen_m tile_k count_k in_bytes count_m count_n split batch / l2_gbps",
    "shared_a = 1e-3 seen_m tile_k count_k in_bytes count_m count_n split batch / l2_gbps wide_n", "dram_a = 1e-3 m k in_bytes batch / dram_gbps",
    *(f"{t}_l2_a = 1e-3 {t}_seen_m k in_bytes {t}_count_m {t}_count_n batch / l2_gbps" for t in OF_TILES),
    "smem_b = tile_n tile_k in_bytes depth", "l2_b = 1e-3 seen_n tile_k count_k in_bytes count_m count_n split batch / l2_gbps",
    "shared_b = 1e-3 seen_n tile_k count_k in_bytes count_m count_n split batch / l2_gbps wide_m", "dram_b = 1e-3 k n in_bytes batch / dram_gbps",
    *(f"{t}_l2_b = 1e-3 {t}_seen_n k in_bytes {t}_count_m {t}_count_n batch / l2_gbps" for t in OF_TILES),
    # to be rounded up
    f"exact_clusters_m = {GUARD} count_m / wide_m", f"exact_clusters_n = {GUARD} count_n / wide_n",
    f"exact_busiest = {GUARD} count_m count_n split batch / workers",
    *(f"{t}_exact_busiest = {GUARD} {t}_count_m {t}_count_n batch / workers" for t in OF_TILES),
    # as they are
    "area = tile_m tile_n", "tiles = count_m count_n split batch", "store_us = 1e-3 m n out_bytes batch / dram_gbps",
    "tile_us = 2e-6 tile_m tile_n tile_k count_k workers / peak_tflops",
    *(f"{t}_tile_us = {2e-6 * m * n} k workers / peak_tflops" for t, (m, n) in zip(OF_TILES, TILES, strict=True)),
    "sum_us = 8e-3 slices_more m n batch / l2_gbps", "fits_a = m k in_bytes batch / l2_bytes", "fits_b = k n in_bytes batch / l2_bytes",
])  # fmt: skip
PAIRS: Final = ("smem", "l2_us", "shared_us", "operands_us", *(f"{t}_l2_us" for t in OF_TILES))
ROUNDED: Final = ("clusters_m", "clusters_n", "busiest", *(f"{t}_busiest" for t in OF_TILES))
SECOND: Final = _monomials([
    f"exact_busiest_sm = {GUARD} blocks_m blocks_n swizzled swizzled wide_m wide_n split batch / workers",
    f"exact_waves = {GUARD} blocks_m blocks_n swizzled swizzled wide_m wide_n split batch / workers room",
    "padding = blocks_m blocks_n swizzled swizzled wide_m wide_n / count_m count_n", "even_us = tiles tile_us / workers",
    "busy_us = busiest tile_us", *(f"{t}_us = {t}_busiest {t}_tile_us" for t in OF_TILES),
    *(f"{t}_steps_us = {STEP_US / 64} {t}_busiest k" for t in OF_TILES), "fill_m = m / count_m tile_m", "fill_n = n / count_n tile_n",
])  # fmt: skip
GUARDED: Final = ("depth", "split", "swizzle_or_1", "wide_m", "wide_n", "threads_or_1")
COUNTED: Final = ("count_m", "count_n", "count_k", *(f"{t}_count_m" for t in OF_TILES), *(f"{t}_count_n" for t in OF_TILES))
SEEN: Final = ("seen_m", "seen_n", *(f"{t}_seen_m" for t in OF_TILES), *(f"{t}_seen_n" for t in OF_TILES))
BASE: Final = (
    *(f"given_{name}" if name.startswith("tile_") else name for name in FIELDS), "tile_m", "tile_n", "tile_k", *GUARDED, "slices_more", *COUNTED,
    *SEEN, "aligned_a", "aligned_b", "aligned_c",
)  # fmt: skip
MIDDLE: Final = (*PAIRS, *ROUNDED, "swizzled", "blocks_m", "blocks_n", "room")
LAST: Final = ("floor_us", "busiest_sm", "waves", "tensor_us", "steps_us", "dram_us", *(f"{t}_floor_us" for t in OF_TILES))
ALL: Final = (*BASE, *FIRST.names, *MIDDLE, *SECOND.names, *LAST)
LEFT_OUT: Final = frozenset({
    "dtype", "family", "algorithm", "in_bytes", "out_bytes", "stages", "split_k", "swizzle", "threads_or_1", "swizzle_or_1", "slices_more",
    "given_tile_m", "given_tile_n", "given_tile_k", "depth", "clock_max_mhz", "l2_bytes", "smem_a", "smem_b", "l2_a", "l2_b", "shared_a", "shared_b",
    "dram_a", "dram_b", "clusters_m", "clusters_n", "exact_clusters_m", "exact_clusters_n", "exact_busiest", "seen_m", "seen_n",
    *(name for name in ALL if name.split("_")[0] in OF_TILES and not name.endswith("_floor_us")),
})  # fmt: skip
# categories are told apart by name in coordinator/network.py; the rest of these are only steps towards others
TERMS: Final = tuple(dict.fromkeys(name for name in ALL if name not in LEFT_OUT))


def terms(question: Any) -> Any:
    """terms[len(TERMS), n], as logarithms; `question` is an array of any library with `__array_namespace__`."""
    xp = question.__array_namespace__()
    x = question.T

    def number(value: float) -> Any:
        return xp.asarray(np.float32(value))

    asked = _named(x, ("sizes", "tile_m"), ("tiles", "batch"), ("", "trans_a"), ("turned", "family"), ("", "stages"), ("knobs", "warm"),
                   ("", "device_launch_us"), ("launch_us", "power_limit_w"), ("", None))  # fmt: skip
    sizes, (m_and_n, _) = asked["sizes"], lean.split(asked["sizes"], (2, 1))
    guarded = xp.maximum(asked["knobs"], number(1))
    _, split, _, wide, threads = lean.split(guarded, (1, 1, 1, 2, 1))
    _, swizzle, cluster, _ = lean.split(asked["knobs"], (2, 1, 1, 2))
    known = lean.largest(xp.abs(asked["tiles"] - sizes), axis=0) > number(0)
    tiles = xp.where(known, asked["tiles"], xp.asarray(DEFAULT_TILE))
    tile_mn, tile_k = lean.split(tiles, (2, 1))
    clustered = xp.minimum(cluster, number(1))
    # rows of A, B and C as they lie in memory, and how far they are aligned
    m_and_k, k_and_n = (xp.take(sizes, xp.asarray(np.array(at)), axis=0) for at in ((0, 2), (2, 1)))
    along = xp.where(asked["turned"] > number(0), m_and_k, k_and_n)
    _, n = lean.split(m_and_n, (1, 1))
    shares = xp.reshape(xp.concat([along, n], axis=0), (3, 1, -1)) / xp.asarray(ALIGNMENTS)
    aligned = xp.sum(xp.astype(shares == xp.ceil(shares), xp.float32), axis=1)
    # tiles along each side, and what of a tile there is
    six = xp.take(sizes, xp.asarray(np.array([0] * len(TILES) + [1] * len(TILES))), axis=0)
    of_six = xp.asarray(np.array([[m] for m, _ in TILES] + [[n] for _, n in TILES], dtype=np.float32))
    own = sizes / xp.concat([tile_mn, tile_k * split], axis=0)
    counts = xp.ceil(xp.concat([own, six / of_six], axis=0))
    seen = xp.minimum(m_and_n, tile_mn), xp.minimum(six, of_six)
    base = xp.log(xp.maximum(number(TINY), xp.concat([x, tiles, guarded, split - number(1), counts, *seen, aligned], axis=0)))

    first = _products(xp, FIRST, BASE, base)
    of_a, of_b, to_round, area, _, store_us, tile_us, _, sum_us, _ = lean.split(
        xp.exp(first), (len(PAIRS), len(PAIRS), len(ROUNDED), 1, 1, 1, 1, len(TILES), 1, 2)
    )
    sums, rounded = of_a + of_b, xp.ceil(to_round)
    smem, l2_us, _, operands_us, six_l2_us = lean.split(sums, (1, 1, 1, 1, len(TILES)))
    # the grid, in whole clusters and swizzles
    clusters, _ = lean.split(rounded, (2, len(ROUNDED) - 2))
    past = xp.clip(lean.smallest(clusters * wide, axis=0) - xp.asarray(SWIZZLES), number(0), number(1))
    largest = lean.gemm(xp.asarray(np.array([[1, 2, 4]], dtype=np.float32)), past, xp.asarray(np.ones((1, 1), dtype=np.float32)))
    swizzled = xp.minimum(largest, xp.maximum(swizzle * clustered, number(1)))
    blocks = xp.ceil(clusters / swizzled * number(GUARD))
    fits = lean.smallest(xp.asarray(ROOM) / xp.concat([smem, area + number(REGISTERS_BESIDES), threads], axis=0), axis=0)
    room = xp.maximum(xp.floor(fits) * (number(1) - clustered), number(1))
    middle = xp.log(xp.concat([sums, rounded, swizzled, blocks, room], axis=0))

    so_far = xp.concat([base, first, middle], axis=0)
    second = _products(xp, SECOND, (*BASE, *FIRST.names, *MIDDLE), so_far)
    to_round, _, busy_us, six_us, six_steps_us, _ = lean.split(xp.exp(second), (2, 2, 1, len(TILES), len(TILES), 2))
    whole = xp.ceil(to_round)
    _, count_k, _ = lean.split(counts, (2, 1, 2 * len(TILES)))
    spent = whole * xp.concat([tile_us, count_k * number(STEP_US)], axis=0)
    _, steps_us = lean.split(spent, (1, 1))
    dram_us = operands_us + store_us
    own_us = xp.maximum(xp.maximum(busy_us, l2_us), dram_us) + steps_us + sum_us
    each_us = xp.maximum(xp.maximum(six_us, six_l2_us), dram_us) + six_steps_us
    floor_us = xp.where(known, own_us, lean.smallest(each_us, axis=0)) + asked["launch_us"]
    last = xp.log(xp.concat([floor_us, whole, spent, dram_us, each_us], axis=0))
    return xp.take(xp.concat([so_far, second, last], axis=0), xp.asarray(np.array([ALL.index(name) for name in TERMS])), axis=0)


def _named(x: Any, *groups: tuple[str, str | None]) -> dict[str, Any]:
    """Groups of rows of a question by a name of their own; each ends before the field that is named beside it, the last with the last."""
    ends = [len(FIELDS) if before is None else AT[before] for _, before in groups]
    parts = lean.split(x, [end - start for start, end in zip((0, *ends), ends, strict=False)])
    return {name: part for (name, _), part in zip(groups, parts, strict=True)}


def _products(xp: Any, of: Monomials, names: Sequence[str], logs: Any) -> Any:
    """[len(of.names), n] logarithms, from those of the named rows."""
    weights = np.zeros((len(of.names), len(names)), dtype=np.float32)
    for i, powers in enumerate(of.powers):
        for name, power in powers.items():
            weights[i, names.index(name)] = power
    scales = np.log(np.array(of.scales, dtype=np.float64))[:, None].astype(np.float32)
    return lean.gemm(xp.asarray(weights), logs, xp.asarray(scales))
