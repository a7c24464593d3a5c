"""A runtime excludes launches, so no prediction of it depends on the host (issue 18)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pyarrow as pa
import pytest

from costmodel import gate
from costmodel.dataset import devices_of, training_set
from costmodel.model import CostModel
from costmodel.model_kinds import MODEL_KINDS
from costmodel.onnx_export import export
from gemmcast.contracts import HOST_LAUNCH_US
from gemmcast.modelfile import METADATA_PREFIX
from gemmcast.query import AT, EMPTY_KERNEL_US

LAUNCHES_US = (1.5, 4.1, 20.0, 40.0)
EMPTY_KERNEL_ON_PAPER_US = 2.5
SOME_KINDS = ("boosting", "analytical fit", "boosting, monotone")


def _with(table: pa.Table, name: str, values: Sequence[object]) -> pa.Table:
    """The samples with other values in a column."""
    place = table.column_names.index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(values, field.type))


def _on_host(table: pa.Table, launch_us: float | None) -> pa.Table:
    """The samples, measured by a host of that launch cost."""
    return _with(table, "empty_launch_us", [launch_us] * len(table))


def _on_other_hosts(table: pa.Table) -> pa.Table:
    """The samples, measured by many hosts, the fastest with the largest problems."""
    costs = np.linspace(40.0, 1.5, len(table))
    flops = np.array([row["m"] * row["n"] * row["k"] for row in table.to_pylist()])
    order = np.argsort(np.argsort(flops))
    return _with(table, "empty_launch_us", costs[order].tolist())


def _small_model() -> CostModel:
    return CostModel(members=1, steps=100, iterations=8, leaves=7, tree_weight={"runtime": 0.5})


@pytest.fixture(scope="module")
def model(power_samples: pa.Table) -> CostModel:
    data = training_set(power_samples)
    return _small_model().fit(data.queries, {"runtime_us": data.measured["runtime_us"]})


def test_a_prediction_is_the_same_on_every_host(model: CostModel, power_samples: pa.Table) -> None:
    expected = model.predict(training_set(power_samples).queries)
    for launch_us in (*LAUNCHES_US, None):
        queries = training_set(_on_host(power_samples, launch_us)).queries
        predicted = model.predict(queries)
        for name, values in expected.items():
            assert np.array_equal(predicted[name], values), (launch_us, name)


def test_what_the_rows_hosts_cost_is_not_learned(model: CostModel, power_samples: pa.Table) -> None:
    data = training_set(_on_other_hosts(power_samples))
    again = _small_model().fit(data.queries, {"runtime_us": data.measured["runtime_us"]})
    expected = model.predict(data.queries)["runtime_us"]
    assert np.array_equal(again.predict(data.queries)["runtime_us"], expected)


@pytest.mark.parametrize("name", SOME_KINDS)
def test_no_other_kind_of_model_learns_it(name: str, power_samples: pa.Table) -> None:
    runtimes_us = []
    for table in (power_samples, _on_other_hosts(power_samples)):
        kind = MODEL_KINDS[name]()
        kind.fit(training_set(table))
        runtimes_us.append(kind.predict(training_set(table).queries)["runtime_us"])
    assert np.array_equal(*runtimes_us)


def test_an_empty_kernel_is_learned(model: CostModel, power_samples: pa.Table) -> None:
    """What the host's launch was taken for: the floor of the smallest problems holds it."""
    slower = _with(power_samples, "empty_kernel_us", [10.0] * len(power_samples))
    smallest = int(np.argmin(power_samples["runtime_us"].to_numpy()))
    runtime_us = []
    for table in (power_samples, slower):
        query = training_set(table).queries[smallest : smallest + 1]
        runtime_us.append(model.predict(query)["runtime_us"][0])
    assert runtime_us[1] > 1.5 * runtime_us[0]


def test_rows_of_older_schemas_have_the_usual_empty_kernel(power_samples: pa.Table) -> None:
    unknown = _with(power_samples, "empty_kernel_us", [None] * len(power_samples))
    usual = _with(power_samples, "empty_kernel_us", [EMPTY_KERNEL_US] * len(power_samples))
    assert np.array_equal(training_set(unknown).queries, training_set(usual).queries)


# champions of contract 3


def _as_contract_3(model: bytes) -> bytes:
    """The same graph, as a file whose field 29 is the host's launch."""
    proto = onnx.load_model_from_string(model)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    properties[f"{METADATA_PREFIX}contract"] = "3"
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, properties)
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("launch_us", "is_alike"), [(EMPTY_KERNEL_ON_PAPER_US, True), (40.0, False)]
)
def test_a_champion_of_contract_3_is_compared_in_its_own_terms(
    model: CostModel, power_samples: pa.Table, launch_us: float, is_alike: bool
) -> None:
    table = _on_host(power_samples, launch_us)
    data = training_set(table)
    exported = export(model, devices_of(data))
    present = gate._errors_by_shape(exported, data)
    older = gate._errors_by_shape(_as_contract_3(exported), data)
    assert np.array_equal(present, older) == is_alike
    assert len(present) == len(older) > 10


def test_queries_for_a_file_of_contract_3_hold_the_hosts_launch(power_samples: pa.Table) -> None:
    for launch_us, expected_us in ((11.25, 11.25), (None, HOST_LAUNCH_US)):
        data = training_set(_on_host(power_samples, launch_us), contract=3)
        assert set(data.queries[:, AT["empty_kernel_us"]].tolist()) == {expected_us}
