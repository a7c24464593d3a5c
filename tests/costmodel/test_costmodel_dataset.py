"""Samples as arrays, the split by shape, and the scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from costmodel.dataset import (
    READINGS,
    TARGETS,
    held_out,
    split_by_shape,
    training_set,
    with_unresolved_copies,
)
from costmodel.evaluate.metrics import Score, score, to_json
from costmodel.settings import TrainSettings
from gemmcast.arrow import SCHEMA, read_samples, to_table
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.descriptions import device_of
from gemmcast.device import Device
from gemmcast.draw import fraction, is_drawn, shuffled
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.query import FIELDS, OUTPUTS, encode
from gemmcast.rows import Row, gemm_of

ROOT = Path(__file__).parents[2]
Measure = Callable[..., Row]


def _cell(m: int) -> Cell:
    config = KernelConfig(family="blas", kernel="numpy", cpu_threads=1)
    return Cell(gemm=Gemm(m=m, n=64, k=32), config=config, device_key="x")


def test_only_rows_with_a_runtime_and_a_floor_are_used(measure: Measure, cpu: Device) -> None:
    good = [measure(_cell(m), cpu) for m in (8, 16)]
    bad = [
        measure(_cell(24), cpu, status="timeout", reason="ran longer"),
        measure(_cell(32), cpu, runtime_us=None),
        measure(_cell(40), cpu, peak_tflops=None),
    ]
    data = training_set(to_table([bad[0], good[0], *bad[1:], good[1]]))
    assert len(data) == 2
    assert data.shapes.tolist() == ["8x64x32x1", "16x64x32x1"]
    assert data.measured["runtime_us"].tolist() == [row["runtime_us"] for row in good]


def test_queries_are_those_of_a_predictor(
    cpu_samples: pa.Table, cpu_cells: list[Cell], cpu: Device
) -> None:
    data = training_set(cpu_samples)
    assert data.queries.dtype == np.float32
    expected = [encode(cell.gemm, cell.config, cpu, cache=cell.cache) for cell in cpu_cells]
    assert np.array_equal(data.queries, np.array(expected, dtype=np.float32))


def test_the_targets_are_the_outputs_and_all_but_throughput_are_readings() -> None:
    assert set(TARGETS) == set(OUTPUTS)
    assert READINGS == ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")
    assert set(READINGS) <= set(SCHEMA.names)


def test_throughput_is_computed(power_samples: pa.Table) -> None:
    data = training_set(power_samples)
    assert set(data.measured) == set(TARGETS)
    expected = []
    for row in power_samples.to_pylist():
        flops = 2 * row["m"] * row["n"] * row["k"] * row["batch"]
        expected.append(flops / row["runtime_us"] * 1e-6)
    np.testing.assert_allclose(data.measured["tflops"], expected)


def test_power_is_nan_where_it_was_not_measured(
    power_samples: pa.Table, cpu_samples: pa.Table
) -> None:
    assert not np.isnan(training_set(power_samples).measured["power_w"]).any()
    assert np.isnan(training_set(cpu_samples).measured["power_w"]).all()


def test_a_part_keeps_everything_together(cpu_samples: pa.Table) -> None:
    data = training_set(cpu_samples)
    mask = np.arange(len(data)) % 3 == 1
    for part in (data.take(mask), data.take(np.flatnonzero(mask))):
        assert len(part) == mask.sum()
        assert np.array_equal(part.queries, data.queries[mask])
        assert part.column("cell_id").tolist() == data.column("cell_id")[mask].tolist()
        assert np.array_equal(part.measured["runtime_us"], data.measured["runtime_us"][mask])
        assert part.shapes.tolist() == data.shapes[mask].tolist()


def test_a_librarys_own_choice_is_trained_on_without_its_knobs_too() -> None:
    data = training_set(read_samples(ROOT / "datasets" / "h100_sxm_again.parquet"))
    family = data.column("family")
    is_default = data.column("kernel") == "default"
    is_chosen = (family == "cublas") | ((family == "cublaslt") & is_default)
    whole = with_unresolved_copies(data)
    copies = len(whole) - len(data)
    assert 0 < (family == "cublas").sum() < is_chosen.sum() == copies
    assert copies < np.isin(family, ["cublas", "cublaslt"]).sum()
    np.testing.assert_array_equal(whole.queries[: len(data)], data.queries)
    queries = []
    for row in data.take(is_chosen).table.to_pylist():
        config = KernelConfig(family=row["family"])
        queries.append(encode(gemm_of(row), config, device_of([row])))
    expected = np.array(queries, np.float32)
    np.testing.assert_allclose(whole.queries[len(data) :], expected, rtol=1e-6)
    for name, values in data.measured.items():
        np.testing.assert_array_equal(whole.measured[name][len(data) :], values[is_chosen])
    assert whole.shapes.tolist() == [*data.shapes, *data.shapes[is_chosen]]
    assert len(whole.table) == len(whole)


def test_where_no_library_chose_nothing_is_added(cpu_samples: pa.Table) -> None:
    data = training_set(cpu_samples)
    assert with_unresolved_copies(data) is data


def test_no_rows_are_a_training_set_too() -> None:
    data = training_set(SCHEMA.empty_table())
    assert len(data) == 0
    assert data.queries.shape == (0, len(FIELDS))


# draws and the split


def _shapes() -> list[str]:
    names = []
    for m in range(1, 21):
        for n in range(1, 21):
            names += [f"{m}x{n}x{k}x1" for k in range(1, 6)]
    return names


SHAPES = np.array(_shapes(), dtype=object)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_about_the_share_is_held_out(share: float) -> None:
    assert held_out(SHAPES, share).mean() == pytest.approx(share, abs=0.03)


def test_a_shape_is_held_out_with_all_its_rows() -> None:
    repeated = np.repeat(SHAPES[:200], 5)
    expected = np.repeat(held_out(SHAPES[:200], 0.2), 5)
    assert np.array_equal(held_out(repeated, 0.2), expected)


def test_a_shape_that_is_held_out_once_is_held_out_for_ever() -> None:
    few, many = held_out(SHAPES[:100], 0.15), held_out(SHAPES, 0.15)
    assert np.array_equal(few, many[:100])
    assert np.array_equal(held_out(SHAPES[::-1], 0.15), many[::-1])

    # a larger share holds out the same shapes, and more
    assert not (many & ~held_out(SHAPES, 0.3)).any()


def test_the_shapes_that_are_held_out_never_change() -> None:
    """A champion of any age was not trained on them."""
    held = [str(shape) for shape in SHAPES[held_out(SHAPES, 0.01)]]
    assert held[:3] == ["1x9x2x1", "1x17x3x1", "2x4x2x1"]


def test_another_process_holds_out_the_same(python_env: dict[str, str]) -> None:
    code = """
