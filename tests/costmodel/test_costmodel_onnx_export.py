"""The exported file: the same answers as scikit-learn on every row, in the units and under the names of the contract."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel.dataset import (
    TrainingSet,
    devices_of,
    resolved_default,
    training_set,
    unresolved,
    with_unresolved_copies,
)
from costmodel.evaluate.groups import split
from costmodel.model import KERNEL, MIN_POWER_ROWS, ODD_ROWS, OF_TARGET, CostModel
from costmodel.onnx_export import export
from costmodel.onnx_session import PARITY_LIMIT, open_session, parity
from gemmcast import Predictor
from gemmcast.arrow import read_samples
from gemmcast.device import Device
from gemmcast.modelfile import PREFILTER_KEY
from gemmcast.query import (
    AT,
    CONTRACT,
    COVERAGE,
    DTYPE_CODES,
    EXTRAPOLATING,
    FAMILY_CODES,
    FIELDS,
    INPUT,
    INTERVALS,
    IR_VERSION,
    ML_OPSET,
    OPSET,
    OUTPUTS,
)
from gemmcast.rows import config_of, gemm_of

Fitted = tuple[TrainingSet, CostModel, bytes]
ROOT = Path(__file__).parents[2]
FEW_ROWS = 500


def _fit(table: pa.Table, **settings: Any) -> Fitted:
    data = training_set(table)
    model = CostModel(**settings).fit_dataset(data)
    return data, model, export(model, devices_of(data))


@pytest.fixture(scope="module")
def plain(cpu_samples: pa.Table) -> Fitted:
    return _fit(cpu_samples)


@pytest.fixture(scope="module")
def metered(power_samples: pa.Table) -> Fitted:
    return _fit(power_samples)


@pytest.fixture(scope="module")
def mixed(power_samples: pa.Table) -> Fitted:
    """Networks and trees."""
    return _fit(power_samples, members=1, shares={"runtime": 0.5, "sustained": 0.25, "power": 1.0})


@pytest.fixture(params=["plain", "metered", "mixed"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    found: Fitted = request.getfixturevalue(request.param)
    return found


def _strange(queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Questions that nobody measured: every field of another row."""
    rng = np.random.default_rng(2)
    return np.column_stack([queries[rng.integers(0, len(queries), 2000), i] for i in range(queries.shape[1])])


def test_the_file_agrees_with_scikit_learn_on_every_row(fitted: Fitted) -> None:
    data, model, exported = fitted
    assert parity(model, open_session(exported), data.queries) <= PARITY_LIMIT


