"""Predict what a matrix multiplication costs, in time and in joules, before it runs."""

import os
from typing import TYPE_CHECKING

from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import (
    GemmcastError,
    InputError,
    MeasurementError,
    ModelFileError,
    WorkspaceError,
)
from gemmcast.gemm import Gemm
from gemmcast.prediction import Prediction

# ONNX Runtime reads it once, when it is imported; it would report to its vendor and write to HOME.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from gemmcast.predictor import Predictor, RankedConfig
    from gemmcast.tuned_table import TableKey, TunedEntry, TunedTable

__version__ = "0.1.0"
__all__ = [
    "Device",
    "Gemm",
    "GemmcastError",
    "InputError",
    "KernelConfig",
    "MeasurementError",
    "ModelFileError",
    "Prediction",
    "Predictor",
    "RankedConfig",
    "TableKey",
    "TunedEntry",
    "TunedTable",
    "WorkspaceError",
]


def __getattr__(name: str) -> object:
    """What loads NumPy or ONNX Runtime, or takes a while, is imported at its first use."""
    if name in ("Predictor", "RankedConfig"):
        from gemmcast import predictor

        return getattr(predictor, name)
    if name in ("TableKey", "TunedEntry", "TunedTable"):
        from gemmcast import tuned_table

        return getattr(tuned_table, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
