"""Rows of measured tables as others write them, and the files that hold them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemmcast.gemm import Gemm
from gemmcast.rows import Row

MODIFIED_S = 1_760_000_000
"""Modification time of every file: 2025-10-09T08:53:20 UTC."""
PEAK_TFLOPS, DRAM_GBPS, LAUNCH_US = 800.0, 4300.0, 2.4
SHAPES = [
    (m, n, k) for m in (1, 16, 256, 4096) for n in (64, 1024, 16384) for k in (64, 4096, 16384)
]


def _runtime_us(gemm: Gemm) -> float:
    """A roofline with a launch."""
    compute_us = gemm.flops / (PEAK_TFLOPS * 1e6)
    memory_us = gemm.operand_bytes / (DRAM_GBPS * 1e3)
    return max(LAUNCH_US, compute_us, memory_us)


def _aic_row(m: int = 1024, n: int = 1024, k: int = 1024, **values: object) -> Row:
    gemm = Gemm(m=m, n=n, k=k, dtype="bf16")
    return {
        "framework": "VLLM",
        "version": "0.1.2",
        "device": "NVIDIA H200",
        "op_name": "gemm",
        "kernel_source": "vllm_default",
        "gemm_dtype": "bfloat16",
        "m": m,
        "n": n,
        "k": k,
        "latency": _runtime_us(gemm) / 1e3,
        "power": 350.5,
        "power_limit": 700.0,
        **values,
    }


def _own_row(**values: object) -> Row:
    return {
        "m": 1024,
        "n": 512,
        "k": 256,
        "dtype": "fp16",
        "family": "cublas",
        "runtime_us": 7.25,
        "device": "NVIDIA H100 80GB HBM3",
        **values,
    }


def _kernel_tuner(**values: object) -> Row:
    return {
        "timestamp": "2025-03-01 10:00:00.5+00:00",
        "configuration": {"block_size_x": 16, "tile_m": 64, "split_k": 2},
        "times": {"compilation": 600.0, "framework": 1.0, "runtimes": [1.0, 3.0, 1.25]},
        "invalidity": "correct",
        "correctness": 1,
        "measurements": [
            {"name": "time", "value": 1.75, "unit": "ms"},
            {"name": "nvml_power", "value": 300.0, "unit": ""},
            {"name": "GFLOP/s", "value": 9.0, "unit": ""},
        ],
        "objectives": ["time"],
        **values,
    }


@pytest.fixture(scope="session")
def aic_row() -> Callable[..., Row]:
    """A row of an AIConfigurator table; m, n and k by place, other columns by name."""
    return _aic_row


@pytest.fixture(scope="session")
def aic_rows() -> list[Row]:
    """A table of AIConfigurator: 36 shapes, measured on a machine that is a roofline."""
    return [_aic_row(*shape) for shape in SHAPES]


@pytest.fixture(scope="session")
def own_row() -> Callable[..., Row]:
    """A row with our own columns, no more of them than must be."""
    return _own_row


@pytest.fixture(scope="session")
def kernel_tuner() -> Callable[..., Row]:
    """A result as Kernel Tuner writes it."""
    return _kernel_tuner


@pytest.fixture(scope="session")
def problem() -> dict[str, str]:
    """What a file of Kernel Tuner does not say, as constants."""
    return {
        "m": "1024",
        "n": "512",
        "k": "256",
        "dtype": "fp16",
        "family": "custom",
        "device": "NVIDIA A100-SXM4-80GB",
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Rows as a file; the suffix of its name chooses the format."""

    def written(rows: Sequence[Row] | Row, name: str) -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        elif path.suffix == ".json":
            results = {"schema_version": "1.0.0", "results": rows}
            path.write_text(json.dumps(rows if isinstance(rows, dict) else results))
        else:
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        os.utime(path, (MODIFIED_S, MODIFIED_S))
        return path

    return written
