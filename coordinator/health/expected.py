"""What the model says for each reading, on a healthy board of that type.

The model reads the descriptors of a device, and a board that is not well describes itself as it is:
with its own peak and bandwidth it would be as fast as expected. So the descriptors are those of the
type: the model's own description, or else the median of the boards at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from coordinator.health.readings import Numbers
from coordinator.samples.describing import measured_devices
from gemmcast import Predictor, query
from gemmcast.config import KNOBS
from gemmcast.contracts import device_for
from gemmcast.device import Device

RUNTIME: Final = "runtime_us"
DESCRIPTORS: Final = (
    "compute_units",
    "dram_gbps",
    "l2_bytes",
    "clock_max_mhz",
    "empty_kernel_us",
    "power_limit_w",
    "idle_power_w",
    "l2_gbps",
)
PROBLEM: Final = ("m", "n", "k", "batch", "beta", "dtype", "layout", "cache", "device_kind")
INTERVAL: Final = 3.29
"""Standard deviations in an interval that holds 90 %."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a model says of some rows."""

    log_us: Numbers
    """[n_rows] of the runtime; NaN where the model does not know the dtype on this type."""
    doubt: Numbers
    """[n_rows] standard deviation that the type adds: 0 for a type of the training rows."""


def expected(table: pa.Table, predictor: Predictor) -> Expected:
    """The answers of a model for rows of one type of device, in the sample schema."""
    count = len(table)
    kinds = {device.kind for device in predictor.devices}
    if table["device_kind"][0].as_py() not in kinds:
        # A model of GPUs says nothing of a CPU.
        return Expected(np.full(count, np.nan), np.zeros(count))
    device, is_known = _type_of(table, predictor)
    names = [*PROBLEM, "family", "kernel", *KNOBS]
    columns: dict[str, list[Any]] = table.select(names).to_pydict()
    peaks = [device.peak_tflops.get(dtype) for dtype in columns["dtype"]]
    unknown = np.array([not peak for peak in peaks], dtype=bool)
    columns["peak_tflops"] = [peak or 1.0 for peak in peaks]
    for name in DESCRIPTORS:
        columns[name] = [getattr(device, name)] * count
    answers = predictor.predict_rows(query.from_columns(columns))
    place = predictor.outputs.index(RUNTIME)
    low, high = (answers[name][:, place] for name in query.INTERVALS)
    log_us = np.log(answers[RUNTIME].astype(np.float64))
    log_us[unknown] = np.nan
    doubt = np.zeros(count) if is_known else np.log(high / low).astype(np.float64) / INTERVAL
    return Expected(log_us, doubt)


def _type_of(table: pa.Table, predictor: Predictor) -> tuple[Device, bool]:
    """The description of a healthy board, and whether the model was trained on this type."""
    contract = int(predictor.metadata["contract"])
    name = table["device"][0].as_py()
    for device in predictor.devices:
        if device.name == name:
            return device_for(device, contract), True
    return device_for(measured_devices(table)[0], contract), False
