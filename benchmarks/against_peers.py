"""The same launches timed by this program and by an independent harness, Triton's CUDA-graph benchmark, in one run and in random order.

    python benchmarks/against_peers.py [--out table.json] [--json]     on a GPU, with PyTorch and Triton installed

Both time cuBLAS on operands that stay in L2 where they fit (`warm`: Triton's harness does not flush it). 40 cells: ten shapes, four dtypes.
Triton captures launches of about 20 ms into one graph and replays it ten times; the median of the replays is compared with our burst.
It runs 200 ms on end, so kernels that reach the power cap are slower there: `sustained` tells.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure

SEED = 5
SHAPES = (
    (64, 64, 64), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (16, 4096, 4096), (64, 14336, 4096),
    (1000, 3000, 2000), (333, 777, 1555), (4096, 4096, 512),
)  # fmt: skip
DTYPES = ("fp32", "tf32", "fp16", "bf16")
HARNESS_MS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep every pair of readings in this JSON file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    try:
        import torch
        import triton.testing  # noqa: F401
    except ImportError as error:
        print(f"against_peers: {error}; the independent harness is Triton's: pip install torch", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("against_peers: no GPU here", file=sys.stderr)
        return 2
    pairs = compare()
    if args.out:
        args.out.write_text(json.dumps(pairs, indent=1) + "\n")
    difference = 100 * np.array([abs(pair["ours_us"] / pair["theirs_us"] - 1) for pair in pairs])
    found = {
        "median_difference": float(np.median(difference)), "p90_difference": float(np.percentile(difference, 90)),
        "max_difference": float(difference.max()), "cells": float(len(pairs)),
    }  # fmt: skip
    if not args.json:
        for pair in sorted(pairs, key=lambda pair: pair["theirs_us"]):
            apart = 100 * (pair["ours_us"] / pair["theirs_us"] - 1)
            print(f"{pair['gemm']:32} ours {pair['ours_us']:10.2f} us   theirs {pair['theirs_us']:10.2f} us   {apart:+6.2f} %")
    print(json.dumps(found) if args.json else "\n".join(f"{name:20} {value:8.2f}" for name, value in found.items()))
    return 0


def compare() -> list[dict[str, Any]]:
    from agent.devices.cuda import CudaBackend
    from agent.instrument import LiveInstrument

    backend = CudaBackend()
    instrument = LiveInstrument(backend, backend.identify(), Procedure(), "peers")
    gemms = [Gemm(m=m, n=n, k=k, dtype=dtype) for m, n, k in SHAPES for dtype in DTYPES]
    pairs = []
    for i in np.random.default_rng(SEED).permutation(len(gemms)):
        cell = Cell(gemm=gemms[i], config=KernelConfig(family="cublas"), device_key="here", cache="warm")
        ours_first = bool(i % 2)
        ours = instrument.measure(cell).row if ours_first else None
        theirs_us = _theirs_us(backend, cell)
        ours = ours or instrument.measure(cell).row
        if ours["status"] != "ok":
            raise SystemExit(f"against_peers: {cell.gemm} is {ours['status']}: {ours['reason']}")
        pairs.append({"gemm": str(cell.gemm), "ours_us": ours["runtime_us"], "theirs_us": theirs_us})
    return pairs


def _theirs_us(backend: Any, cell: Cell) -> float:
    """Of the very launches that our family makes, enqueued on the harness's own stream."""
    import cupy
    import torch
    from triton.testing import do_bench_cudagraph

    from agent.kernels import load

    sets = backend.operands(cell.gemm, cold=False)
    prepared: dict[int, Any] = {}

    def launch() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        with cupy.cuda.ExternalStream(stream):
            if stream not in prepared:  # never while it captures: it runs a few launches first
                prepared[stream] = load("cublas").prepare(cell.gemm, cell.config, sets)
            prepared[stream].launch(0)

    took_ms: float = do_bench_cudagraph(launch, rep=HARNESS_MS, return_mode="median")
    backend.stream.use()
    return took_ms * 1e3


if __name__ == "__main__":
    sys.exit(main())
