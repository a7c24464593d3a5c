"""The exported file: the model's predictions on every row, in the contract's units and names."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from costmodel.dataset import TrainingSet, devices_of, training_set
from costmodel.model import CostModel
from costmodel.onnx_export import export, export_trees
from costmodel.onnx_session import PARITY_LIMIT, open_session, parity
from gemmcast import Predictor
from gemmcast.arrow import read_samples
from gemmcast.device import Device
from gemmcast.modelfile import PREFILTER_KEY
from gemmcast.query import (
    AT,
    CONTRACT,
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

# (rows, model, file): see conftest.py
Fitted = tuple[TrainingSet, CostModel, bytes]
ROOT = Path(__file__).parents[2]
DATASETS = sorted((ROOT / "datasets").glob("*.parquet"))
FEW_ROWS = 60
"""Of each dataset, at least."""


def _metadata(exported: bytes) -> dict[str, str]:
    entries = onnx.load_model_from_string(exported).metadata_props
    return {entry.key: entry.value for entry in entries}


# parity


def test_the_file_agrees_with_the_model_on_every_row(fitted: Fitted) -> None:
    data, model, exported = fitted
    assert parity(model, open_session(exported), data.queries) <= PARITY_LIMIT


@pytest.fixture(scope="module")
def of_every_dataset() -> tuple[CostModel, bytes]:
    """Fitted briefly on a few hundred rows of all kinds of kernel, device and dtype."""
    few: list[pa.Table] = []
    for path in DATASETS:
        table = read_samples(path)
        every = max(1, len(table) // FEW_ROWS)
        few.append(table.take(np.arange(0, len(table), every)))
    data = training_set(pa.concat_tables(few))
    model = CostModel(steps=1_500).fit_dataset(data)
    return model, export(model, devices_of(data))


@pytest.mark.parametrize("path", DATASETS, ids=lambda path: path.stem)
def test_the_file_agrees_on_every_row_of_every_dataset(
    of_every_dataset: tuple[CostModel, bytes], path: Path
) -> None:
    """Queried with all rows: most are of shapes that the model has not seen."""
    model, exported = of_every_dataset
    data = training_set(read_samples(path))
    assert parity(model, open_session(exported), data.queries) <= PARITY_LIMIT


def _shuffled(queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Queries unlike any that was measured: every field is of another row."""
    rng = np.random.default_rng(2)
    columns = []
    for column in queries.T:
        columns.append(column[rng.integers(0, len(queries), 2000)])
    return np.column_stack(columns)


def test_it_agrees_on_queries_unlike_any_row(fitted: Fitted) -> None:
    data, model, exported = fitted
    queries = _shuffled(data.queries)
    got = open_session(exported).run(list(model.outputs_), {INPUT: queries})
    expected = model.predict(queries)
    for name, values in zip(model.outputs_, got, strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=PARITY_LIMIT, err_msg=name)


def test_the_prefilter_is_near_the_measured_runtime(fitted: Fitted) -> None:
    data, model, exported = fitted
    prefilter = base64.b64decode(_metadata(exported)[PREFILTER_KEY])
    (runtime_us,) = open_session(prefilter).run(None, {INPUT: data.queries})
    assert runtime_us.shape == (len(data),)
    np.testing.assert_allclose(runtime_us, model.prefilter(data.queries), rtol=PARITY_LIMIT)
    error = np.abs(np.log(runtime_us / data.measured["runtime_us"]))
    assert np.median(error) < 0.15


def test_an_embedder_gets_the_predictions_of_the_model(fitted: Fitted, tmp_path: Path) -> None:
    data, model, exported = fitted
    (tmp_path / "model.onnx").write_bytes(exported)
    expected = model.predict(data.queries)
    with Predictor(tmp_path / "model.onnx") as predictor:
        for i in range(0, len(data), 37):
            (row,) = data.table.slice(i, 1).to_pylist()
            gemm, config = gemm_of(row), config_of(row)
            got = predictor.predict(gemm, config, row["device"], cache=row["cache"])
            for name in model.outputs_:
                assert getattr(got, name) == pytest.approx(expected[name][i], rel=1e-5)


# shapes, units and names


def test_every_output_is_one_number_a_row_and_intervals_are_one_an_output(fitted: Fitted) -> None:
    data, model, exported = fitted
    session = open_session(exported)
    names = [output.name for output in session.get_outputs()]
    assert names == [*model.outputs_, *INTERVALS, EXTRAPOLATING]
    for rows in (data.queries[:1], data.queries[:7]):
        *values, low, high, extrapolating = session.run(None, {INPUT: rows})
        for value in values:
            assert value.dtype == np.float32
            assert value.shape == (len(rows),)
        assert low.shape == high.shape == (len(rows), len(model.outputs_))
        assert extrapolating.dtype == bool
        assert extrapolating.shape == (len(rows),)
        assert (low < np.column_stack(values)).all()
        assert (np.column_stack(values) < high).all()


