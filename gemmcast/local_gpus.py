"""Which NVIDIA GPUs this machine has, from the files of its driver; no CUDA, no NVML.

    /proc/driver/nvidia/version                 NVRM version: ...  580.95.05  ...
    /proc/driver/nvidia/gpus/*/information      Model: NVIDIA H100 80GB HBM3

It is what a table is compared with where nobody says what runs the kernels. Slices (MIG), clocks
and power limits are not in these files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gemmcast.table_key import TableKey, with_installed_triton

DRIVER: Final = Path("/proc/driver/nvidia")
_VERSION: Final = re.compile(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", re.MULTILINE)
_MODEL: Final = re.compile(r"^Model:\s*(\S.*?)\s*$", re.MULTILINE)


def local_keys(driver: Path = DRIVER) -> list[TableKey]:
    """One key for each model of GPU here; none where there is no driver."""
    version = _VERSION.search(_text(driver / "version"))
    keys: dict[TableKey, None] = {}
    for path in sorted(driver.glob("gpus/*/information")):
        model = _MODEL.search(_text(path))
        if model is not None:
            installed = None if version is None else version[1]
            key = TableKey(device=model[1], driver=installed)
            keys[with_installed_triton(key)] = None
    return list(keys)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # A container may hide the file: nothing is known then.
        return ""
