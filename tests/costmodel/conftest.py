"""Models that the tests of the model and of its file share."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pytest

from costmodel.dataset import TrainingSet, devices_of, training_set
from costmodel.model import CostModel
from costmodel.onnx_export import export


class Fitted(NamedTuple):
    """A model, the rows that it was fitted on, and its file."""

    data: TrainingSet
    model: CostModel
    exported: bytes


def _fitted(table: pa.Table, model: CostModel) -> Fitted:
    data = training_set(table)
    model.fit_dataset(data)
    return Fitted(data, model, export(model, devices_of(data)))


@pytest.fixture(scope="session")
def plain(cpu_samples: pa.Table) -> Fitted:
    return _fitted(cpu_samples, CostModel())


@pytest.fixture(scope="session")
def metered(power_samples: pa.Table) -> Fitted:
    return _fitted(power_samples, CostModel())


@pytest.fixture(scope="session")
def mixed(power_samples: pa.Table) -> Fitted:
    """Networks and trees."""
    tree_weight = {"runtime": 0.5, "sustained": 0.25, "power": 1.0}
    return _fitted(power_samples, CostModel(members=1, tree_weight=tree_weight))


@pytest.fixture(params=["plain", "metered", "mixed"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    model: Fitted = request.getfixturevalue(request.param)
    return model
