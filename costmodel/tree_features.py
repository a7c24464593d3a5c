"""What a GPU engineer would write down about a GEMM, once, as array-API code.

    question[n, len(FIELDS)] float32  ->  floor_us[n, 1] float32, features[n, len(NAMES)] float32

NumPy runs it for training, ndonnx traces the same code into the ONNX graph in front of the trees, so no embedder ever rewrites a
feature. Only + - * / ceil max: NumPy and ONNX Runtime round these alike, bit for bit; logarithms they do not, and a split that
falls the other way is an error of several per cent. Trees do not see monotone transforms anyway.

A library does not say which tile it chose: so waves are also reckoned for the tiles that it has to choose from, whatever the kernel. They
tell how well a shape fills the device at all.

The floor is the analytical part: max(flops / measured peak, bytes / measured bandwidth) + launch, the roofline of Williams, Waterman &
Patterson (CACM 2009); the trees learn log(measured / floor).

Every node costs ONNX Runtime 0.4 us or more, so features are computed in layers of many named ones side by side, a few nodes each; and a
quantity is a row (x[name, n]) until the end, so that picking some of them out copies whole rows, not single numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from gemmcast.query import FIELDS

CANDIDATES: Final = ((64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
# tiles that libraries choose from, m x n
OF_TILES: Final = tuple(f"{m}x{n}" for m, n in CANDIDATES)
SIDES: Final = {"m": (16, 32, 64, 128, 256), "n": (64, 128, 256)}
OF_SIDES: Final = tuple(f"{d}_by_{side}" for d, sides in SIDES.items() for side in sides)
# m or n in tiles of that side
NAMES: Final = (
    *FIELDS,
    "count_m", "count_n", "count_k",                 # tiles along each dimension
    "fill_m", "fill_n", "fill_k",                    # tile quantisation: share of the padded dimension that is real
    "blocks", "waves", "wave_fill",                  # thread blocks, per worker, and the share of the last wave that works
    "compute_time", "bytes_time", "tile_bytes_time", # at measured peak and bandwidth; with every tile's loads from DRAM
    "balance", "intensity", "l2_fill", "work",       # compute over bytes, work over bytes, operands over L2, multiply-adds
    *(f"{tile}_fill" for tile in OF_TILES),          # were that the tile: the share of the last wave that works
    *(f"{tile}_share" for tile in OF_TILES),         # and elements of C per worker and wave
    *(f"m_by_{side}_fill" for side in SIDES["m"]),   # were that the tile's side: the share of the padded m that is real
)  # fmt: skip
FLOOR_UNITS: Final = np.array([[2e-6], [1e-3]], dtype=np.float32)
# multiply-adds per TFLOP/s, bytes per GB/s: in microseconds
TILE_SIDES: Final = np.array([[side] for sides in SIDES.values() for side in sides], dtype=np.float32)

Factors = Mapping[str, tuple[str, ...]]
COUNTS: Final = {"count_m": ("m", "tile_m"), "count_n": ("n", "tile_n"), "count_k": ("k", "tile_k"), "one": ("m", "m")}
PRODUCTS: Final[Factors] = {
    "a_bytes": ("m", "k", "batch", "in_bytes"), "a_loads": ("m", "k", "batch", "in_bytes", "count_n"),
    "b_bytes": ("k", "n", "batch", "in_bytes"), "b_loads": ("k", "n", "batch", "in_bytes", "count_m"),
    "c_bytes": ("m", "n", "batch", "out_bytes"), "c_stores": ("m", "n", "batch", "out_bytes"),
    "work": ("m", "n", "k", "batch"), "elements": ("m", "n", "batch"), "blocks": ("count_m", "count_n", "batch", "split_k"),
    "padded_m": ("count_m", "tile_m"), "padded_n": ("count_n", "tile_n"), "padded_k": ("count_k", "tile_k"),
    **{f"{m}x{n}_blocks": (f"m_by_{m}", f"n_by_{n}", "batch") for m, n in CANDIDATES},
}  # fmt: skip
SUMS: Final = ("bytes_once", "bytes_by_tile")
# of the first six products, by turns
RATIOS: Final[Factors] = {
    "compute_time": ("work", "peak_tflops"), "bytes_time": ("bytes_once", "dram_gbps"), "tile_bytes_time": ("bytes_by_tile", "dram_gbps"),
    "fill_m": ("m", "padded_m"), "fill_n": ("n", "padded_n"), "fill_k": ("k", "padded_k"),
    "intensity": ("work", "bytes_once"), "l2_fill": ("bytes_once", "l2_bytes"), "elements_per_worker": ("elements", "active_units"),
    "waves": ("blocks", "active_units"), **{f"{tile}_waves": (f"{tile}_blocks", "active_units") for tile in OF_TILES},
}  # fmt: skip
WAVES: Final = ("waves", *(f"{tile}_waves" for tile in OF_TILES))
SHARES: Final[Factors] = {
    "balance": ("compute_time", "bytes_time"), "wave_fill": ("waves", "whole_waves"),
    **{f"{tile}_fill": (f"{tile}_waves", f"whole_{tile}_waves") for tile in OF_TILES},
    **{f"{tile}_share": ("elements_per_worker", f"whole_{tile}_waves") for tile in OF_TILES},
}  # fmt: skip


class _Rows:
    """Named rows of one array, x[name, n]."""

    def __init__(self, block: Any, names: tuple[str, ...]) -> None:
        self.xp = block.__array_namespace__()
        self.block, self.names = block, names

    def take(self, *names: str) -> Any:
        """[len(names), n]; a slice where they stand together, which is cheaper."""
        at = [self.names.index(name) for name in names]
        if at == list(range(at[0], at[0] + len(at))):
            return self.block[at[0] : at[0] + len(at), :]
        return self.xp.take(self.block, self.xp.asarray(np.array(at)), axis=0)

    def add(self, *parts: tuple[tuple[str, ...], Any]) -> None:
        self.block = self.xp.concat([self.block, *(values for _, values in parts)], axis=0)
        self.names = sum((names for names, _ in parts), self.names)

    def products(self, factors: Factors) -> Any:
        """[len(factors), n]; those with fewer factors than others are filled up with ones."""
        most = max(map(len, factors.values()))
        filled = [(*names, *["one"] * (most - len(names))) for names in factors.values()]
        taken = self.take(*(names[i] for i in range(most) for names in filled))
        return self.xp.prod(self.xp.reshape(taken, (most, len(filled), -1)), axis=0)

    def ratios(self, pairs: Factors) -> Any:
        return self.take(*(over for over, _ in pairs.values())) / self.take(*(under for _, under in pairs.values()))


def features(query: Any) -> tuple[Any, Any]:
    """(floor_us, features) of raw questions; `question` is an array of any library that has `__array_namespace__`."""
    xp = query.__array_namespace__()
    x = _Rows(query.T, FIELDS)
    sides = x.take(*(d for d, sides in SIDES.items() for _ in sides)) / xp.asarray(TILE_SIDES)
    counts = xp.ceil(xp.concat([x.ratios(COUNTS), sides], axis=0))
    of_m = len(SIDES["m"])
    fills = sides[:of_m, :] / counts[len(COUNTS) : len(COUNTS) + of_m, :]
    x.add(((*COUNTS, *OF_SIDES), counts), (tuple(f"m_by_{side}_fill" for side in SIDES["m"]), fills))
    products = x.products(PRODUCTS)
    moved = xp.sum(xp.reshape(products[:6, :], (3, 2, -1)), axis=0)
    x.add((tuple(PRODUCTS), products), (SUMS, moved))
    ratios = x.ratios(RATIOS)
    x.add((tuple(RATIOS), ratios), (tuple(f"whole_{name}" for name in WAVES), xp.ceil(ratios[-len(WAVES) :, :])))
    x.add((tuple(SHARES), x.ratios(SHARES)))
    times_us = ratios[:2, :] * xp.asarray(FLOOR_UNITS)
    floor_us = xp.maximum(times_us[0:1, :], times_us[1:2, :]) + x.take("empty_launch_us")
    return floor_us.T, x.take(*NAMES).T