def test_outputs_cannot_contradict_each_other(metered: Fitted) -> None:
    data, _, exported = metered
    values = open_session(exported).run(list(OUTPUTS), {INPUT: data.queries})
    got = dict(zip(OUTPUTS, values, strict=True))
    sizes = data.queries[:, [AT[name] for name in ("m", "n", "k", "batch")]]
    flops = 2 * np.prod(sizes.astype(np.float64), axis=1)
    np.testing.assert_allclose(got["tflops"] * got["runtime_us"] * 1e6, flops, rtol=1e-5)
    energy_mj = got["power_w"] * got["sustained_runtime_us"] * 1e-3
    np.testing.assert_allclose(got["energy_mj"], energy_mj, rtol=1e-5)


def test_opset_and_versions_are_those_of_the_contract(fitted: Fitted) -> None:
    _, model, exported = fitted
    file = onnx.load_model_from_string(exported)
    onnx.checker.check_model(file, full_check=True)
    opsets = [(opset.domain, opset.version) for opset in file.opset_import]
    assert opsets == [("", OPSET), ("ai.onnx.ml", ML_OPSET)]
    assert file.ir_version == IR_VERSION
    trees = [node for node in file.graph.node if node.op_type == "TreeEnsembleRegressor"]
    weights = [model.tree_weight_[target] for target in model.targets_]
    assert len(trees) == sum(weight > 0 for weight in weights)
    assert {node.domain for node in file.graph.node} <= {"", "ai.onnx.ml"}
    (argument,) = file.graph.input
    assert argument.name == INPUT
    assert len(argument.type.tensor_type.shape.dim) == 2


def test_the_metadata_are_all_that_an_embedder_needs(
    fitted: Fitted, cpu: Device, gpu: Device
) -> None:
    data, model, exported = fitted
    metadata = _metadata(exported)
    assert metadata.pop(PREFILTER_KEY)
    assert all(key.startswith("gemmcast.") for key in metadata)
    assert metadata["gemmcast.contract"] == str(CONTRACT)
    assert json.loads(metadata["gemmcast.fields"]) == list(FIELDS)
    assert json.loads(metadata["gemmcast.outputs"]) == list(model.outputs_)
    assert json.loads(metadata["gemmcast.dtypes"]) == DTYPE_CODES
    assert json.loads(metadata["gemmcast.families"]) == FAMILY_CODES
    (device,) = json.loads(metadata["gemmcast.devices"])
    known = cpu if device["kind"] == "cpu" else gpu
    peaks = {dtype: known.peak_tflops[dtype] for dtype in set(data.column("dtype"))}
    assert device == {**asdict(known), "peak_tflops": peaks}


# trees


def _nodes(trees: HistGradientBoostingRegressor) -> npt.NDArray[np.void]:
    """Of all trees, with thresholds in float64."""
    return np.concatenate([predictor.nodes for (predictor,) in trees._predictors])


def _file_nodes(exported: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The attributes of the first trees of a file."""
    nodes = onnx.load_model_from_string(exported).graph.node
    trees = next(node for node in nodes if node.op_type == "TreeEnsembleRegressor")
    values = onnx.helper.get_attribute_value
    return {attribute.name: np.array(values(attribute)) for attribute in trees.attribute}


def test_thresholds_are_rounded_down_to_float32(mixed: Fitted) -> None:
    trees = mixed[1].trees_["runtime"]
    nodes = _nodes(trees)
    is_branch = ~nodes["is_leaf"].astype(bool)
    in_file = _file_nodes(export_trees(trees, trees.n_features_in_))
    assert np.array_equal(in_file["nodes_modes"] == b"BRANCH_LEQ", is_branch)
    exact = nodes["num_threshold"][is_branch]
    stored = in_file["nodes_values"][is_branch].astype(np.float32)
    next_above = np.nextafter(stored, np.float32(np.inf))
    assert (stored.astype(np.float64) <= exact).all()
    assert (next_above.astype(np.float64) > exact).all()
    # the usual rounding would have gone up for some
    assert (stored != exact.astype(np.float32)).any()


def test_values_at_a_threshold_and_beside_it_fall_on_the_right_side() -> None:
    rng = np.random.default_rng(4)
    x = np.exp(rng.uniform(-5, 15, (400, 3))).astype(np.float32)
    trees = HistGradientBoostingRegressor(
        max_iter=30, max_leaf_nodes=15, min_samples_leaf=2, early_stopping=False, random_state=0
    )
    trees.fit(x, np.log(x[:, 0]) - np.sin(x[:, 1]) + rng.standard_normal(400))
    nodes = _nodes(trees)
    thresholds = nodes["num_threshold"][~nodes["is_leaf"].astype(bool)].astype(np.float32)
    above = np.nextafter(thresholds, np.float32(np.inf))
    below = np.nextafter(thresholds, np.float32(-np.inf))
    near = np.concatenate([thresholds, above, below])
    inputs = near[rng.integers(0, len(near), (5000, 3))]
    (got,) = open_session(export_trees(trees, 3)).run(None, {"inputs": inputs})
    np.testing.assert_allclose(got[:, 0], trees.predict(inputs), atol=2e-5)
