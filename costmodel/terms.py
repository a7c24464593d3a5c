"""What a kernel does, term by term: tiles, waves, bytes and time at each level, as logarithms for the network.

    question[n, len(FIELDS)] float32  ->  terms[n, len(TERMS)] float32

Array-API code, traced into the graph by ndonnx. A term is a product of powers, and in logarithms products of powers are sums: so a whole
block of terms is one matrix product (`Layer`), whatever their number. What is counted (tiles, clusters, waves) is rounded up in between. Sums
of times are exp, matrix product, log; a maximum is taken as a norm, (a^4 + b^4)^(1/4); a case is told by a switch of 0 or 1 that ReLU makes.
That is some 50 nodes of the graph, and a question costs nodes, hardly arithmetic. Rounding differs a little between NumPy and ONNX Runtime
there; a network does not mind. What is rounded up is therefore guarded: a quotient of logarithms may be a little over a whole number.

The floor is what a kernel of that tile can't do without: the largest of tensor-core time wave by wave, loads from L2 and traffic to DRAM, plus
the latency of its steps along k and a launch. A library that does not say which tile it chose is taken to choose the best of fourteen.

Rounding of the grid to clusters and swizzles is that of CUTLASS 3 (PersistentTileSchedulerSm90). Threads of an SM, and 0.3 us a step, are of
recent NVIDIA GPUs; the network corrects what is wrong about them elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from costmodel import graph_ops
from gemmcast.gemm import LAYOUTS
from gemmcast.query import FIELDS

TILES: Final = (
    (64, 64), (64, 128), (128, 64), (128, 128), (64, 256), (256, 64), (128, 256), (256, 128), (128, 192), (192, 128), (32, 64), (64, 32),
    (32, 128), (128, 32),
)  # fmt: skip
# that libraries choose from, m x n
OF_TILES: Final = tuple(f"t{m}x{n}" for m, n in TILES)
SIDES: Final = (32, 64, 128, 192, 256)
DEFAULT_TILE: Final = {"m": 128, "n": 128, "k": 64}
ALIGNMENTS: Final = (2, 4, 8, 16, 32, 64, 128)
# elements
LOADS: Final = (2, 4, 8, 16)
# of them that decide which kernels a library has for a problem: 4 to 16 bytes are loaded at once
SWIZZLES: Final = ((1, 2), (2, 4), (5, 8))
# from more than so many tiles on, along the shorter side, and if asked for
STEP_US: Final = 0.3
ROOM: Final = (64, 2048)
# threads of a block and of an SM at most: 32 blocks of 64
TINY: Final = 1e-4
# in place of zeros, before a logarithm
SCALES: Final[dict[str, int]] = {
    "m": 10, "n": 10, "k": 10, "tile_m": 7, "tile_n": 7, "tile_k": 6, "threads": 8, "active_units": 7, "peak_tflops": 8, "dram_gbps": 11, "l2_bytes": 25,
    "clock_max_mhz": 11, "empty_launch_us": 1, "power_limit_w": 9, "idle_power_w": 7, "l2_gbps": 12,
}  # fmt: skip
# powers of two that numbers are divided by before, because a logarithm near 0 is rounded less: ten sizes of 12 would cost 1e-5
GUARD: Final = 1 - 1e-5
SMALL: Final = 2.0**-24
# makes a difference of two sizes a fraction, unless they are the same
OFF: Final = 100.0
# in a logarithm: so much less than anything that ReLU leaves nothing
NORM: Final = 4.0
MIDDLE: Final = float(np.log(1e4))
# of times in microseconds, around which they are taken to that power: float32 ends at e^88
MOST: Final = 87.0
# logarithm of the largest number that goes into such a sum
LEAST: Final = 1e-37
# is in every such sum, which has a logarithm then
MASK: Final = 60.0
# in a logarithm: so much dearer than anything that it is not the cheapest

Powers = Mapping[str, float]


class Layer(NamedTuple):
    """x[n, n_before] @ weights + biases: [n, len(names)]."""

    names: tuple[str, ...]
    weights: npt.NDArray[np.float32]
    biases: npt.NDArray[np.float32]

    def of(self, xp: Any, x: Any) -> Any:
        return graph_ops.gemm(x, xp.asarray(self.weights), xp.asarray(self.biases))


def _layer(rows: Mapping[str, tuple[Powers, float]], before: Sequence[str], *, scaled: bool = True) -> Layer:
    """Args: rows: name -> powers of what stands `before`, and the constant; scaled: what stands before are terms, divided by their SCALES."""
    at = {name: i for i, name in enumerate(before)}
    weights, biases = np.zeros((len(before), len(rows)), dtype=np.float32), np.zeros(len(rows), dtype=np.float32)
    for j, (powers, constant) in enumerate(rows.values()):
        biases[j] = constant + sum(power * log_scale(name) for name, power in powers.items() if scaled)
        for name, power in powers.items():
            weights[at[name], j] += power
    return Layer(tuple(rows), weights, biases)


def log_scale(name: str) -> float:
    """Of a term: the logarithm of what it is divided by."""
    if name == "cheapness":
        return -NORM * MIDDLE
    return NORM * MIDDLE if name.endswith("_norm") else SCALES.get(name, 0) * float(np.log(2))


def _times(powers: Powers, by: float) -> dict[str, float]:
    return {name: by * power for name, power in powers.items()}


# tile_m and so on are the kernel's own, or the default where none is known; seen_m is the part of a tile that lies within the matrix
SHORT: Final[Mapping[str, Powers]] = {
    **{f"of_tile_{d}": {f"own_{d}": 1.0, "unknown": float(np.log(side))} for d, side in DEFAULT_TILE.items()},
    **{f"seen_{d}": {d: 1.0, f"past_own_{d}": -1.0, f"past_default_{d}": -1.0} for d in "mn"},
    **{f"seen{side}_{d}": {d: 1.0, f"past{side}_{d}": -1.0} for d in "mn" for side in SIDES},
    "swizzled": {f"swizzle_{width}": float(np.log(2)) for _, width in SWIZZLES},
}


def monomial(text: str) -> tuple[dict[str, float], float]:
    """Powers and the logarithm of the constant of a text like "2e-6 work / peak peak"; SHORT has abbreviations."""
    over, _, under = text.partition(" / ")
    powers: dict[str, float] = {}
    constant = 0.0
    for factor, sign in (*((f, 1.0) for f in over.split()), *((f, -1.0) for f in under.split())):
        if factor[0].isdigit():
            constant += sign * float(np.log(float(factor)))
            continue
        for name, power in SHORT.get(factor, {factor: 1.0}).items():
            powers[name] = powers.get(name, 0.0) + sign * power
    return powers, constant


def monomials(texts: Mapping[str, str], before: Sequence[str]) -> Layer:
    return _layer({name: monomial(text) for name, text in texts.items()}, before)


def _part(side: int) -> float:
    """1 / side, a little less where that is no float: then a multiple of it is a whole number and not a little more."""
    return 1 / side if side & (side - 1) == 0 else (1 - 2e-7) / side


# on the question's numbers themselves: what divides them, and what differs, exactly
EXACT: Final = _layer(
    {
        **{f"{d}_over_{by}": ({d: 1 / by}, 0.0) for d in "mnk" for by in ALIGNMENTS},
        **{f"{d}_over_{side}": ({d: _part(side)}, 0.0) for d in "mn" for side in (192, 256)},
        "turned_a": ({"trans_a": 0.5}, 0.0), "turned_b": ({"trans_b": 0.5}, 0.0), "cluster": ({"cluster_m": SMALL}, 0.0),
        **{f"tile_is_not_{d}": ({d: SMALL, f"tile_{d}": -SMALL}, 0.0) for d in "mnk"},
    }, FIELDS, scaled=False,
)  # fmt: skip


def _aligned(along: str, turned: str | None = None, *, if_turned: bool = False) -> tuple[Powers, float]:
    """How many of the alignments the rows of a matrix keep that lie along that side; nothing if they lie along the other."""
    powers = {f"{along}_over_{by}": -1.0 for by in ALIGNMENTS}
    everything = float(len(ALIGNMENTS))
    if turned is None:
        return powers, everything
    return powers | {turned: everything if if_turned else -everything}, 0.0 if if_turned else everything


def _lying(by: int) -> Mapping[str, tuple[Powers, float]]:
    """1 where the rows of A, of B, of C and of both A and B keep that alignment, else 0; one for each way that they may lie in memory."""
    found: dict[str, tuple[Powers, float]] = {f"c{by}": ({f"n_over_{by}": -1.0}, 1.0)}
    for (side, turned), (plain, other) in {("a", "turned_a"): ("k", "m"), ("b", "turned_b"): ("n", "k")}.items():
        found[f"{side}{by}"] = ({f"{plain}_over_{by}": -1.0, turned: -1.0}, 1.0)
        found[f"{side}{by}_turned"] = ({f"{other}_over_{by}": -1.0, turned: 1.0}, 0.0)
    for layout in LAYOUTS:
        a, b = (side == "t" for side in layout)
        along = {f"{'m' if a else 'k'}_over_{by}": -1.0, f"{'k' if b else 'n'}_over_{by}": -1.0}
        found[f"both{by}_{layout}"] = (along | {"turned_a": 1.0 if a else -1.0, "turned_b": 1.0 if b else -1.0}, 1.0 - a - b)
    return found


# on whether these are whole numbers (0) or not (1)
SWITCHES: Final = _layer(
    {
        **{name: row for by in LOADS for name, row in _lying(by).items()},
        "aligned_a_k": _aligned("k", "turned_a"), "aligned_a_m": _aligned("m", "turned_a", if_turned=True),
        "aligned_b_n": _aligned("n", "turned_b"), "aligned_b_k": _aligned("k", "turned_b", if_turned=True), "aligned_c": _aligned("n"),
        "unknown": ({f"tile_is_not_{d}": -1.0 for d in "mnk"}, 1.0), "clustered": ({"cluster": 1.0}, 0.0),
    }, EXACT.names,
)  # fmt: skip
SCALES.update({f"whole_{name}": max(0, SCALES[name[0]] - round(np.log2(int(name.rpartition("_")[2])))) for name in EXACT.names if "_over_" in name})
ASKED: Final = (*FIELDS, *(f"whole_{name}" for name in EXACT.names), *SWITCHES.names)

# what can't be less than 1
HELD: Final = _layer(
    {
        **{f"own_{d}": ({f"tile_{d}": 1.0, "unknown": -OFF}, 0.0) for d in "mnk"},
        "depth": ({"stages": 1.0}, 0.0), "split": ({"split_k": 1.0}, 0.0), "wide_m": ({"cluster_m": 1.0}, 0.0), "wide_n": ({"cluster_n": 1.0}, 0.0),
        "threads_or_1": ({"threads": 1.0}, 0.0), "threads_over_64": ({"threads": 1.0}, -float(np.log(ROOM[0]))),
        "swizzle_or_1": ({"swizzle": 1.0, "clustered": OFF}, -OFF),
        **{f"past_own_{d}": ({d: 1.0, f"tile_{d}": -1.0, "unknown": -OFF}, 0.0) for d in "mn"},
        **{f"past_default_{d}": ({d: 1.0, "unknown": OFF}, -float(np.log(DEFAULT_TILE[d])) - OFF) for d in "mn"},
        **{f"past{side}_{d}": ({d: 1.0}, -float(np.log(side))) for side in SIDES for d in "mn"},
    }, ASKED,
)  # fmt: skip
WITH_HELD: Final = (*ASKED, *HELD.names)

# to be rounded up
COUNTED: Final = monomials(
    {
        "clusters_m": f"{GUARD} m / of_tile_m wide_m", "clusters_n": f"{GUARD} n / of_tile_n wide_n", "count_k": f"{GUARD} k / of_tile_k split",
        "count_m": f"{GUARD} m / of_tile_m", "count_n": f"{GUARD} n / of_tile_n",
        **{f"{t}_busiest": f"{GUARD} whole_m_over_{m} whole_n_over_{n} batch / active_units" for t, (m, n) in zip(OF_TILES, TILES, strict=True)},
    }, WITH_HELD,
)  # fmt: skip
WITH_COUNTS: Final = (*WITH_HELD, *COUNTED.names)


def _hindered(width: int, tiles: int) -> Mapping[str, tuple[Powers, float]]:
    """0 where a side has more than so many tiles, in whole clusters, and so wide a swizzle is asked for; 0.98 or more where not."""
    steep = 1 / float(np.log1p(1 / tiles))
    sides = {f"narrow_{d}_{width}": ({f"clusters_{d}": -steep, f"wide_{d}": -steep}, steep * float(np.log(tiles + 1)) - 0.02) for d in "mn"}
    return {**sides, f"unasked_{width}": ({"swizzle_or_1": -1 / float(np.log(2))}, float(np.log2(width)) - 0.02)}


HINDERED: Final = _layer(
    {
        **{name: row for tiles, width in SWIZZLES for name, row in _hindered(width, tiles).items()},
        "room": ({"threads_over_64": -1.0, "clustered": -OFF}, float(np.log(ROOM[1] / ROOM[0]))),
    }, WITH_COUNTS,
)  # fmt: skip
ALLOWED: Final = _layer(
    {
        **{f"swizzle_{w}": ({f"narrow_m_{w}": -1.03, f"narrow_n_{w}": -1.03, f"unasked_{w}": -1.03}, 1.0) for _, w in SWIZZLES},
        "room": ({"room": 1.0}, 0.0),
    }, HINDERED.names,
)  # fmt: skip
WITH_ALLOWED: Final = (*WITH_COUNTS, *ALLOWED.names)
BLOCKS: Final = monomials(
    {f"blocks_{d}": f"{GUARD} {d} / of_tile_{d} wide_{d} swizzled" for d in "mn"},
    WITH_ALLOWED,
)  # fmt: skip
WITH_BLOCKS: Final = (*WITH_ALLOWED, *BLOCKS.names)
WAVES: Final = monomials({"busiest_sm": f"{GUARD} blocks_m blocks_n swizzled swizzled wide_m wide_n split batch / active_units"}, WITH_BLOCKS)
WITH_WAVES: Final = (*WITH_BLOCKS, *WAVES.names)

# times in microseconds, of the kernel's own tile and of each that a library may have chosen
OPTIONS: Final = ("own", *OF_TILES)
TIME_TEXTS: Final = {
    "own_busy_us": "2e-6 busiest_sm of_tile_m of_tile_n of_tile_k count_k active_units / peak_tflops",
    "own_l2_a_us": "1e-3 seen_m of_tile_k count_k in_bytes count_m count_n split batch / l2_gbps",
    "own_l2_b_us": "1e-3 seen_n of_tile_k count_k in_bytes count_m count_n split batch / l2_gbps",
    "dram_a_us": "1e-3 m k in_bytes batch / dram_gbps", "dram_b_us": "1e-3 k n in_bytes batch / dram_gbps",
    "dram_c_us": "1e-3 m n out_bytes batch / dram_gbps",
    **{f"{t}_busy_us": f"{2e-6 * m * n} {t}_busiest k active_units / peak_tflops" for t, (m, n) in zip(OF_TILES, TILES, strict=True)},
    **{
        f"{t}_l2_{side}_us": f"1e-3 seen{length}_{d} k in_bytes whole_m_over_{m} whole_n_over_{n} batch / l2_gbps"
        for t, (m, n) in zip(OF_TILES, TILES, strict=True) for side, d, length in (("a", "m", m), ("b", "n", n))
    },
}  # fmt: skip
TIMES: Final = _layer({name: (_times(powers, NORM), NORM * (constant - MIDDLE)) for name, (powers, constant) in
                       ((name, monomial(text)) for name, text in TIME_TEXTS.items())}, WITH_WAVES)  # fmt: skip
OF_EACH: Final = np.array(
    [[name.startswith(("dram_", f"{option}_")) for option in OPTIONS] for name in TIMES.names], dtype=np.float32
)  # fmt: skip
WITH_TIMES: Final = (*WITH_WAVES, *(f"{option}_norm" for option in OPTIONS))
# the largest of each option's times, to the power of NORM
SPENT: Final = _layer(
    {
        **{f"{option}_us": ({f"{option}_norm": 1 / NORM}, 0.0) for option in OPTIONS},
        "own_steps_us": monomial(f"{STEP_US} busiest_sm count_k / room"),
        **{f"{t}_steps_us": monomial(f"{STEP_US / DEFAULT_TILE['k']} {t}_busiest k") for t in OF_TILES},
        "launch_us": monomial("empty_launch_us"),
    }, WITH_TIMES,
)  # fmt: skip
IN_ALL: Final = np.array(
    [[name == "launch_us" or name.startswith(f"{option}_") for option in OPTIONS] for name in SPENT.names], dtype=np.float32
)  # fmt: skip
WITH_OPTIONS: Final = (*WITH_TIMES, *(f"{option}_floor_us" for option in OPTIONS))
CHEAPEST: Final = _layer(
    {
        option: ({f"{option}_floor_us": -NORM, "unknown": -MASK if option == "own" else MASK}, NORM * MIDDLE - (0.0 if option == "own" else MASK))
        for option in OPTIONS
    }, WITH_OPTIONS,
)  # fmt: skip
TERMS: Final = (*WITH_OPTIONS, "cheapness")
# floor_us to the power of -NORM
FLOOR: Final = {"cheapness": -1 / NORM}
TO_SCALE: Final = np.array([2.0 ** -SCALES.get(name, 0) for name in ASKED[: -len(SWITCHES.names)]], dtype=np.float32)


def terms(query: Any) -> Any:
    """terms[n, len(TERMS)]: logarithms, but for the switches and what SWITCHES and ALLOWED name; of any library with `__array_namespace__`."""
    xp = query.__array_namespace__()

    def together(*parts: Any) -> Any:
        return xp.concat(list(parts), axis=1)

    def rounded_up(layer: Layer, x: Any) -> Any:
        return together(x, xp.log(xp.ceil(xp.exp(layer.of(xp, x)))))

    def summed(layer: Layer, x: Any, which: npt.NDArray[np.float32]) -> Any:
        each = xp.exp(graph_ops.least(layer.of(xp, x), xp.asarray(np.float32(MOST))))
        return together(x, xp.log(graph_ops.gemm(each, xp.asarray(which), xp.asarray(np.full(which.shape[1], LEAST, dtype=np.float32)))))

    exact = EXACT.of(xp, query)
    whole = xp.ceil(exact)
    switches = graph_ops.relu(SWITCHES.of(xp, graph_ops.sign(whole - exact)))
    x = together(xp.log(graph_ops.most(together(query, whole), xp.asarray(np.float32(TINY))) * xp.asarray(TO_SCALE)), switches)
    x = together(x, graph_ops.relu(HELD.of(xp, x)))
    x = rounded_up(COUNTED, x)
    x = together(x, graph_ops.relu(ALLOWED.of(xp, graph_ops.relu(HINDERED.of(xp, x)))))
    x = rounded_up(WAVES, rounded_up(BLOCKS, x))
    x = summed(SPENT, summed(TIMES, x, OF_EACH), IN_ALL)
    return summed(CHEAPEST, x, np.ones((len(OPTIONS), 1), dtype=np.float32))


def log_floor_us(columns: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """[n] of terms[n, len(TERMS)]."""
    found: npt.NDArray[np.float64] = sum(
        power * (columns[:, TERMS.index(name)].astype(np.float64) + log_scale(name)) for name, power in FLOOR.items()
    )  # type: ignore[assignment]
    return found


# What the network is shown: products of powers of the terms. They are its first layer's business in the graph, not nodes of their own.
SHOWN: Final = monomials(
    {
        **{name: name for name in (
            "m", "n", "k", "batch", "beta", "in_bytes", "out_bytes", "trans_a", "trans_b", "warp_m", "warp_n", "warp_k", "warm", "active_units",
            "peak_tflops", "dram_gbps", "l2_gbps", "empty_launch_us", "power_limit_w", "idle_power_w", "of_tile_m", "of_tile_n", "of_tile_k",
            "unknown", "depth", "split", "swizzle_or_1", "wide_m", "wide_n", "threads_or_1", "aligned_c", "swizzled", "count_m", "count_n", "count_k",
            "busiest_sm", "blocks_m", "blocks_n", "seen_m", "seen_n", "room",
        )},
        "aligned_a": "aligned_a_k aligned_a_m", "aligned_b": "aligned_b_n aligned_b_k",
        **{f"{side}_by_{by}": f"{side}{by} {side}{by}_turned" for by in LOADS for side in "ab"}, **{f"c_by_{by}": f"c{by}" for by in LOADS},
        **{f"both_by_{by}": " ".join(f"both{by}_{layout}" for layout in LAYOUTS) for by in LOADS},
        "area": "of_tile_m of_tile_n", "tiles": "count_m count_n split batch",
        "padding": "blocks_m blocks_n swizzled swizzled wide_m wide_n / count_m count_n",
        "even_us": "2e-6 of_tile_m of_tile_n of_tile_k count_k count_m count_n split batch / peak_tflops",
        "shared_a_us": f"{TIME_TEXTS['own_l2_a_us']} wide_n", "shared_b_us": f"{TIME_TEXTS['own_l2_b_us']} wide_m",
        **{name: TIME_TEXTS[name] for name in TIME_TEXTS if name.startswith(("own_", "dram_"))},
        "fill_m": "m / count_m of_tile_m", "fill_n": "n / count_n of_tile_n", "smem_bytes": "of_tile_m of_tile_n of_tile_k in_bytes depth",
        "steps_us": f"{STEP_US} busiest_sm count_k / room", "fits_a": "m k in_bytes batch / l2_bytes", "fits_b": "k n in_bytes batch / l2_bytes",
        "reduced_us": "m n split batch / l2_gbps", **{f"{option}_floor_us": f"{option}_floor_us" for option in OPTIONS},
    }, TERMS,
)  # fmt: skip
FLOPS_US: Final = "2e-6 m n k batch / peak_tflops"
