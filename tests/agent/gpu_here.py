"""What this machine has: CuPy with a GPU, or a skip."""

from __future__ import annotations

from types import ModuleType

import pytest


def cupy_or_skip() -> ModuleType:
    """CuPy; the test is skipped where it is not installed, or shows no GPU."""
    cupy: ModuleType = pytest.importorskip("cupy")
    try:
        gpus = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(str(error))
    if not gpus:
        pytest.skip("no GPU")
    return cupy