import sys
import numpy as np
from costmodel.dataset import held_out
shapes = np.array(sys.argv[1:], object)
print(held_out(shapes, 0.3).astype(int).tolist())
"""
    there = subprocess.run(
        [sys.executable, "-c", code, *SHAPES[:50]],
        capture_output=True,
        text=True,
        env={**python_env, "PYTHONHASHSEED": "3"},
        check=True,
    )
    here = held_out(SHAPES[:50], 0.3).astype(int).tolist()
    assert there.stdout.strip() == str(here)


def test_a_split_parts_the_shapes(cpu_samples: pa.Table) -> None:
    data = training_set(cpu_samples)
    training, test = split_by_shape(data, 0.15)
    assert len(training) + len(test) == len(data)
    assert not set(training.shapes) & set(test.shapes)
    assert held_out(test.shapes, 0.15).all()


def test_draws_depend_on_the_name_alone() -> None:
    names = [str(i) for i in range(2000)]
    fractions = [fraction(name) for name in names]
    assert min(fractions) >= 0 and max(fractions) < 1
    assert np.mean(fractions) == pytest.approx(0.5, abs=0.02)
    assert [is_drawn(name, 0.3) for name in names] == [value < 0.3 for value in fractions]
    order = sorted(names, key=fraction)
    assert shuffled(names) == shuffled(reversed(names)) == order != names


@pytest.mark.parametrize("holdout", [0.0, 0.9, -0.1, float("nan")])
def test_a_holdout_out_of_its_range_is_refused(holdout: float) -> None:
    with pytest.raises(InputError, match="must be above 0 and below 0.9"):
        TrainSettings(holdout=holdout)
    with pytest.raises(InputError, match="must be at least 20"):
        TrainSettings(min_rows=19)


# scores


def test_scores_by_hand() -> None:
    errors = score(np.array([10.0, 20.0, 30.0, 40.0]), np.array([11.0, 20.0, 24.0, 80.0]))
    assert errors.rows == 4
    assert errors.mape == pytest.approx(32.5)
    assert errors.median_ape == pytest.approx(15.0)
    assert errors.p90_ape == pytest.approx(76.0)
    # of +10, 0, -20 and +100 %
    assert errors.bias == pytest.approx(5.0)
    assert errors.r2 == pytest.approx(1 - (1 + 0 + 36 + 1600) / 500)


def test_a_perfect_prediction_has_no_error() -> None:
    values = np.array([1.0, 5.0, 7.0])
    perfect = Score(rows=3, mape=0.0, median_ape=0.0, p90_ape=0.0, bias=0.0, r2=1.0)
    assert score(values, values) == perfect


def test_r2_alone_would_accept_a_bad_model() -> None:
    measured = np.array([1.0, 1.0, 1.0, 1.0, 1000.0])
    errors = score(measured, np.array([3.0, 3.0, 3.0, 3.0, 1000.0]))
    assert errors.r2 is not None and errors.r2 > 0.99
    assert errors.median_ape == pytest.approx(200.0)


def test_no_rows_have_no_errors_and_equal_values_have_no_r2() -> None:
    assert score(np.array([]), np.array([])).to_json() == {"rows": 0}
    equal = score(np.array([2.0, 2.0]), np.array([1.0, 3.0]))
    assert equal.r2 is None and equal.mape == 50.0
    assert set(equal.to_json()) == {"rows", "mape", "median_ape", "p90_ape", "bias"}
    json.dumps(equal.to_json(), allow_nan=False)


def test_scores_in_a_card_are_plain_numbers() -> None:
    perfect = score(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    plain = to_json({"runtime_us": {"model": perfect}})
    numbers = {"rows": 2, "mape": 0.0, "median_ape": 0.0, "p90_ape": 0.0, "bias": 0.0, "r2": 1.0}
    assert plain == {"runtime_us": {"model": numbers}}
