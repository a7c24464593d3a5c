"""Grouped cross-validation: no row is predicted by a model of its group, every row once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from costmodel.dataset import TARGETS, TrainingSet, training_set
from costmodel.evaluate.baselines import BASELINES
from costmodel.evaluate.crossval import (
    coverage,
    cross_validated,
    predictions,
    scores,
)
from costmodel.evaluate.groups import layers, split
from costmodel.evaluate.metrics import score
from costmodel.model import CostModel
from costmodel.outputs import OUTPUT_OF_TARGET
from gemmcast.arrow import read_samples
from gemmcast.config import KernelConfig
from gemmcast.descriptions import device_of
from gemmcast.query import encode
from gemmcast.rows import gemm_of

ROOT = Path(__file__).resolve().parent.parent.parent


def fit(training: TrainingSet) -> CostModel:
    """One small network per target and few trees: more would only take longer."""
    return CostModel(members=1, steps=300, iterations=10).fit_dataset(training)


@pytest.fixture(scope="module")
def data(power_samples: pa.Table) -> TrainingSet:
    return training_set(power_samples)


def test_folds_share_no_group_and_cover_all_rows(data: TrainingSet) -> None:
    times_tested = np.zeros(len(data), dtype=int)
    sizes = []
    for is_training, is_test in split(data.shapes, 5):
        assert not set(data.shapes[is_training]) & set(data.shapes[is_test])
        assert (is_training != is_test).all()
        times_tested += is_test
        sizes.append(len(set(data.shapes[is_test])))
    assert (times_tested == 1).all()
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == len(set(data.shapes))


def test_the_split_depends_on_names_alone(data: TrainingSet) -> None:
    order = np.random.default_rng(3).permutation(len(data))
    in_order = split(data.shapes, 4)
    shuffled = split(data.shapes[order], 4)
    for (_, one), (_, other) in zip(in_order, shuffled, strict=True):
        assert np.array_equal(one[order], other)


def test_every_row_is_predicted_by_every_method_and_progress_is_reported(
    data: TrainingSet,
) -> None:
    progress: list[tuple[int, int]] = []
    predicted = cross_validated(
        data, data.shapes, fit, 3, on_fold=lambda *done: progress.append(done)
    )
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert set(predicted) == set(TARGETS)
    for methods in predicted.values():
        assert set(methods) == {"model", "low", "high", "lookup", "roofline", "paper_forest"}
        for values in methods.values():
            assert not np.isnan(values).any()


def test_a_prediction_is_of_models_without_the_group(
    data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shape's measurements are made 100 times as long: its own predictions stay the same."""
    # A forest a fold takes longer than all the rest, and is not looked at here.
    monkeypatch.setitem(BASELINES, "paper_forest", BASELINES["roofline"])
    is_changed = data.shapes == data.shapes[0]
    changed = {}
    for name, values in data.measured.items():
        changed[name] = np.where(is_changed, 100 * values, values)
    slower = replace(data, measured=changed)
    before = cross_validated(data, data.shapes, fit, 3)["runtime_us"]["model"]
    after = cross_validated(slower, data.shapes, fit, 3)["runtime_us"]["model"]
    assert np.array_equal(before[is_changed], after[is_changed])
    assert not np.array_equal(before[~is_changed], after[~is_changed])


def test_coverage_counts_what_lies_between(data: TrainingSet) -> None:
    power_w = data.measured["power_w"].copy()
    low, high = power_w - 1, power_w + 1
    low[1] = high[1] = power_w[1] + 5
    power_w[::2] = np.nan
    thinned = replace(data, measured={**data.measured, "power_w": power_w})
    known = len(data) // 2
    shares = coverage(thinned, {"power_w": {"low": low, "high": high}})
    assert shares == {"power_w": pytest.approx(100 * (known - 1) / known)}


def test_layers_are_named_by_n_and_k_alone(data: TrainingSet) -> None:
    names = [f"{row['n']}x{row['k']}" for row in data.table.to_pylist()]
    assert layers(data).tolist() == names


def test_scores_leave_out_rows_without_a_measurement_or_a_prediction(data: TrainingSet) -> None:
    power_w = data.measured["power_w"].copy()
    power_w[::2] = np.nan
    thinned = replace(data, measured={**data.measured, "power_w": power_w})
    guess = np.full(len(data), 100.0)
    guess[1] = np.nan
    predicted = {"power_w": {"model": guess}}
    known = np.arange(len(data)) % 2 == 1
    known[1] = False
    expected = score(power_w[known], guess[known])
    assert scores(thinned, predicted) == {"power_w": {"model": expected}}
    nothing = np.zeros(len(data), dtype=bool)
    assert scores(thinned, predicted, nothing) == {}


def test_a_librarys_own_choice_is_predicted_without_its_knobs_too() -> None:
    data = training_set(read_samples(ROOT / "datasets" / "h100_sxm_again.parquet"))
    tree_weight = dict.fromkeys(OUTPUT_OF_TARGET, 0.0)
    model = CostModel(members=1, steps=100, tree_weight=tree_weight).fit_dataset(data)
    predicted = predictions(model, data, data)
    is_library = np.isin(data.column("family"), ["cublas", "cublaslt"])
    is_default = is_library & (data.column("kernel") == "default")
    assert 0 < is_default.sum() < len(data)
    queries = []
    for row in data.take(is_default).table.to_pylist():
        config = KernelConfig(family=row["family"])
        queries.append(encode(gemm_of(row), config, device_of([row])))
    expected = model.predict(np.array(queries, np.float32))
    for target, methods in predicted.items():
        unresolved = methods["unresolved"]
        assert np.isnan(unresolved[~is_default]).all()
        np.testing.assert_allclose(unresolved[is_default], expected[target], rtol=1e-4)
        assert not np.array_equal(unresolved[is_default], methods["model"][is_default])


def test_a_model_without_power_is_scored_on_runtime_alone(cpu_samples: pa.Table) -> None:
    data = training_set(cpu_samples)
    assert set(cross_validated(data, data.shapes, fit, 2)) == {"runtime_us", "tflops"}
