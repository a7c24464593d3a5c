"""A base that is fitted in a second."""

from __future__ import annotations

import pyarrow as pa

from costmodel.base import Base
from costmodel.dataset import devices_of, training_set
from costmodel.model import CostModel
from costmodel.onnx_export import export

NO_TREES = {"runtime": 0.0, "sustained": 0.0, "power": 0.0}


def small_base(samples: pa.Table) -> Base:
    """Of one small network for each target, without trees."""
    data = training_set(samples)
    model = CostModel(members=1, steps=1500, tree_weight=NO_TREES).fit_dataset(data)
    return Base.of(export(model, devices_of(data)), "small")
