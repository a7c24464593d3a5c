"""The further splits of a card: what is asked was never trained on, and where the data can't be asked there is no entry."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from costmodel.dataset import TARGETS, Dataset, dataset
from costmodel.evaluate import generalisation as module
from costmodel.evaluate.crossval import FOLDS, layers, members, scores_by, sizes, split
from costmodel.evaluate.generalisation import KNOWN, Part, parts, unseen
from costmodel.evaluate.ranking import CONFIG
from gemmcast.arrow import conform
from gemmcast.score_table import summary_rows

RECORDED = Path(__file__).parents[2] / "datasets" / "h100_demo.parquet"
SHARES = {"runtime": 0.0, "sustained": 0.0, "power": 0.0}


@pytest.fixture(autouse=True)
def _few_rows_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_DEVICE_ROWS", 240)


@pytest.fixture(scope="module")
def recorded() -> Dataset:
    """Every fifth shape of the recorded H100: four tiles of one family, and cuBLAS."""
    data = dataset(conform(pq.read_table(RECORDED), str(RECORDED)))
    return data.take(np.isin(data.shapes.astype(str), sorted(set(data.shapes))[::5]))


@pytest.fixture(scope="module")
def two_devices(power_samples: pa.Table) -> Dataset:
    """The same cells on a second device, half as fast."""
    other = power_samples.to_pylist()
    for row in other:
        row |= {"device": "Paper GPU 40GB", "peak_tflops": row["peak_tflops"] / 2, "runtime_us": row["runtime_us"] * 2}
    return dataset(pa.concat_tables([power_samples, pa.Table.from_pylist(other, schema=power_samples.schema)]))


def _parts(data: Dataset) -> dict[str, Part]:
    return {part.name: part for part in parts(data)}


def test_no_row_is_asked_that_was_trained_on(recorded: Dataset, two_devices: Dataset) -> None:
    for data in (recorded, two_devices):
        for part in parts(data):
            assert part.test.any() and part.training.any() and not (part.test & part.training).any()


def test_an_unseen_layer_has_no_row_in_training(recorded: Dataset) -> None:
    part, groups = _parts(recorded)["layer"], layers(recorded)
    assert not set(groups[part.training]) & set(groups[part.test])
    assert len(set(groups[part.test])) == -(-len(set(groups)) // FOLDS)
    assert (part.training | part.test).all()


def test_an_unseen_member_shares_no_configuration_but_its_family(recorded: Dataset) -> None:
    part = _parts(recorded)["member"]
    configs = np.array(recorded.keys(*CONFIG), dtype=object)
    trained, asked = ({tuple(config) for config in configs[rows]} for rows in (part.training, part.test))
    assert not trained & asked
    assert {family for family, *_ in asked} == {"tiled"} < {family for family, *_ in trained}
    assert part.test.sum() == (recorded.column("family") == "tiled").sum() / 4


def test_members_are_dealt_out_family_by_family(recorded: Dataset) -> None:
    names, families = members(recorded), recorded.column("family")
    assert set(names[families == "cublas"]) == {None} and len(set(names[families == "tiled"])) == 4
    tested = np.zeros(len(recorded), dtype=int)
    for training, test in split(names, FOLDS, within=families):
        assert (training != test).all()
        tested += test
    assert tested.tolist() == (families == "tiled").astype(int).tolist()
    groups = np.array([f"{family}{i}" for family in "ab" for i in range(10)], dtype=object)
    within = np.array(["a"] * 10 + ["b"] * 10)
    assert all((test[:10].sum(), test[10:].sum()) == (2, 2) for _, test in split(groups, FOLDS, within))


def test_devices_are_left_out_only_where_there_are_two(recorded: Dataset, two_devices: Dataset) -> None:
    assert set(_parts(recorded)) == {"layer", "member"}
    names = {f"device {name}{more}" for name in ("Paper GPU 80GB", "Paper GPU 40GB") for more in ("", f" + {KNOWN} samples")}
    assert {name for name in _parts(two_devices) if name.startswith("device")} == names
    few = two_devices.take(np.arange(len(two_devices) - 1))  # one row less of the second
    assert {name for name in _parts(few) if name.startswith("device")} == {name for name in names if "80GB" in name}


def test_what_is_known_of_a_device_is_spread_over_other_shapes(two_devices: Dataset) -> None:
    found, devices = _parts(two_devices), two_devices.column("device")
    without, with_some = found["device Paper GPU 40GB"], found[f"device Paper GPU 40GB + {KNOWN} samples"]
    assert set(devices[without.training]) == {"Paper GPU 80GB"} and set(devices[without.test]) == {"Paper GPU 40GB"}
    assert (without.test == with_some.test).all()
    known = with_some.training & ~without.training
    assert known.sum() == KNOWN and set(devices[known]) == {"Paper GPU 40GB"}
    assert not set(two_devices.shapes[known]) & set(two_devices.shapes[with_some.test])
    per_shape: dict[str, int] = defaultdict(int)
    for shape in two_devices.shapes[known]:
        per_shape[shape] += 1
    assert max(per_shape.values()) - min(per_shape.values()) <= 1


def test_of_what_is_known_of_a_device_those_with_power_come_first(two_devices: Dataset) -> None:
    power_w = np.where(np.arange(len(two_devices)) % 3 == 0, 300.0, np.nan)
    some = replace(two_devices, measured=two_devices.measured | {"power_w": power_w})
    found = _parts(some)
    without, with_some = found["device Paper GPU 40GB"], found[f"device Paper GPU 40GB + {KNOWN} samples"]
    known, metered = with_some.training & ~without.training, ~np.isnan(power_w)
    others = (some.column("device") == "Paper GPU 40GB") & ~without.test & metered
    assert known.sum() == KNOWN and (known & metered).sum() == min(KNOWN, others.sum()) > 0


def test_the_choice_does_not_depend_on_the_order_of_the_rows(two_devices: Dataset) -> None:
    order = np.random.default_rng(1).permutation(len(two_devices))
    one, other = _parts(two_devices), _parts(two_devices.take(order))
    assert set(one) == set(other)
    for name, part in one.items():
        assert (part.training[order] == other[name].training).all() and (part.test[order] == other[name].test).all()


@pytest.mark.parametrize(("limit", "value"), [("MIN_LAYERS", 1000), ("MIN_MEMBERS", 5), ("MIN_TEST", 10_000), ("MIN_TRAINING", 10_000)])
def test_what_the_data_can_not_be_asked_has_no_entry(recorded: Dataset, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(module, limit, value)
    gone = {"MIN_LAYERS": {"layer"}, "MIN_MEMBERS": {"member"}}.get(limit, {"layer", "member"})
    assert set(_parts(recorded)) == {"layer", "member"} - gone


def test_every_question_is_scored_beside_the_baselines(recorded: Dataset) -> None:
    found = unseen(recorded, SHARES)
    assert set(found) == {"layer", "member"}
    for part in found.values():
        assert set(part["scores"]) == set(TARGETS)
        assert all(list(methods) == ["model", "lookup", "roofline"] for methods in part["scores"].values())
        assert part["scores"]["runtime_us"]["model"]["rows"] == part["test_rows"]
        assert part["scores"]["runtime_us"]["model"]["mape"] < part["scores"]["runtime_us"]["roofline"]["mape"]
    assert json.loads(json.dumps(found)) == found
    assert [row[0] for row in summary_rows({name: part["scores"] for name, part in found.items()})] == ["layer", "member"]


def test_sizes_are_decades_of_flops(recorded: Dataset) -> None:
    names = sizes(recorded)
    flops = np.array([2.0 * m * n * k * batch for m, n, k, batch in recorded.keys("m", "n", "k", "batch")])
    assert all(float(name) <= of < 10 * float(name) for name, of in zip(names, flops, strict=True))
    found = scores_by(recorded, {"runtime_us": {"model": recorded.measured["runtime_us"]}}, names)
    assert list(found) == sorted(found, key=float)
    assert sum(scores["runtime_us"]["model"]["rows"] for scores in found.values()) == len(recorded)
