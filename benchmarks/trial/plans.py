"""The plans of fleet_trial.py: small cells of one length, and a training every few of them."""

from __future__ import annotations

GPU_CELL_S, CPU_CELL_S = 0.06, 0.25
"""About what a cell of the plans below takes."""
GPU_PLAN = """
name = "fleet-trial"
[devices]
kind = "cuda"
second_board = 0
[measure]
min_burst_s = 0.05
burst_s = 0.05
[train]
every = 250
min_rows = 100
at_end = false
[[sweep]]
family = "cublas"
dtypes = ["fp16", "bf16"]
shapes = { sample = SHAPES, min = 64, max = 8192, multiple = 8, max_gflop = 200 }
"""
CPU_PLAN = """
name = "fleet-trial"
[devices]
kind = "cpu"
second_board = 0
[measure]
target_rse = 0.0001
burst_s = 0.03
[train]
every = 40
min_rows = 30
at_end = false
[[sweep]]
family = "blas"
kernel = "numpy"
shapes = { sample = SHAPES, min = 16, max = 128 }
knobs = { cpu_threads = [1] }
"""
GPU_CELLS_A_SHAPE = 2


def plan_text(gpus: int, seconds: float) -> str:
    """A plan that takes each device about so many seconds, in TOML.

    Args:
        gpus: of this host; 0: its CPU is measured.
    """
    if not gpus:
        return CPU_PLAN.replace("SHAPES", str(round(seconds / CPU_CELL_S)))
    shapes = round(gpus * seconds / GPU_CELL_S / GPU_CELLS_A_SHAPE)
    return GPU_PLAN.replace("SHAPES", str(shapes))