@pytest.mark.parametrize("path", sorted((ROOT / "datasets").glob("*.parquet")), ids=lambda path: path.stem)
def test_the_file_agrees_on_every_row_of_every_dataset(path: Path) -> None:
    """Fitted on a few hundred rows, asked about all: most of them are of shapes that it never saw."""
    data = training_set(read_samples(path))
    model = CostModel().fit_dataset(data.take(np.arange(0, len(data), max(1, len(data) // FEW_ROWS))))
    assert parity(model, open_session(export(model, devices_of(data))), data.queries) <= PARITY_LIMIT


def test_it_agrees_on_questions_unlike_any_row(fitted: Fitted) -> None:
    data, model, exported = fitted
    queries = _strange(data.queries)
    got, want = open_session(exported).run(list(model.outputs_), {INPUT: queries}), model.predict(queries)
    for name, values in zip(model.outputs_, got, strict=True):
        np.testing.assert_allclose(values, want[name], rtol=PARITY_LIMIT, err_msg=name)


def test_the_shortlist_graph_says_about_what_the_networks_say(fitted: Fitted) -> None:
    data, model, exported = fitted
    (shortlist,) = (entry.value for entry in onnx.load_from_string(exported).metadata_props if entry.key == PREFILTER_KEY)
    (rough_us,) = open_session(base64.b64decode(shortlist)).run(None, {INPUT: data.queries})
    np.testing.assert_allclose(rough_us, model.rough(data.queries), rtol=PARITY_LIMIT)
    off = np.abs(np.log(rough_us / data.measured["runtime_us"]))
    assert np.median(off) < 0.15 and rough_us.shape == (len(data),)


def test_a_model_of_one_type_of_gpu_doubts_every_question_about_another() -> None:
    h100, h200 = (training_set(read_samples(ROOT / "datasets" / f"{name}_sxm_again.parquet")) for name in ("h100", "h200"))
    model = CostModel(members=1, steps=20, shares={"runtime": 0.0, "sustained": 0.0, "power": 0.0}).fit_dataset(h100)
    assert model.predict(h200.queries)["extrapolating"].all() and not model.predict(h100.queries)["extrapolating"].any()


def test_a_library_can_be_asked_without_knobs() -> None:
    """About its own choice, of shapes that the model has not seen: no worse than with the knobs told, within reason."""
    data = training_set(read_samples(ROOT / "datasets" / "h200_sxm.parquet"))
    training, test = next(split(data.shapes, 5))
    asked = with_unresolved_copies(data.take(test))
    said = CostModel(members=1, shares={"runtime": 0.0, "sustained": 0.0, "power": 0.0}).fit_dataset(data.take(training)).predict(asked.queries)
    off = np.abs(np.log(said["runtime_us"] / asked.measured["runtime_us"]))
    plain = np.arange(len(asked)) >= test.sum()
    chosen = resolved_default(asked) & ~plain
    assert plain.sum() == chosen.sum() > 50 and not said["extrapolating"][plain].any()
    assert np.median(off[plain]) < 2 * np.median(off[chosen]) < 0.3


def test_every_output_is_one_number_a_row_and_intervals_are_one_an_output(fitted: Fitted) -> None:
    data, model, exported = fitted
    session = open_session(exported)
    assert [output.name for output in session.get_outputs()] == [*model.outputs_, *INTERVALS, EXTRAPOLATING]
    for rows in (data.queries[:1], data.queries[:7]):
        *values, low, high, outside = session.run(None, {INPUT: rows})
        assert all(value.dtype == np.float32 and value.shape == (len(rows),) for value in values)
        assert low.shape == high.shape == (len(rows), len(model.outputs_)) and outside.dtype == bool and outside.shape == (len(rows),)
        assert (low < np.column_stack(values)).all() and (np.column_stack(values) < high).all()


def test_outputs_cannot_contradict_each_other(metered: Fitted) -> None:
    data, _, exported = metered
    answers = dict(zip(OUTPUTS, open_session(exported).run(list(OUTPUTS), {INPUT: data.queries}), strict=True))
    flops = 2 * np.prod(data.queries[:, [AT[name] for name in ("m", "n", "k", "batch")]].astype(np.float64), axis=1)
    np.testing.assert_allclose(answers["tflops"] * answers["runtime_us"] * 1e6, flops, rtol=1e-5)
    np.testing.assert_allclose(answers["energy_mj"], answers["power_w"] * answers["sustained_runtime_us"] * 1e-3, rtol=1e-5)


def test_opset_and_versions_are_those_of_the_contract(fitted: Fitted) -> None:
    exported = onnx.load_model_from_string(fitted[2])
    onnx.checker.check_model(exported, full_check=True)
    assert [(opset.domain, opset.version) for opset in exported.opset_import] == [("", OPSET), ("ai.onnx.ml", ML_OPSET)]
    trees = sum(node.op_type == "TreeEnsembleRegressor" for node in exported.graph.node)
    assert trees == sum(fitted[1].shares_[target] > 0 for target in fitted[1].targets_)
    assert exported.ir_version == IR_VERSION
    assert {node.domain for node in exported.graph.node} <= {"", "ai.onnx.ml"}
    assert [(value.name, len(value.type.tensor_type.shape.dim)) for value in exported.graph.input] == [(INPUT, 2)]


def test_the_file_says_all_that_an_embedder_needs(fitted: Fitted, cpu: Device, gpu: Device) -> None:
    data, model, exported = fitted
    said = {entry.key: entry.value for entry in onnx.load_model_from_string(exported).metadata_props}
    assert said.pop(PREFILTER_KEY) and all(key.startswith("gemmcast.") for key in said)
    assert said["gemmcast.contract"] == str(CONTRACT)
    assert json.loads(said["gemmcast.fields"]) == list(FIELDS)
    assert json.loads(said["gemmcast.outputs"]) == list(model.outputs_)
    assert (json.loads(said["gemmcast.dtypes"]), json.loads(said["gemmcast.families"])) == (DTYPE_CODES, FAMILY_CODES)
    (device,) = json.loads(said["gemmcast.devices"])
    known = cpu if device["kind"] == "cpu" else gpu
    peaks = {dtype: known.peak_tflops[dtype] for dtype in set(data.column("dtype"))}
    assert device == {**asdict(known), "peak_tflops": peaks}


def test_an_embedder_gets_what_the_trainer_saw(fitted: Fitted, tmp_path: Path) -> None:
    data, model, exported = fitted
    (tmp_path / "model.onnx").write_bytes(exported)
    want = model.predict(data.queries)
    with Predictor(tmp_path / "model.onnx") as predictor:
        for i in range(0, len(data), 37):
            row: dict[str, Any] = data.table.slice(i, 1).to_pylist()[0]
            answer = predictor.predict(gemm_of(row), config_of(row), row["device"], cache=row["cache"])
            assert {name: getattr(answer, name) for name in model.outputs_} == pytest.approx({n: want[n][i] for n in model.outputs_}, rel=1e-5)


def _branches(exported: bytes, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Modes and thresholds of a target's tree node, in the order of its trees."""
    trees = [node for node in onnx.load_model_from_string(exported).graph.node if node.op_type == "TreeEnsembleRegressor"]
    (node,) = [node for node in trees if node.input[0].startswith(name)] or [trees[0]]
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return np.array(values["nodes_modes"]), np.array(values["nodes_values"])


def test_thresholds_are_rounded_down_to_float32(mixed: Fitted) -> None:
    _, model, exported = mixed
    nodes = np.concatenate([predictor.nodes for (predictor,) in model.trees_["runtime"]._predictors])
    modes, stored = _branches(exported, "runtime")
    branch = ~nodes["is_leaf"].astype(bool)
    assert np.array_equal(modes == b"BRANCH_LEQ", branch)
    exact, stored = nodes["num_threshold"][branch], stored[branch].astype(np.float32)
    assert (stored.astype(np.float64) <= exact).all()
    assert (np.nextafter(stored, np.float32(np.inf)).astype(np.float64) > exact).all()
    assert (stored.astype(np.float64) < exact).any() and (stored != exact.astype(np.float32)).any()  # some would have been rounded up


def test_values_at_a_threshold_and_beside_it_fall_on_the_right_side() -> None:
    rng = np.random.default_rng(4)
    x = np.exp(rng.uniform(-5, 15, (400, 3))).astype(np.float32)
    trees = HistGradientBoostingRegressor(max_iter=30, max_leaf_nodes=15, min_samples_leaf=2, early_stopping=False, random_state=0)
    trees.fit(x, np.log(x[:, 0]) - np.sin(x[:, 1]) + rng.standard_normal(400))
    nodes = np.concatenate([predictor.nodes for (predictor,) in trees._predictors])
    thresholds = nodes["num_threshold"][~nodes["is_leaf"].astype(bool)].astype(np.float32)
    near = np.concatenate([thresholds, np.nextafter(thresholds, np.float32(np.inf)), np.nextafter(thresholds, np.float32(-np.inf))])
    asked = near[rng.integers(0, len(near), (5000, 3))]
    model = to_onnx(trees, initial_types=[("x", FloatTensorType([None, 3]))], target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET})
    (got,) = open_session(model.SerializeToString()).run(None, {"x": asked})
    np.testing.assert_allclose(got[:, 0], trees.predict(asked), atol=2e-5)


# the model itself


def test_a_model_that_was_hardly_shown_power_has_none(power_samples: pa.Table) -> None:
    data = training_set(power_samples)
    for known, outputs in ((MIN_POWER_ROWS - 1, OUTPUTS[:2]), (MIN_POWER_ROWS, OUTPUTS)):
        measured = {name: values.copy() for name, values in data.measured.items()}
        for name in ("power_w", "sustained_runtime_us", "energy_mj"):
            measured[name][known:] = np.nan
        model = CostModel(members=1, iterations=5).fit(data.queries, measured)
        assert model.outputs_ == outputs
        assert not any(np.isnan(values).any() for values in model.predict(data.queries).values())


def test_rows_without_power_still_teach_runtime(power_samples: pa.Table) -> None:
    data = training_set(power_samples)
    measured = {name: values.copy() for name, values in data.measured.items()}
    whole = CostModel(members=1).fit(data.queries, measured).predict(data.queries)["runtime_us"]
    for name in ("power_w", "sustained_runtime_us", "energy_mj"):
        measured[name][100:] = np.nan
    np.testing.assert_allclose(CostModel(members=1).fit(data.queries, measured).predict(data.queries)["runtime_us"], whole, rtol=1e-6)


def test_the_same_rows_give_the_same_model(cpu_samples: pa.Table, plain: Fitted) -> None:
    again = CostModel().fit_dataset(training_set(cpu_samples)).predict(plain[0].queries)
    assert all(np.array_equal(values, again[name]) for name, values in plain[1].predict(plain[0].queries).items())


def test_intervals_hold_for_shapes_that_were_not_seen(power_samples: pa.Table) -> None:
    """Calibrated on some unseen shapes, tried on others."""
    data = training_set(power_samples)
    (training, other), *_ = split(data.shapes, 2)
    unseen = data.take(other)
    (first, second), *_ = split(unseen.shapes, 2)
    model = CostModel(members=2).fit_dataset(data.take(training)).calibrate(unseen.take(first))
    asked = unseen.take(second)
    said = model.predict(asked.queries)
    within = (said["low"] <= np.column_stack([asked.measured[name] for name in model.outputs_])) & (
        np.column_stack([asked.measured[name] for name in model.outputs_]) <= said["high"]
    )
    assert ((within.mean(axis=0) > 0.8) & (within.mean(axis=0) < 0.98)).all()


def test_a_question_without_knobs_has_intervals_of_its_own() -> None:
    """Nine of ten within on the rows they were calibrated on, asked with knobs or without, and wider without."""
    data = training_set(read_samples(ROOT / "datasets" / "h100_demo.parquet"))
    model = CostModel(members=1, steps=300, shares=dict.fromkeys(OF_TARGET, 0.0)).fit_dataset(data)
    own = data.take(resolved_default(data))
    with_knobs, without = (model.predict(queries) for queries in (own.queries, unresolved(own)))
    for said in (with_knobs, without):
        within = (said["low"][:, 0] <= own.measured["runtime_us"]) & (own.measured["runtime_us"] <= said["high"][:, 0])
        assert within.mean() == pytest.approx(COVERAGE, abs=0.01)
    assert np.median(without["high"][:, 0] / without["runtime_us"]) > np.median(with_knobs["high"][:, 0] / with_knobs["runtime_us"])


def test_a_kernel_that_is_odd_is_corrected_and_no_other() -> None:
    """One that takes three times as long as the networks, which were hardly fitted, can have learned from its few rows."""
    data = training_set(read_samples(ROOT / "datasets" / "h100_demo.parquet"))
    named = data.queries[:, AT["algorithm"]] > 0
    kernel_of = data.queries[:, [AT[name] for name in KERNEL]]
    kernels, counts = np.unique(kernel_of[named], axis=0, return_counts=True)
    odd = (kernel_of == kernels[counts.argmax()]).all(axis=1)
    runtime_us = np.where(odd, 3, 1) * data.measured["runtime_us"]
    model = CostModel(members=1, steps=300, shares=dict.fromkeys(OF_TARGET, 0.0)).fit(data.queries, data.measured | {"runtime_us": runtime_us})
    said = model.predict(data.queries)["runtime_us"]
    assert odd.sum() >= ODD_ROWS and np.median(said[odd] / runtime_us[odd]) == pytest.approx(1, rel=0.01)
    assert parity(model, open_session(export(model, devices_of(data))), data.queries) <= PARITY_LIMIT
    corrected = (kernel_of[:, None] == model.odd_).all(axis=2).any(axis=1)
    model.odd_, model.off_ = model.odd_[:0], []
    np.testing.assert_array_equal(model.predict(data.queries)["runtime_us"] != said, corrected)


@pytest.mark.parametrize(
    ("change", "outside"),
    [
        ({}, False), ({"m": 1.3}, False), ({"m": 4}, True), ({"n": 4}, True), ({"k": 4}, True), ({"batch": 16}, True),
        ({"dtype": DTYPE_CODES["bf16"]}, True), ({"family": FAMILY_CODES["custom"]}, True), ({"algorithm": 66}, True), ({"peak_tflops": 0.02}, True),
    ],
)  # fmt: skip
def test_a_question_outside_of_what_was_seen_is_marked(metered: Fitted, change: dict[str, float], outside: bool) -> None:
    data, model, exported = metered
    (name, value), *_ = (*change.items(), ("m", 1))
    row = data.queries[[np.argmax(data.queries[:, AT[name]])]]
    row[:, AT[name]] = value if name in ("dtype", "family", "algorithm") else value * row[:, AT[name]]
    assert open_session(exported).run([EXTRAPOLATING], {INPUT: row})[0].tolist() == model.predict(row)[EXTRAPOLATING].tolist() == [outside]


def test_nothing_that_was_taught_is_outside(fitted: Fitted) -> None:
    data, model, _ = fitted
    assert not model.predict(data.queries)[EXTRAPOLATING].any()


def test_power_without_a_sustained_runtime_teaches_power_alone(power_samples: pa.Table) -> None:
    """Other people's tables have no sustained runtime."""
    data = training_set(power_samples)
    measured = {name: values for name, values in data.measured.items() if name not in ("sustained_runtime_us", "energy_mj")}
    model = CostModel(members=1, iterations=5).fit(data.queries, measured)
    assert model.outputs_ == ("runtime_us", "tflops", "power_w") == tuple(model.predict(data.queries))[:3]
    session = open_session(export(model, devices_of(data)))
    got = dict(zip(model.outputs_, session.run(list(model.outputs_), {INPUT: data.queries}), strict=True))
    want = model.predict(data.queries)
    for name, values in got.items():
        np.testing.assert_allclose(values, want[name], rtol=1e-5)
