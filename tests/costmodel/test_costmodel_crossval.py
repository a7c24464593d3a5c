"""Grouped cross-validation: nobody answers a row of a group that it was fitted on, and every row is answered once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from coordinator.samples.importer import read_outside
from costmodel.dataset import TARGETS, Dataset, dataset
from costmodel.evaluate import crossval as validation
from costmodel.evaluate.metrics import score
from costmodel.model import OF_TARGET, CostModel
from gemmcast.config import KernelConfig
from gemmcast.query import encode
from gemmcast.rows import device_of, gemm_of

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would only take longer."""
    monkeypatch.setattr("costmodel.evaluate.crossval.CostModel", partial(CostModel, members=1))


@pytest.fixture(scope="module")
def data(power_samples: pa.Table) -> Dataset:
    return dataset(power_samples)


def test_folds_share_no_group_and_cover_all_rows(data: Dataset) -> None:
    answered = np.zeros(len(data), dtype=int)
    sizes = []
    for training, test in validation.split(data.shapes, 5):
        assert not set(data.shapes[training]) & set(data.shapes[test])
        assert (training != test).all()
        answered += test
        sizes.append(len(set(data.shapes[test])))
    assert (answered == 1).all()
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(set(data.shapes))


def test_the_split_knows_names_alone(data: Dataset) -> None:
    order = np.random.default_rng(3).permutation(len(data))
    for (_, one), (_, other) in zip(validation.split(data.shapes, 4), validation.split(data.shapes[order], 4), strict=True):
        assert np.array_equal(one[order], other)


def test_every_row_is_answered_by_every_method_and_told_fold_by_fold(data: Dataset) -> None:
    told: list[tuple[int, int]] = []
    predicted = validation.cross_validated(data, data.shapes, 3, lambda *of: told.append(of))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert set(predicted) == set(TARGETS)
    for methods in predicted.values():
        assert set(methods) == {"model", "low", "high", "lookup", "roofline", "paper_forest"}
        assert not any(np.isnan(values).any() for values in methods.values())


def test_an_answer_is_of_models_that_never_saw_the_group(data: Dataset) -> None:
    """What was measured for one shape is made a hundred times as long: its own answers must not know."""
    strange = data.shapes == data.shapes[0]
    changed = {name: np.where(strange, 100 * values, values) for name, values in data.measured.items()}
    before, after = (
        validation.cross_validated(Dataset(data.table, data.queries, measured, data.shapes), data.shapes, 3)["runtime_us"]["model"]
        for measured in (data.measured, changed)
    )
    assert np.array_equal(before[strange], after[strange])
    assert not np.array_equal(before[~strange], after[~strange])


def test_coverage_counts_what_lies_between(data: Dataset) -> None:
    power_w = data.measured["power_w"].copy()
    power_w[::2] = np.nan
    low, high = data.measured["power_w"] - 1, data.measured["power_w"] + 1
    low[1] = high[1] = data.measured["power_w"][1] + 5
    thinned = Dataset(data.table, data.queries, {**data.measured, "power_w": power_w}, data.shapes)
    known = len(data) // 2
    assert validation.coverage(thinned, {"power_w": {"low": low, "high": high}}) == {"power_w": pytest.approx(100 * (known - 1) / known)}


def test_layers_are_named_by_n_and_k_alone(data: Dataset) -> None:
    rows = data.table.to_pylist()
    assert validation.layers(data).tolist() == [f"{row['n']}x{row['k']}" for row in rows]


def test_scores_leave_out_what_was_not_read_or_has_no_answer(data: Dataset) -> None:
    measured = {name: values.copy() for name, values in data.measured.items()}
    measured["power_w"][::2] = np.nan
    thinned = Dataset(data.table, data.queries, measured, data.shapes)
    guess = np.full(len(data), 100.0)
    guess[1] = np.nan
    found = validation.scores(thinned, {"power_w": {"model": guess}})
    known = np.arange(len(data)) % 2 == 1
    known[1] = False
    assert found == {"power_w": {"model": score(measured["power_w"][known], guess[known])}}
    assert validation.scores(thinned, {"power_w": {"model": guess}}, np.zeros(len(data), dtype=bool)) == {}


def test_what_a_library_chose_itself_is_asked_without_its_knobs_too() -> None:
    data = dataset(read_outside(ROOT / "datasets" / "h100_sxm_again.parquet"))
    model = CostModel(members=1, steps=100, shares=dict.fromkeys(OF_TARGET, 0.0)).fit_dataset(data)
    found = validation.asked(model, data, data)
    own = np.isin(data.column("family"), ["cublas", "cublaslt"]) & (data.column("kernel") == "default")
    assert 0 < own.sum() < len(data)
    plain = [encode(gemm_of(row), KernelConfig(family=row["family"]), device_of([row])) for row in data.take(own).table.to_pylist()]
    said = model.predict(np.array(plain, np.float32))
    for target, methods in found.items():
        assert np.isnan(methods["unresolved"][~own]).all()
        np.testing.assert_allclose(methods["unresolved"][own], said[target], rtol=1e-4)
        assert not np.array_equal(methods["unresolved"][own], methods["model"][own])


def test_a_model_that_has_no_power_is_scored_on_runtime_alone(cpu_samples: pa.Table) -> None:
    data = dataset(cpu_samples)
    assert set(validation.cross_validated(data, data.shapes, 2)) == {"runtime_us", "tflops"}
