"""Tuned tables for tests: a few entries of a Triton kernel on a made-up H100."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.tuned_table import Cost, TableKey, TunedEntry, TunedTable

KEY = TableKey(
    device="NVIDIA H100 80GB HBM3",
    mig=False,
    compute_units=132,
    power_limit_w=700.0,
    driver="580.1",
    cuda="13.0",
    library="cuBLAS 13.1",
    kernel_set="usual@12ab",
    triton="3.6.0",
)
DEFAULT = KernelConfig.parse(
    "triton:kernel=scaled_block,tile_m=64,tile_n=128,tile_k=128,group_m=32,warps=4,stages=2"
)
WINNER = replace(DEFAULT, tile_m=16, stages=4)


def gemm(m: int, n: int = 1024, k: int = 4096, **fields: Any) -> Gemm:
    return Gemm(m=m, n=n, k=k, **{"dtype": "fp8_e4m3", "layout": "nt", **fields})


def entry(m: int, **fields: Any) -> TunedEntry:
    """A winner that was measured at 1.5 times the default."""
    given: dict[str, Any] = {
        "gemm": gemm(m),
        "default": DEFAULT,
        "winner": WINNER,
        "default_measured": Cost(runtime_us=3.0),
        "winner_measured": Cost(runtime_us=2.0),
        "gain": 1.5,
        "gain_low": 1.4,
        "gain_high": 1.6,
        "verified": True,
        "measured": 9,
        "possible": 200,
        "reason": "surely faster",
    }
    return TunedEntry(**{**given, **fields})


def table(*ms: int, key: TableKey = KEY, **fields: Any) -> TunedTable:
    """One entry for each m."""
    return TunedTable(key, [entry(m, **fields) for m in ms or (1, 16, 64)])
