"""benchmarks/adaptation.py: error over own samples, for any two tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.adaptation import at_random, main, measure
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import parse_plan
from costmodel.base import Base
from costmodel.dataset import TrainingSet, training_set
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row
from tests.conftest import GPU, GPU_PLAN
from tests.small_base import small_base

SLOWER = 1.25


@pytest.fixture(scope="module")
def target(measure: Callable[[Cell, Device], Row]) -> TrainingSet:
    """A slower device, half of whose rows have power."""
    device = replace(GPU, name="Paper GPU 2", uuid="GPU-2", dram_gbps=2 * GPU.dram_gbps)
    plan = parse_plan({**GPU_PLAN, "seed": 8})
    rows = [measure(cell, device) for cell in plan_cells(plan, device).cells]
    for i, row in enumerate(rows):
        row["runtime_us"] *= SLOWER
        if i % 2:
            row |= {"power_w": None, "sustained_runtime_us": None, "energy_mj": None}
    return training_set(to_table(rows))


@pytest.fixture(scope="module")
def base(power_samples: pa.Table) -> Base:
    return small_base(power_samples)


@pytest.fixture
def base_file(base: Base, tmp_path: Path) -> str:
    path = tmp_path / "base.onnx"
    path.write_bytes(base.model)
    return str(path)


def test_the_error_falls_with_own_samples(base: Base, target: TrainingSet) -> None:
    curves = measure(base, target, (0, 50), seeds=1)
    curve = curves["base"]
    assert list(curve) == ["0", "50"]
    assert set(curve["0"]) == {"runtime_us", "sustained_runtime_us", "power_w", "energy_mj"}
    assert curve["50"]["runtime_us"]["mape"] < 0.7 * curve["0"]["runtime_us"]["mape"]
    alone = curves["own samples"]["50"]["runtime_us"]["mape"]
    assert curve["50"]["runtime_us"]["mape"] < alone
    assert list(curves["boosting"]) == ["50"]


def test_metered_rows_come_first(target: TrainingSet) -> None:
    metered = int(np.isfinite(target.measured["power_w"]).sum())
    rows = at_random(target, metered, np.random.default_rng(0))
    assert np.isfinite(target.measured["power_w"][rows]).all()
    assert len(set(rows.tolist())) == metered


def test_files_go_in_and_json_comes_out(
    base_file: str,
    target: TrainingSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "target.parquet"
    pq.write_table(target.table, table)
    words = ["--base", base_file, "--target", table, "--samples", 0, 10, "--seeds", 1, "--json"]
    assert main([str(word) for word in words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["curve"] == result["curves"]["base"]
    assert set(result["curve"]["10"]["runtime_us"]) == {"mape", "median_ape"}
    assert (result["seeds"], result["rows"]) == (1, len(target))


def test_a_table_that_says_too_little_is_refused(
    base_file: str, power_samples: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "few.parquet"
    pq.write_table(power_samples.slice(0, 2), table)
    assert main(["--base", base_file, "--target", str(table)]) == 2
    assert "--target" in capsys.readouterr().err
