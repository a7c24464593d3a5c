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
COLUMNS: Final = (
    *("m", "n", "k", "batch", "beta", "dtype", "layout", "cache", "device_kind"),
    *("family", "kernel", *KNOBS),
)
"""What a query holds besides."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a model says of some rows."""

    log_us: Numbers
    """[n_rows] of the runtime; NaN where the model does not know the dtype or kind of device."""
    is_trusted: bool
    """Whether the model was trained on this type. Otherwise it says how a runtime depends on the
    shape, and not how fast such a board is."""


def expected(table: pa.Table, predictor: Predictor) -> Expected:
    """The answers of a model for rows of one type of device, in the sample schema."""
    count = len(table)
    kinds = {device.kind for device in predictor.devices}
    if not count or table["device_kind"][0].as_py() not in kinds:
        return Expected(np.full(count, np.nan), is_trusted=False)
    device, is_known = _type_of(table, predictor)
    columns: dict[str, list[Any]] = table.select(COLUMNS).to_pydict()
    peaks = np.array([device.peak_tflops.get(dtype, np.nan) for dtype in columns["dtype"]])
    columns["peak_tflops"] = np.nan_to_num(peaks, nan=1.0).tolist()
    for name in DESCRIPTORS:
        columns[name] = [getattr(device, name)] * count
    answers = predictor.predict_rows(query.from_columns(columns))
    log_us = np.log(answers[RUNTIME].astype(np.float64))
    return Expected(np.where(np.isnan(peaks), np.nan, log_us), is_known)


def _type_of(table: pa.Table, predictor: Predictor) -> tuple[Device, bool]:
    """The description of a healthy board, and whether the model was trained on this type."""
    contract = int(predictor.metadata["contract"])
    name = table["device"][0].as_py()
    for device in predictor.devices:
        if device.name == name:
            return device_for(device, contract), True
    return device_for(measured_devices(table)[0], contract), False
