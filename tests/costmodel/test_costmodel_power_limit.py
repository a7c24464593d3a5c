"""A power limit that is unknown, or that no training row had, gives no power; never 0 W."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from costmodel.dataset import TrainingSet
from costmodel.model import CostModel
from costmodel.onnx_session import PARITY_LIMIT, open_session, parity
from gemmcast.query import AT, INPUT, Rows

LIMIT_W = 700.0
POWER = ("power_w", "energy_mj")
OTHERS = ("runtime_us", "tflops", "sustained_runtime_us")


class Fitted(NamedTuple):
    """As in conftest.py."""

    data: TrainingSet
    model: CostModel
    exported: bytes


def _with_limit(queries: Rows, limit_w: float) -> Rows:
    changed = queries.copy()
    changed[:, AT["power_limit_w"]] = limit_w
    return changed


@pytest.mark.parametrize("limit_w", [0.0, 350.0, 600.0, 800.0, 1400.0])
def test_a_limit_that_was_never_seen_gives_no_power(metered: Fitted, limit_w: float) -> None:
    data, model, exported = metered
    queries = _with_limit(data.queries, limit_w)
    predicted = model.predict(queries)
    for name in POWER:
        assert np.isnan(predicted[name]).all()
        column = model.outputs_.index(name)
        assert np.isnan(predicted["low"][:, column]).all()
        assert np.isnan(predicted["high"][:, column]).all()
    for name in OTHERS:
        assert np.isfinite(predicted[name]).all()
    assert parity(model, open_session(exported), queries) <= PARITY_LIMIT


@pytest.mark.parametrize("limit_w", [650.0, 700.0, 750.0])
def test_a_limit_near_those_of_the_training_rows_gives_power(
    metered: Fitted, limit_w: float
) -> None:
    predicted = metered.model.predict(_with_limit(metered.data.queries, limit_w))
    for name in (*POWER, *OTHERS):
        assert (predicted[name] > 0).all()


def test_an_unknown_limit_and_idle_power_stand_for_typical_ones(metered: Fitted) -> None:
    """Two thirds of the rows are of a board with the one limit, a third with the other."""
    data = metered.data
    queries = data.queries.copy()
    is_other = np.arange(len(data)) % 3 == 0
    queries[is_other, AT["power_limit_w"]] = 400.0
    queries[is_other, AT["idle_power_w"]] = 50.0
    tree_weight = {"runtime": 0.5, "sustained": 0.0, "power": 0.0}
    model = CostModel(members=1, steps=100, iterations=10, tree_weight=tree_weight)
    model.fit(queries, data.measured)
    unknown = _with_limit(data.queries, 0.0)
    unknown[:, AT["idle_power_w"]] = 0.0
    expected = model.predict(data.queries)
    predicted = model.predict(unknown)
    for name in OTHERS:
        np.testing.assert_array_equal(predicted[name], expected[name])


def test_rows_without_power_and_limit_do_not_make_the_limit_known(metered: Fitted) -> None:
    """Half of the rows are of a table from elsewhere."""
    data = metered.data
    is_foreign = np.arange(len(data)) % 2 == 0
    queries = data.queries.copy()
    queries[is_foreign, AT["power_limit_w"]] = 0.0
    measured = {name: values.copy() for name, values in data.measured.items()}
    for name in ("power_w", "energy_mj", "sustained_runtime_us"):
        measured[name][is_foreign] = np.nan
    tree_weight = {"runtime": 0.0, "sustained": 0.0, "power": 0.0}
    model = CostModel(members=1, steps=300, tree_weight=tree_weight).fit(queries, measured)
    power_w = model.predict(queries)["power_w"]
    assert np.array_equal(np.isnan(power_w), is_foreign)
    known = _with_limit(queries, LIMIT_W)
    errors = np.abs(np.log(model.predict(known)["power_w"] / data.measured["power_w"]))
    assert np.median(errors) < 0.2


class _Wrong:
    """A model that has no value where its file has one."""

    def __init__(self, model: CostModel) -> None:
        self._model = model

    def predict(self, queries: Rows) -> dict[str, npt.NDArray[np.float32]]:
        predicted = self._model.predict(queries)
        predicted["power_w"] = np.full_like(predicted["power_w"], np.nan)
        return predicted


class _Off:
    """A model, one of whose outputs is a part in 1,001 off."""

    def __init__(self, model: CostModel, output: str) -> None:
        self._model = model
        self._output = output

    def predict(self, queries: Rows) -> dict[str, npt.NDArray[np.float32]]:
        predicted = self._model.predict(queries)
        predicted[self._output] = predicted[self._output] / np.float32(1.001)
        return predicted


@pytest.mark.parametrize(("output", "counted"), [("runtime_us", 1e-3), ("high", 1e-4)])
def test_ends_of_intervals_may_be_further_apart(
    metered: Fitted, output: str, counted: float
) -> None:
    data, model, exported = metered
    off = parity(_Off(model, output), open_session(exported), data.queries)
    assert off == pytest.approx(counted, rel=0.02)


def test_a_value_on_one_side_alone_is_no_parity(metered: Fitted) -> None:
    data, model, exported = metered
    assert parity(_Wrong(model), open_session(exported), data.queries) == np.inf


def test_a_model_without_power_knows_no_limit_and_asks_for_none(plain: Fitted) -> None:
    queries = _with_limit(plain.data.queries, 123.0)
    session = open_session(plain.exported)
    (runtime_us,) = session.run(["runtime_us"], {INPUT: queries})
    assert np.isfinite(runtime_us).all()
