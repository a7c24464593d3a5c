"""What a GPU engineer would write down about a GEMM, once, as array-API code.

    question[n, len(FIELDS)] float32  ->  floor_us[n, 1] float32, features[n, len(NAMES)] float32

NumPy runs it for training, ndonnx traces the same code into the ONNX graph in front of the trees, so no embedder ever rewrites a
feature. Only + - * / ceil max: NumPy and ONNX Runtime round these alike, bit for bit; logarithms they do not, and a split that
falls the other way is an error of several per cent. Trees do not see monotone transforms anyway.

A library does not say which tile it chose: so waves are also reckoned for the tiles that it has to choose from, whatever the kernel. They
tell how well a shape fills the device at all.

The floor is the analytical part: max(flops / measured peak, bytes / measured bandwidth) + launch, the roofline of Williams, Waterman &
Patterson (CACM 2009); the trees learn log(measured / floor).

Every node costs ONNX Runtime 0.2 to 0.9 us, so features are computed in layers: one layer combines many named pairs side by side and
costs four nodes however wide it is.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from gemmcast.question import FIELDS

CANDIDATES: Final = ((64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
# tiles that libraries choose from, m x n
NAMES: Final = (
    *FIELDS,
    "count_m", "count_n", "count_k",                 # tiles along each dimension
    "fill_m", "fill_n", "fill_k",                    # tile quantisation: share of the padded dimension that is real
    "blocks", "waves", "wave_fill",                  # thread blocks, per worker, and the share of the last wave that works
    "compute_time", "bytes_time", "tile_bytes_time", # at measured peak and bandwidth; with every tile's loads from DRAM
    "balance", "intensity", "l2_fill", "work",       # compute over bytes, work over bytes, operands over L2, multiply-adds
    *(f"{m}x{n}_fill" for m, n in CANDIDATES),       # were that the tile: the share of the last wave that works
    *(f"{m}x{n}_share" for m, n in CANDIDATES),      # and elements of C per worker and wave
)  # fmt: skip
FLOOR_UNITS: Final = np.array([[2e-6, 1e-3]], dtype=np.float32)
# multiply-adds per TFLOP/s, bytes per GB/s: in microseconds
TILES: Final = np.array([[m for m, _ in CANDIDATES] + [n for _, n in CANDIDATES]], dtype=np.float32)
OF_TILES: Final = tuple(f"{m}x{n}" for m, n in CANDIDATES)

Pairs = dict[str, tuple[str, str]]


class _Columns:
    """Named columns of one array; a layer computes new ones from pairs of them and appends them."""

    def __init__(self, block: Any, names: tuple[str, ...]) -> None:
        self.xp = block.__array_namespace__()
        self.block, self.names = block, names

    def take(self, *names: str) -> Any:
        """[n, len(names)]; a slice where they stand together, which is cheaper."""
        at = [self.names.index(name) for name in names]
        if at == list(range(at[0], at[0] + len(at))):
            return self.block[:, at[0] : at[0] + len(at)]
        return self.xp.take(self.block, self.xp.asarray(np.array(at)), axis=1)

    def add(self, names: tuple[str, ...], values: Any) -> None:
        self.block, self.names = self.xp.concat([self.block, values], axis=1), self.names + names

    def multiply(self, **pairs: tuple[str, str]) -> None:
        self.add(tuple(pairs), self.take(*(a for a, _ in pairs.values())) * self.take(*(b for _, b in pairs.values())))

    def divide(self, **pairs: tuple[str, str]) -> None:
        self.add(tuple(pairs), self.take(*(a for a, _ in pairs.values())) / self.take(*(b for _, b in pairs.values())))


def features(question: Any) -> tuple[Any, Any]:
    """(floor_us, features) of raw questions; `question` is an array of any library that has `__array_namespace__`."""
    c = _Columns(question, FIELDS)
    xp = c.xp
    c.add(("count_m", "count_n", "count_k"), xp.ceil(c.take("m", "n", "k") / c.take("tile_m", "tile_n", "tile_k")))
    c.add((*(f"{t}_m" for t in OF_TILES), *(f"{t}_n" for t in OF_TILES)), _candidate_counts(c))
    c.multiply(
        mk=("m", "k"), kn=("k", "n"), mn=("m", "n"), in_size=("batch", "in_bytes"), out_size=("batch", "out_bytes"),
        padded_m=("count_m", "tile_m"), padded_n=("count_n", "tile_n"), padded_k=("count_k", "tile_k"),
        grid=("count_m", "count_n"), slices=("batch", "split_k"), k_batch=("k", "batch"),
        **{f"{t}_grid": (f"{t}_m", f"{t}_n") for t in OF_TILES},
    )  # fmt: skip
    c.multiply(
        a_bytes=("mk", "in_size"), b_bytes=("kn", "in_size"), c_bytes=("mn", "out_size"), work=("mn", "k_batch"), blocks=("grid", "slices"),
        elements=("mn", "batch"), **{f"{t}_blocks": (f"{t}_grid", "batch") for t in OF_TILES},
    )  # fmt: skip
    c.multiply(a_loads=("a_bytes", "count_n"), b_loads=("b_bytes", "count_m"))
    moved = c.take("a_bytes", "a_loads") + c.take("b_bytes", "b_loads") + c.take("c_bytes")
    c.add(("bytes_once", "bytes_by_tile"), moved)
    c.divide(
        compute_time=("work", "peak_tflops"), bytes_time=("bytes_once", "dram_gbps"), tile_bytes_time=("bytes_by_tile", "dram_gbps"),
        fill_m=("m", "padded_m"), fill_n=("n", "padded_n"), fill_k=("k", "padded_k"), waves=("blocks", "workers"),
        intensity=("work", "bytes_once"), l2_fill=("bytes_once", "l2_bytes"),
        elements_per_worker=("elements", "workers"), **{f"{t}_waves": (f"{t}_blocks", "workers") for t in OF_TILES},
    )  # fmt: skip
    waves = ("waves", *(f"{t}_waves" for t in OF_TILES))
    c.add(tuple(f"whole_{name}" for name in waves), xp.ceil(c.take(*waves)))
    c.divide(
        balance=("compute_time", "bytes_time"), wave_fill=("waves", "whole_waves"),
        **{f"{t}_fill": (f"{t}_waves", f"whole_{t}_waves") for t in OF_TILES},
        **{f"{t}_share": ("elements_per_worker", f"whole_{t}_waves") for t in OF_TILES},
    )  # fmt: skip
    times_us = c.take("compute_time", "bytes_time") * xp.asarray(FLOOR_UNITS)
    floor_us = xp.maximum(times_us[:, 0:1], times_us[:, 1:2]) + c.take("device_launch_us")
    return floor_us, c.take(*NAMES)


def _candidate_counts(c: _Columns) -> Any:
    """Tiles along m, then along n."""
    sizes = c.take(*["m"] * len(CANDIDATES), *["n"] * len(CANDIDATES))
    return c.xp.ceil(sizes / c.xp.asarray(TILES))
