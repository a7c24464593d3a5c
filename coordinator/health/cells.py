"""The cells of a check: the same ones on every board, a few for each sort of fault.

    compute    large products of each dtype: a low clock, a cap, slow multiprocessors
    memory     one row times a matrix: every byte of the weights comes from memory
    small      a few microseconds: what a kernel costs that has little to do

A fault of L2 or of the links to it shows in all of them. Some cells have a power window. On a GPU
all but the tiled kernels are what cuBLAS or cuBLASLt take by default, in shapes that the datasets
hold of H100 and H200: the reference of a board that is alone (coordinator/health/reference.py).
Every cell is checked against float64, as any cell of a run.
"""

from __future__ import annotations

from typing import Final

from coordinator.plan.schema import Plan, parse_plan

REPEATS: Final = 3
TENSOR: Final = ("fp16", "bf16", "tf32", "fp8_e4m3")
GPU_SWEEPS: Final = (
    {
        "family": "cublaslt",
        "kernel": "default",
        "layouts": ["nt"],
        "dtypes": TENSOR,
        "shapes": {"list": [[656, 7440, 14048], [4384, 1280, 5808], [96, 416, 1440]]},
    },
    {
        "family": "cublaslt",
        "kernel": "default",
        "layouts": ["nt"],
        "dtypes": ["fp16", "bf16", "fp8_e4m3"],
        "shapes": {"list": [[176, 16, 5456], [32, 4128, 96]]},
    },
    {
        "family": "cublas",
        "dtypes": ["fp16", "bf16", "tf32"],
        "shapes": {"list": [[4392, 1272, 5808]]},
    },
    {
        "family": "cublas",
        "layouts": ["nt"],
        "dtypes": ["bf16"],
        "shapes": {
            "m": [1],
            "nk": [
                [28672, 4096],
                [15360, 5120],
                [10240, 8192],
                [8192, 28672],
                [8192, 8192],
                [6144, 4096],
                [4096, 14336],
            ],
        },
    },
    {
        "family": "tiled",
        "knobs": {"tile": [16]},
        "shapes": {"list": [[2505, 821, 3221]]},
    },
)
GPU_POWER_SWEEPS: Final = (
    {
        "family": "cublaslt",
        "kernel": "default",
        "layouts": ["nt"],
        "dtypes": ["fp16", "bf16", "fp8_e4m3"],
        "shapes": {"list": [[3888, 6912, 6256]]},
    },
    {"family": "cublas", "shapes": {"list": [[4392, 1272, 5808]]}},
    {
        "family": "cublas",
        "layouts": ["nt"],
        "dtypes": ["bf16"],
        "shapes": {"list": [[1, 57344, 8192]]},
    },
    {
        "family": "tiled",
        "knobs": {"tile": [32]},
        "shapes": {"list": [[2505, 821, 3221]]},
    },
)
CPU_SWEEPS: Final = (
    {
        "family": "blas",
        "kernel": "numpy",
        "dtypes": ["fp32", "fp64"],
        "shapes": {
            "list": [
                [512, 512, 512],
                [384, 768, 512],
                [640, 256, 640],
                [256, 1024, 320],
                [768, 384, 384],
                [1, 4096, 4096],
                [1, 2048, 8192],
                [1, 8192, 2048],
                [2, 4096, 2048],
                [1, 3072, 3072],
                [16, 16, 16],
                [32, 16, 32],
                [24, 24, 48],
                [16, 48, 32],
            ]
        },
    },
)
"""Families that a device does not have are left out of its cells."""


def check_plan(kind: str = "auto", dataset: str | None = None, agents: int = 1) -> Plan:
    """The plan of a check.

    Args:
        kind: of the devices: auto, cuda, cpu or replay.
        dataset: replay only: the file that answers.
        agents: replay only: how many agents share it.
    """
    metered = [{**sweep, "power_share": 1.0, "repeats": 1} for sweep in GPU_POWER_SWEEPS]
    sweeps = [{**sweep, "repeats": REPEATS} for sweep in (*GPU_SWEEPS, *CPU_SWEEPS)]
    devices: dict[str, object] = {"kind": kind, "replicate": "per_gpu"}
    if dataset is not None:
        devices |= {"dataset": dataset, "agents": agents}
    return parse_plan({"name": "health", "devices": devices, "sweep": [*metered, *sweeps]})
