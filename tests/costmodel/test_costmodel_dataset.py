"""Samples as arrays, the split by shape, and the scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coordinator.samples.importer import read_outside
from costmodel.dataset import TARGETS, dataset, held_out, with_unresolved_copies
from costmodel.evaluate.metrics import score
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.query import FIELDS, encode
from gemmcast.rows import device_of, gemm_of
from gemmcast.score_table import score_rows

ROOT = Path(__file__).parents[2]
Measure = Callable[..., dict[str, Any]]


def _cell(m: int, batch: int = 1, **options: Any) -> Cell:
    config = KernelConfig(family="blas", kernel="numpy", cpu_threads=options.pop("cpu_threads", 1))
    return Cell(gemm=Gemm(m=m, n=64, k=32, batch=batch, **options), config=config, device_key="x")


def test_only_rows_that_teach_something_are_used(measure: Measure, cpu: Device) -> None:
    good = [measure(_cell(m), cpu) for m in (8, 16)]
    bad = [
        measure(_cell(24), cpu, status="timeout", reason="ran longer"),
        measure(_cell(32), cpu, runtime_us=None),
        measure(_cell(40), cpu, peak_tflops=None),
    ]
    data = dataset(to_table([bad[0], good[0], *bad[1:], good[1]]))
    assert len(data) == 2
    assert data.shapes.tolist() == ["8x64x32x1", "16x64x32x1"]
    assert data.measured["runtime_us"].tolist() == [row["runtime_us"] for row in good]


def test_questions_are_those_that_a_predictor_asks(cpu_samples: pa.Table, cpu_cells: list[Cell], cpu: Device) -> None:
    data = dataset(cpu_samples)
    assert data.queries.dtype == np.float32
    want = np.array([encode(cell.gemm, cell.config, cpu, cache=cell.cache) for cell in cpu_cells], dtype=np.float32)
    assert np.array_equal(data.queries, want)


def test_throughput_is_computed_and_power_is_nan_where_it_was_not_read(power_samples: pa.Table, cpu_samples: pa.Table) -> None:
    data = dataset(power_samples)
    rows = power_samples.to_pylist()
    flops = [2 * row["m"] * row["n"] * row["k"] * row["batch"] for row in rows]
    assert set(data.measured) == set(TARGETS)
    np.testing.assert_allclose(data.measured["tflops"], [work / row["runtime_us"] * 1e-6 for work, row in zip(flops, rows, strict=True)])
    assert not np.isnan(data.measured["power_w"]).any()
    assert np.isnan(dataset(cpu_samples).measured["power_w"]).all()


def test_a_part_keeps_everything_together(cpu_samples: pa.Table) -> None:
    data = dataset(cpu_samples)
    mask = np.arange(len(data)) % 3 == 1
    part, same = data.take(mask), data.take(np.flatnonzero(mask))
    for one in (part, same):
        assert len(one) == mask.sum()
        assert np.array_equal(one.queries, data.queries[mask])
        assert one.table["cell_id"].to_pylist() == data.column("cell_id")[mask].tolist()
        assert np.array_equal(one.measured["runtime_us"], data.measured["runtime_us"][mask])
        assert one.shapes.tolist() == data.shapes[mask].tolist()


def test_what_a_library_chose_itself_is_taught_as_a_question_without_knobs_too() -> None:
    data = dataset(read_outside(ROOT / "datasets" / "h100_sxm_again.parquet"))
    family, default = data.column("family"), data.column("kernel") == "default"
    chosen = (family == "cublas") | ((family == "cublaslt") & default)
    whole = with_unresolved_copies(data)
    assert 0 < (family == "cublas").sum() < chosen.sum() == len(whole) - len(data) < np.isin(family, ["cublas", "cublaslt"]).sum()
    np.testing.assert_array_equal(whole.queries[: len(data)], data.queries)
    rows = data.take(chosen).table.to_pylist()
    plain = [encode(gemm_of(row), KernelConfig(family=row["family"]), device_of([row])) for row in rows]
    np.testing.assert_allclose(whole.queries[len(data) :], np.array(plain, np.float32), rtol=1e-6)
    for name, values in data.measured.items():
        np.testing.assert_array_equal(whole.measured[name][len(data) :], values[chosen])
    assert whole.shapes.tolist() == [*data.shapes, *data.shapes[chosen]] and len(whole.table) == len(whole)


def test_where_no_library_chose_nothing_is_added(cpu_samples: pa.Table) -> None:
    data = dataset(cpu_samples)
    assert with_unresolved_copies(data) is data


def test_no_rows_are_a_dataset_too() -> None:
    data = dataset(SCHEMA.empty_table())
    assert (len(data), data.queries.shape) == (0, (0, len(FIELDS)))


# the split

SHAPES = np.array([f"{m}x{n}x{k}x1" for m in range(1, 21) for n in range(1, 21) for k in range(1, 6)], dtype=object)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_about_the_share_that_was_asked_for_is_held_out(share: float) -> None:
    assert held_out(SHAPES, share).mean() == pytest.approx(share, abs=0.03)


def test_a_shape_is_held_out_with_all_its_rows() -> None:
    repeated = np.repeat(SHAPES[:200], 5)
    assert np.array_equal(held_out(repeated, 0.2).reshape(200, 5), np.repeat(held_out(SHAPES[:200], 0.2)[:, None], 5, axis=1))


def test_a_shape_that_is_held_out_once_is_held_out_for_ever() -> None:
    few, many = held_out(SHAPES[:100], 0.15), held_out(SHAPES, 0.15)
    assert np.array_equal(few, many[:100])
    assert np.array_equal(held_out(SHAPES[::-1], 0.15), many[::-1])
    assert not (many & ~held_out(SHAPES, 0.3)).any()  # a larger share holds out more, and the same


def test_another_process_holds_out_the_same(python_env: dict[str, str]) -> None:
    code = (
        "import numpy as np, sys; from costmodel.dataset import held_out; print(held_out(np.array(sys.argv[1:], object), .3).astype(int).tolist())"
    )
    command = [sys.executable, "-c", code, *SHAPES[:50]]
    there = subprocess.run(command, capture_output=True, text=True, env={**python_env, "PYTHONHASHSEED": "3"}, check=True).stdout
    assert there.strip() == str(held_out(SHAPES[:50], 0.3).astype(int).tolist())


# scores


def test_scores_by_hand() -> None:
    found = score(np.array([10.0, 20.0, 30.0, 40.0]), np.array([11.0, 20.0, 24.0, 80.0]))
    assert found == pytest.approx({"mape": 32.5, "median_ape": 15.0, "p90_ape": 76.0, "r2": 1 - (1 + 0 + 36 + 1600) / 500, "rows": 4})


def test_a_perfect_prediction_has_no_error() -> None:
    values = np.array([1.0, 5.0, 7.0])
    assert score(values, values) == {"mape": 0.0, "median_ape": 0.0, "p90_ape": 0.0, "r2": 1.0, "rows": 3}


def test_r2_alone_would_accept_a_bad_model() -> None:
    measured = np.array([1.0, 1.0, 1.0, 1.0, 1000.0])
    found = score(measured, np.array([3.0, 3.0, 3.0, 3.0, 1000.0]))
    assert found["r2"] > 0.99 and found["median_ape"] == pytest.approx(200.0)


def test_nothing_to_score_leaves_rows_alone_and_one_value_has_no_r2() -> None:
    assert score(np.array([]), np.array([])) == {"rows": 0}
    alike = score(np.array([2.0, 2.0]), np.array([1.0, 3.0]))
    assert "r2" not in alike and alike["mape"] == 50.0
    json.loads(json.dumps(alike, allow_nan=False))


def test_the_table_is_text() -> None:
    one = score(np.array([10.0, 20.0]), np.array([11.0, 20.0]))
    assert score_rows({"runtime_us": {"model": one, "lookup": one}}) == [
        ["runtime_us", method, "5.0", "5.0", "9.0", "0.980", "2"] for method in ("model", "lookup")
    ]
