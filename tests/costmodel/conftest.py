"""Models that the tests of the model and of its file share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from costmodel.dataset import TrainingSet, devices_of, training_set
from costmodel.model import CostModel
from costmodel.onnx_export import export

MadeOnce = Callable[[str, Callable[[], Any]], Any]
"""conftest.py's, one folder up."""


class Fitted(NamedTuple):
    """A model, the rows that it was fitted on, and its file."""

    data: TrainingSet
    model: CostModel
    exported: bytes


@pytest.fixture(scope="session")
def fitted_on(made_once: MadeOnce) -> Callable[..., Fitted]:
    """Fits a model, once for all workers."""

    def fit(name: str, table: pa.Table, model: CostModel) -> Fitted:
        data = training_set(table)

        def make() -> tuple[CostModel, bytes]:
            model.fit_dataset(data)
            return model, export(model, devices_of(data))

        return Fitted(data, *made_once(name, make))

    return fit


@pytest.fixture(scope="session")
def plain(fitted_on: Callable[..., Fitted], cpu_samples: pa.Table) -> Fitted:
    return fitted_on("plain", cpu_samples, CostModel())


@pytest.fixture(scope="session")
def metered(fitted_on: Callable[..., Fitted], power_samples: pa.Table) -> Fitted:
    return fitted_on("metered", power_samples, CostModel())


@pytest.fixture(scope="session")
def mixed(fitted_on: Callable[..., Fitted], power_samples: pa.Table) -> Fitted:
    """Networks and trees."""
    tree_weight = {"runtime": 0.5, "sustained": 0.25, "power": 1.0}
    return fitted_on("mixed", power_samples, CostModel(members=1, tree_weight=tree_weight))


@pytest.fixture(params=["plain", "metered", "mixed"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    model: Fitted = request.getfixturevalue(request.param)
    return model
