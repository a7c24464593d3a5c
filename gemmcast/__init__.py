"""What every matrix multiplication costs, in time and in joules, before it is run."""

from typing import TYPE_CHECKING, Any

from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import GemmcastError, InputError, MeasurementError, ModelFileError, WorkspaceError
from gemmcast.gemm import Gemm
from gemmcast.prediction import Prediction

if TYPE_CHECKING:
    from gemmcast.predictor import Choice, Predictor

__version__ = "0.1.0"
__all__ = [
    "Choice", "Device", "Gemm", "GemmcastError", "InputError", "KernelConfig", "MeasurementError", "ModelFileError", "Prediction", "Predictor",
    "WorkspaceError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Predictor and Choice load ONNX Runtime, so they are imported when first asked for."""
    if name in ("Choice", "Predictor"):
        from gemmcast import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
