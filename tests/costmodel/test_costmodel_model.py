"""The model: which outputs it has, that it is reproducible, its intervals, and what is outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from costmodel.dataset import (
    TrainingSet,
    devices_of,
    resolved_default,
    training_set,
    unresolved,
    with_unresolved_copies,
)
from costmodel.evaluate.groups import split
from costmodel.model import CostModel
from costmodel.onnx_export import export
from costmodel.onnx_session import open_session
from costmodel.outputs import MIN_POWER_ROWS, OUTPUT_OF_TARGET
from costmodel.parts import FOLDS, HELD_OUT, MIN_LAYERS, parts
from gemmcast.arrow import read_samples
from gemmcast.query import (
    AT,
    COVERAGE,
    DTYPE_CODES,
    EXTRAPOLATING,
    FAMILY_CODES,
    FIELDS,
    INPUT,
    OUTPUTS,
)

# (rows, model, file): see conftest.py
Fitted = tuple[TrainingSet, CostModel, bytes]
DATASETS = Path(__file__).parents[2] / "datasets"
NO_TREES = dict.fromkeys(OUTPUT_OF_TARGET, 0.0)
POWER_OUTPUTS = ("power_w", "sustained_runtime_us", "energy_mj")
CODES = ("dtype", "family", "algorithm")


def _recorded(name: str) -> TrainingSet:
    return training_set(read_samples(DATASETS / f"{name}.parquet"))


def _without_power(data: TrainingSet, first: int) -> dict[str, npt.NDArray[np.float64]]:
    """The measurements, of power only in the rows before `first`."""
    measured = {name: values.copy() for name, values in data.measured.items()}
    for name in POWER_OUTPUTS:
        measured[name][first:] = np.nan
    return measured


# outputs


@pytest.mark.parametrize(
    ("rows", "outputs"), [(MIN_POWER_ROWS - 1, OUTPUTS[:2]), (MIN_POWER_ROWS, OUTPUTS)]
)
def test_power_needs_enough_rows(
    power_samples: pa.Table, rows: int, outputs: tuple[str, ...]
) -> None:
    data = training_set(power_samples)
    model = CostModel(members=1, steps=300, iterations=5).fit(
        data.queries, _without_power(data, rows)
    )
    assert model.outputs_ == outputs
    for values in model.predict(data.queries).values():
        assert not np.isnan(values).any()


def test_rows_without_power_still_count_for_runtime(power_samples: pa.Table) -> None:
    data = training_set(power_samples)
    brief = {"members": 1, "steps": 300, "iterations": 10}
    whole = CostModel(**brief).fit(data.queries, data.measured)
    part = CostModel(**brief).fit(data.queries, _without_power(data, 100))
    expected = whole.predict(data.queries)["runtime_us"]
    np.testing.assert_allclose(part.predict(data.queries)["runtime_us"], expected, rtol=1e-6)


def test_power_without_a_sustained_runtime_is_fitted_alone(power_samples: pa.Table) -> None:
    """Tables of other programs have no sustained runtime."""
    data = training_set(power_samples)
    measured = dict(data.measured)
    del measured["sustained_runtime_us"], measured["energy_mj"]
    model = CostModel(members=1, steps=300, iterations=5).fit(data.queries, measured)
    expected = model.predict(data.queries)
    assert model.outputs_ == ("runtime_us", "tflops", "power_w") == tuple(expected)[:3]
    session = open_session(export(model, devices_of(data)))
    got = session.run(list(model.outputs_), {INPUT: data.queries})
    for name, values in zip(model.outputs_, got, strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)


def test_the_same_rows_give_the_same_model(cpu_samples: pa.Table) -> None:
    predicted = []
    for _ in range(2):
        data = training_set(cpu_samples)
        model = CostModel(members=2, steps=300, iterations=20).fit_dataset(data)
        predicted.append(model.predict(data.queries))
    one, other = predicted
    for name, values in one.items():
        assert np.array_equal(values, other[name])


def test_a_default_can_be_predicted_without_knobs() -> None:
    """For new shapes, the error without knobs is below twice the error with knobs."""
    data = _recorded("h200_sxm")
    is_training, is_test = next(split(data.shapes, 5))
    test = with_unresolved_copies(data.take(is_test))
    model = CostModel(members=1, steps=2_000, tree_weight=NO_TREES)
    model.fit_dataset(data.take(is_training))
    predicted = model.predict(test.queries)
    error = np.abs(np.log(predicted["runtime_us"] / test.measured["runtime_us"]))
    is_copy = np.arange(len(test)) >= is_test.sum()
    is_resolved = resolved_default(test) & ~is_copy
    assert is_copy.sum() == is_resolved.sum() > 50
    assert predicted[EXTRAPOLATING][is_copy].mean() < 0.05
    assert np.median(error[is_copy]) < 2 * np.median(error[is_resolved]) < 0.3


# networks and trees


def test_trees_are_taken_where_they_are_better() -> None:
    """A table of few columns: a runtime that networks predict better, a power full of steps."""
    data = _recorded("h100_demo")
    data = data.take(data.column("family") == "cublas")
    exponents = np.floor(np.log2(data.queries[:, [AT["m"], AT["n"]]])).sum(axis=1)
    measured = {
        "runtime_us": data.measured["runtime_us"],
        "power_w": np.where(exponents % 2 == 0, 150.0, 400.0),
    }
    model = CostModel(members=1, steps=300).fit(unresolved(data), measured)
    assert model.tree_weight_["power"] == 1
    assert set(model.trees_) >= {"power"}
    errors = np.abs(model.predict(unresolved(data))["power_w"] / measured["power_w"] - 1)
    assert np.mean(errors) < 0.03


# intervals


def test_intervals_hold_for_new_shapes(power_samples: pa.Table) -> None:
    data = training_set(power_samples)
    is_training, is_test = next(split(data.shapes, 2))
    model = CostModel(members=2).fit_dataset(data.take(is_training))
    test = data.take(is_test)
    predicted = model.predict(test.queries)
    measured = np.column_stack([test.measured[name] for name in model.outputs_])
    is_within = (predicted["low"] <= measured) & (measured <= predicted["high"])
    shares = is_within.mean(axis=0)
    assert (shares > 0.8).all()
    assert (shares < 1).all()


def test_a_query_without_knobs_has_intervals_of_its_own() -> None:
    """Nine of ten rows are within, with knobs or without; without knobs intervals are wider."""
    data = _recorded("h100_demo")
    model = CostModel(members=1, steps=300, tree_weight=NO_TREES).fit_dataset(data)
    defaults = data.take(resolved_default(data))
    runtime_us = defaults.measured["runtime_us"]
    widths = []
    for queries in (defaults.queries, unresolved(defaults)):
        predicted = model.predict(queries)
        low, high = predicted["low"][:, 0], predicted["high"][:, 0]
        is_within = (low <= runtime_us) & (runtime_us <= high)
        assert COVERAGE - 0.05 < is_within.mean() < 1
        widths.append(np.median(high / predicted["runtime_us"]))
    with_knobs, without_knobs = widths
    assert without_knobs > with_knobs


@pytest.mark.parametrize(
    ("layers", "of"), [(40, ("n", "k")), (MIN_LAYERS - 1, ("m", "n", "k")), (1, ("m", "n", "k"))]
)
def test_intervals_come_from_whole_layers(layers: int, of: tuple[str, ...]) -> None:
    """From whole shapes where there are few layers; a fifth of them, in parts of equal size."""
    queries = np.ones((30 * layers, len(FIELDS)), dtype=np.float32)
    queries[:, AT["n"]] = np.arange(len(queries)) % layers
    queries[:, AT["m"]] = np.arange(len(queries)) // (2 * layers)
    numbers = parts(queries)
    names = queries[:, [AT[field] for field in of]]
    groups = np.unique(np.column_stack([names, numbers]), axis=0)
    count = len(np.unique(names, axis=0))
    assert len(groups) == count
    in_part = [int(np.sum(groups[:, -1] == part)) for part in range(FOLDS)]
    assert sum(in_part) == round(HELD_OUT * count)
    assert max(in_part) - min(in_part) <= 1


def test_rows_of_one_shape_are_held_out_one_by_one() -> None:
    is_held_out = parts(np.ones((40, len(FIELDS)), dtype=np.float32)) < FOLDS
    assert is_held_out.sum() == round(HELD_OUT * 40)


# outside of the training rows


@pytest.mark.parametrize(
    ("change", "outside"),
    [
        ({}, False),
        ({"m": 1.3}, False),
        ({"m": 4}, True),
        ({"n": 4}, True),
        ({"k": 4}, True),
        ({"batch": 16}, True),
        ({"dtype": DTYPE_CODES["bf16"]}, True),
        ({"family": FAMILY_CODES["custom"]}, True),
        ({"algorithm": 66}, True),
        ({"peak_tflops": 0.02}, True),
    ],
)
def test_a_query_outside_of_the_training_rows_is_flagged(
    metered: Fitted, change: dict[str, float], outside: bool
) -> None:
    """Codes are replaced, sizes multiplied, in the row with the largest value."""
    data, model, exported = metered
    (name, value), *_ = (*change.items(), ("m", 1))
    row = data.queries[[np.argmax(data.queries[:, AT[name]])]]
    row[:, AT[name]] = value if name in CODES else value * row[:, AT[name]]
    (in_file,) = open_session(exported).run([EXTRAPOLATING], {INPUT: row})
    assert in_file.tolist() == [outside]
    assert model.predict(row)[EXTRAPOLATING].tolist() == [outside]


def test_no_training_row_is_outside(fitted: Fitted) -> None:
    data, model, _ = fitted
    assert not model.predict(data.queries)[EXTRAPOLATING].any()


def test_a_model_of_one_type_of_gpu_flags_every_query_about_another() -> None:
    h100, h200 = _recorded("h100_sxm_again"), _recorded("h200_sxm_again")
    model = CostModel(members=1, steps=20, tree_weight=NO_TREES).fit_dataset(h100)
    assert model.predict(h200.queries)[EXTRAPOLATING].all()
    assert not model.predict(h100.queries)[EXTRAPOLATING].any()
