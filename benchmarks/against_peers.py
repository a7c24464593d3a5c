"""The same launches timed by gemmcast and by an independent harness, Triton's CUDA-graph benchmark.

    python benchmarks/against_peers.py [--out table.json] [--json]

Needs a GPU, PyTorch and Triton. 40 cells (ten shapes, four dtypes) in one run and in random order.
Both time cuBLAS on operands that stay in L2 where they fit (`warm`: Triton's harness does not flush
it). Triton captures launches of about 20 ms into one graph and replays it ten times; the median of
the replays is compared with our burst. It runs for 200 ms, so kernels that reach the power cap are
slower there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gemmcast.cell import Cell
from gemmcast.cli_parser import Parser
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.program import json_line, run_script

if TYPE_CHECKING:
    from agent.devices.cuda import CudaBackend
    from agent.kernels import Prepared

SEED = 5
SHAPES = (
    (64, 64, 64),
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (16, 4096, 4096),
    (64, 14336, 4096),
    (1000, 3000, 2000),
    (333, 777, 1555),
    (4096, 4096, 512),
)
DTYPES = ("fp32", "tf32", "fp16", "bf16")
HARNESS_MS = 20


class Pair(TypedDict):
    """One GEMM, timed by both."""

    gemm: str
    ours_us: float
    theirs_us: float


def main() -> int:
    """The command; returns the exit code."""
    args = _parser().parse_args()
    obstacle = _obstacle()
    if obstacle:
        raise InputError("GPU", None, obstacle, "run it where there is one")
    pairs = compare()
    if args.out:
        args.out.write_text(json.dumps(pairs, indent=1) + "\n")
    figures = differences(pairs)
    if args.json:
        print(json_line(figures))
        return 0
    for pair in sorted(pairs, key=lambda pair: pair["theirs_us"]):
        _show(pair)
    for name, value in figures.items():
        print(f"{name:20} {value:8.2f}")
    return 0


def compare() -> list[Pair]:
    """Time every GEMM with both, one right after the other; which is first alternates."""
    from agent.devices.cuda import CudaBackend
    from agent.instrument import LiveInstrument

    backend = CudaBackend()
    instrument = LiveInstrument(backend, backend.identify(), Procedure(), "peers")
    gemms: list[Gemm] = []
    for m, n, k in SHAPES:
        gemms += [Gemm(m=m, n=n, k=k, dtype=dtype) for dtype in DTYPES]
    pairs: list[Pair] = []
    for i in np.random.default_rng(SEED).permutation(len(gemms)):
        cell = Cell(
            gemm=gemms[i],
            config=KernelConfig(family="cublas"),
            device_key="here",
            cache="warm",
        )
        ours_first = bool(i % 2)
        row = instrument.measure(cell).row if ours_first else None
        theirs_us = _theirs_us(backend, cell)
        row = row or instrument.measure(cell).row
        if row["status"] != "ok":
            raise SystemExit(f"against_peers: {cell.gemm} is {row['status']}: {row['reason']}")
        pairs.append(Pair(gemm=str(cell.gemm), ours_us=row["runtime_us"], theirs_us=theirs_us))
    return pairs


def differences(pairs: list[Pair]) -> dict[str, float]:
    """Median, 90th percentile and largest of the absolute differences, in per cent."""
    absolute = np.abs([_difference(pair) for pair in pairs])
    return {
        "median_difference": float(np.median(absolute)),
        "p90_difference": float(np.percentile(absolute, 90)),
        "max_difference": float(absolute.max()),
        "cells": float(len(pairs)),
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep every pair of readings in this JSON file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser


def _obstacle() -> str | None:
    """Why nothing can be compared here, or None."""
    try:
        import torch
        import triton.testing  # noqa: F401
    except ImportError as error:
        return f"{error}; the independent harness is Triton's: pip install torch"
    return None if torch.cuda.is_available() else "no GPU here"


def _difference(pair: Pair) -> float:
    """By how many per cent our time exceeds theirs."""
    return 100 * (pair["ours_us"] / pair["theirs_us"] - 1)


def _show(pair: Pair) -> None:
    ours = f"ours {pair['ours_us']:10.2f} us"
    theirs = f"theirs {pair['theirs_us']:10.2f} us"
    print(f"{pair['gemm']:32} {ours}   {theirs}   {_difference(pair):+6.2f} %")


def _theirs_us(backend: CudaBackend, cell: Cell) -> float:
    """Triton's time of the launches that our family makes, enqueued on the harness's own stream."""
    import cupy
    import torch
    from triton.testing import do_bench_cudagraph

    from agent.kernels import load

    sets = backend.operands(cell.gemm, cold=False)
    prepared: dict[int, Prepared] = {}

    def launch() -> None:
        """One launch; prepared per stream, before the harness captures on it."""
        stream = torch.cuda.current_stream().cuda_stream
        with cupy.cuda.ExternalStream(stream):
            if stream not in prepared:
                prepared[stream] = load("cublas").prepare(cell.gemm, cell.config, sets)
            prepared[stream].launch(0)

    median_ms: float = do_bench_cudagraph(launch, rep=HARNESS_MS, return_mode="median")
    backend.stream.use()
    return median_ms * 1e3


if __name__ == "__main__":
    run_script(main)
