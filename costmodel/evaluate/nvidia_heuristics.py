"""Which CUTLASS 3 kernels of a problem nvMatmulHeuristics names first.

NVIDIA's package nvidia-matmul-heuristics (0.1, proprietary, needs no GPU) lists about twenty pairs
of tile and cluster for a problem, best first. A configuration is one of them if tile, cluster and
slices of k are the same. docs.nvidia.com/cuda/nvidia-matmul-heuristics
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Final

import numpy as np

from costmodel.dataset import Indices
from gemmcast.rows import ReadRow

LISTED: Final = 64
"""More than it lists for any problem."""
PRECISIONS: Final = {"fp16": "HSH", "bf16": "TST", "tf32": "SSS"}
"""dtype -> letters of A and B, of what they are summed in, and of C."""
GPUS: Final = {"H100 80GB": "H100_SXM", "H200": "H200_SXM"}
"""Part of a device's name -> its name there."""
KNOBS: Final = ("tile_m", "tile_n", "tile_k", "cluster_m", "cluster_n", "split_k")

Knobs = tuple[int, ...]
"""Of KNOBS."""


class NvidiaHeuristics:
    """The package, loaded.

    Args:
        top: how many of the configurations that a group has.

    Raises:
        ImportError: it is not installed.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._library: ModuleType = import_module("nvMatmulHeuristics")

    def __call__(self, rows: Sequence[ReadRow]) -> Indices:
        """The places of its first ones among the configurations of one problem; maybe none."""
        place_of: dict[Knobs, int] = {}
        for place, row in enumerate(rows):
            knobs = tuple(row[name] for name in KNOBS)
            place_of.setdefault(knobs, place)
        places = [place_of[knobs] for knobs in self._listed(rows[0]) if knobs in place_of]
        return np.array(places[: self._top], dtype=np.int64)

    def _listed(self, row: ReadRow) -> list[Knobs]:
        """Best first, each once; none for a problem or a GPU of which the library has none."""
        precision = PRECISIONS.get(row["dtype"])
        gpus = [name for part, name in GPUS.items() if part in row["device"]]
        if row["family"] != "cutlass" or precision is None or not gpus:
            return []
        library = self._library
        lister = library.NvMatmulHeuristicsInterfaceEx(
            backend=library.NvMatmulHeuristicsTarget.CUTLASS3,
            gpu=library.NvMatmulHeuristicsNvidiaGpu[gpus[0]],
        )
        layout = library.NvMatmulHeuristicsMatmulLayout[f"{row['layout'].upper()}_ROW_MAJOR"]
        sizes = (row["m"], row["n"], row["k"])
        problem = lister.makeNvMatmulHeuristicsProblem(*sizes, layout, row["batch"])
        answers = lister.get(problem, LISTED, precision=precision)
        kernels = [answer["kernel"] for answer in answers]
        listed = [
            (k.cta_tile_m, k.cta_tile_n, k.cta_tile_k, k.cluster_m, k.cluster_n, k.split_k)
            for k in kernels
        ]
        return list(dict.fromkeys(listed))
