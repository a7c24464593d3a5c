"""The further splits of a card: no tested row was trained on.

A split that the data do not allow has no entry.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from costmodel.dataset import TARGETS, Mask, TrainingSet, training_set
from costmodel.evaluate import generalisation as module
from costmodel.evaluate.crossval import scores_by
from costmodel.evaluate.generalisation import (
    KNOWN_SAMPLES,
    Split,
    generalisation,
    splits,
)
from costmodel.evaluate.groups import (
    BEYOND_LIST,
    FOLDS,
    ON_LIST,
    kernels,
    kinds,
    layer_algorithms,
    layers,
    sizes,
    split,
)
from costmodel.evaluate.metrics import to_json
from costmodel.evaluate.ranking import CONFIG
from costmodel.model import CostModel
from gemmcast.arrow import read_samples
from gemmcast.score_table import summary_rows

RECORDED = Path(__file__).parents[2] / "datasets" / "h100_demo.parquet"
NO_TREES = {"runtime": 0.0, "sustained": 0.0, "power": 0.0}
LARGE, SMALL = "device Paper GPU 80GB", "device Paper GPU 40GB"
MORE = f" + {KNOWN_SAMPLES} samples"


@pytest.fixture(autouse=True)
def _few_rows_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_DEVICE_ROWS", 240)


@pytest.fixture(scope="module")
def recorded() -> TrainingSet:
    """Every fifth shape of the recorded H100: four tiles of one family, and cuBLAS."""
    data = training_set(read_samples(RECORDED))
    few = sorted(set(data.shapes))[::5]
    return data.take(np.isin(data.shapes.astype(str), few))


@pytest.fixture(scope="module")
def two_devices(power_samples: pa.Table) -> TrainingSet:
    """The same cells on a second device, half as fast."""
    rows = power_samples.to_pylist()
    for row in rows:
        row["device"] = "Paper GPU 40GB"
        row["peak_tflops"] /= 2
        row["runtime_us"] *= 2
    other = pa.Table.from_pylist(rows, schema=power_samples.schema)
    return training_set(pa.concat_tables([power_samples, other]))


def _splits(data: TrainingSet) -> dict[str, Split]:
    return {part.name: part for part in splits(data)}


def _device_splits(data: TrainingSet) -> set[str]:
    return {name for name in _splits(data) if name.startswith("device")}


def _fit(training: TrainingSet) -> CostModel:
    return CostModel(members=1, steps=1_000, tree_weight=NO_TREES).fit_dataset(training)


def test_no_row_is_tested_that_was_trained_on(
    recorded: TrainingSet, two_devices: TrainingSet
) -> None:
    for data in (recorded, two_devices):
        for part in splits(data):
            assert part.test.any() and part.training.any()
            assert not (part.test & part.training).any()


def test_a_new_layer_has_no_row_in_training(recorded: TrainingSet) -> None:
    part = _splits(recorded)["layer"]
    groups = layers(recorded)
    tested = set(groups[part.test])
    assert not set(groups[part.training]) & tested
    assert len(tested) == -(-len(set(groups)) // FOLDS)
    assert (part.training | part.test).all()


def test_a_new_kernel_shares_no_configuration_but_its_family(recorded: TrainingSet) -> None:
    part = _splits(recorded)["member"]
    configs = np.array(recorded.keys(*CONFIG), dtype=object)
    trained = {tuple(config) for config in configs[part.training]}
    tested = {tuple(config) for config in configs[part.test]}
    assert not trained & tested
    assert {family for family, *_ in tested} == {"tiled"}
    assert {family for family, *_ in trained} > {"tiled"}
    tiled_rows = (recorded.column("family") == "tiled").sum()
    assert part.test.sum() == tiled_rows / 4


def test_a_new_layer_and_algorithm_were_seen_apart(recorded: TrainingSet) -> None:
    """The pair is new at every m; most layers and algorithms are in training with others."""
    part = _splits(recorded)["layer-algorithm"]
    columns = ("n", "k", "family", "tile_m", "tile_n", "tile_k", "algo_id")
    pairs = recorded.keys(*columns)
    tested = [pairs[row] for row in np.flatnonzero(part.test)]
    trained = [pairs[row] for row in np.flatnonzero(part.training)]
    assert not set(tested) & set(trained)
    for of_pair in (lambda pair: pair[:2], lambda pair: pair[2:]):
        known = set(map(of_pair, trained))
        assert np.mean([of_pair(pair) in known for pair in tested]) > 0.9


def test_an_algorithm_that_a_library_chose_is_the_one_that_a_plan_names(
    power_samples: pa.Table,
) -> None:
    """Its place in a list depends on m; without a number and a tile it is unknown."""
    rows = power_samples.slice(0, 5).to_pylist()
    same = {"family": "cublaslt", "n": 64, "k": 32, "algo_id": 66}
    same |= {"tile_m": 64, "tile_n": 64, "tile_k": 32}
    for row, kernel in zip(rows, ("default", "heuristic-2", "enumerated-9"), strict=False):
        row |= same | {"kernel": kernel}
    rows[3] |= same | {"kernel": "default", "algo_id": 21}
    unknown = {"algo_id": 0, "tile_m": 0, "tile_n": 0, "tile_k": 0}
    rows[4] |= same | unknown | {"family": "cublas", "kernel": ""}
    data = training_set(pa.Table.from_pylist(rows, schema=power_samples.schema))
    one, two, three, other, none = layer_algorithms(data)
    assert one == two == three != other
    assert none is None
    assert kinds(data).tolist() == [ON_LIST, ON_LIST, BEYOND_LIST, ON_LIST, "cublas"]


def test_kernels_are_dealt_out_family_by_family(recorded: TrainingSet) -> None:
    names, families = kernels(recorded), recorded.column("family")
    assert set(names[families == "cublas"]) == {None}
    assert len(set(names[families == "tiled"])) == 4
    times_tested = np.zeros(len(recorded), dtype=int)
    for is_training, is_test in split(names, FOLDS, within=families):
        assert (is_training != is_test).all()
        times_tested += is_test
    assert times_tested.tolist() == (families == "tiled").astype(int).tolist()


def test_every_fold_has_a_part_of_each_larger_group() -> None:
    groups = np.array([f"{family}{i}" for family in "ab" for i in range(10)], dtype=object)
    within = np.array(["a"] * 10 + ["b"] * 10)
    for _, is_test in split(groups, FOLDS, within):
        assert (is_test[:10].sum(), is_test[10:].sum()) == (2, 2)


def test_kernels_keep_their_folds_under_their_new_names(power_samples: pa.Table) -> None:
    """Folds are dealt by a hash of the names of schema 1."""
    rows = power_samples.slice(0, 3).to_pylist()
    for i, row in enumerate(rows):
        row |= {"family": "cublaslt", "kernel": f"enumerated-{i}", "algo_id": 6}
    names = kernels(training_set(pa.Table.from_pylist(rows, schema=power_samples.schema)))
    assert [name.split()[:2] for name in names] == [["cublaslt", f"beyond-{i}"] for i in range(3)]


def test_devices_are_left_out_only_where_there_are_two(
    recorded: TrainingSet, two_devices: TrainingSet
) -> None:
    assert set(_splits(recorded)) == {"layer", "layer-algorithm", "member"}
    both = {LARGE, LARGE + MORE, SMALL, SMALL + MORE}
    assert _device_splits(two_devices) == both

    # one row less of the second
    fewer = two_devices.take(np.arange(len(two_devices) - 1))
    assert _device_splits(fewer) == {LARGE, LARGE + MORE}


def _known(data: TrainingSet) -> tuple[Mask, Split]:
    """Which rows of the smaller device are known beforehand, and the split with them."""
    by_name = _splits(data)
    without, with_known = by_name[SMALL], by_name[SMALL + MORE]
    assert (without.test == with_known.test).all()
    return with_known.training & ~without.training, with_known


def test_what_is_known_of_a_device_is_spread_over_other_shapes(two_devices: TrainingSet) -> None:
    devices = two_devices.column("device")
    without = _splits(two_devices)[SMALL]
    assert set(devices[without.training]) == {"Paper GPU 80GB"}
    assert set(devices[without.test]) == {"Paper GPU 40GB"}
    known, with_known = _known(two_devices)
    assert known.sum() == KNOWN_SAMPLES
    assert set(devices[known]) == {"Paper GPU 40GB"}
    tested = set(two_devices.shapes[with_known.test])
    assert not set(two_devices.shapes[known]) & tested
    per_shape = Counter(two_devices.shapes[known])
    assert max(per_shape.values()) - min(per_shape.values()) <= 1


def test_of_what_is_known_of_a_device_rows_with_power_come_first(
    two_devices: TrainingSet,
) -> None:
    power_w = np.where(np.arange(len(two_devices)) % 3 == 0, 300.0, np.nan)
    measured = two_devices.measured | {"power_w": power_w}
    data = replace(two_devices, measured=measured)
    known, part = _known(data)
    has_power = ~np.isnan(power_w)
    candidates = (data.column("device") == "Paper GPU 40GB") & ~part.test & has_power
    assert known.sum() == KNOWN_SAMPLES
    assert (known & has_power).sum() == min(KNOWN_SAMPLES, candidates.sum()) > 0


def test_the_choice_does_not_depend_on_the_order_of_the_rows(two_devices: TrainingSet) -> None:
    order = np.random.default_rng(1).permutation(len(two_devices))
    in_order = _splits(two_devices)
    shuffled = _splits(two_devices.take(order))
    assert set(in_order) == set(shuffled)
    for name, part in in_order.items():
        assert (part.training[order] == shuffled[name].training).all()
        assert (part.test[order] == shuffled[name].test).all()


@pytest.mark.parametrize(
    ("limit", "value", "left"),
    [
        ("MIN_LAYERS", 1000, {"member"}),
        ("MIN_MEMBERS", 5, {"layer", "layer-algorithm"}),
        ("MIN_TEST", 10_000, set()),
        ("MIN_TRAINING", 10_000, set()),
    ],
)
def test_a_split_that_the_data_do_not_allow_has_no_entry(
    recorded: TrainingSet,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    left: set[str],
) -> None:
    assert set(_splits(recorded)) == {"layer", "layer-algorithm", "member"}
    monkeypatch.setattr(module, limit, value)
    assert set(_splits(recorded)) == left


def test_every_split_is_scored_beside_the_baselines(recorded: TrainingSet) -> None:
    by_split = generalisation(recorded, _fit)
    assert set(by_split) == {"layer", "layer-algorithm", "member"}
    for part in by_split.values():
        assert {"runtime_us", "tflops"} <= set(part.scores) <= set(TARGETS)
        for methods in part.scores.values():
            assert list(methods) == ["model", "lookup", "roofline"]
        runtime = part.scores["runtime_us"]
        assert runtime["model"].rows == part.test_rows
        assert runtime["model"].mape is not None and runtime["roofline"].mape is not None
        assert runtime["model"].mape < runtime["roofline"].mape
        assert runtime["model"].within is not None and runtime["model"].within > 50
        by_kind = [table["runtime_us"]["model"].rows for table in part.kinds.values()]
        assert sum(by_kind) == part.test_rows
    plain = {name: part.to_json() for name, part in by_split.items()}
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain["layer"]) == {"split", "train_rows", "test_rows", "scores", "kinds"}
    tables = {name: to_json(part.scores) for name, part in by_split.items()}
    assert [row[0] for row in summary_rows(tables)] == ["layer", "layer-algorithm", "member"]


def test_sizes_are_decades_of_flops(recorded: TrainingSet) -> None:
    names = sizes(recorded)
    for name, (m, n, k, batch) in zip(names, recorded.keys("m", "n", "k", "batch"), strict=True):
        flops = 2.0 * m * n * k * batch
        assert float(name) <= flops < 10 * float(name)
    predicted = {"runtime_us": {"model": recorded.measured["runtime_us"]}}
    tables = scores_by(recorded, predicted, names)
    assert list(tables) == sorted(tables, key=float)
    rows = [table["runtime_us"]["model"].rows for table in tables.values()]
    assert sum(rows) == len(recorded)
