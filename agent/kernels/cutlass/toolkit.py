"""Find nvcc and CUTLASS' headers, and read their versions, which are part of every hash.

Looks on the PATH first, then in Python packages that are installed, without importing them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemmcast.errors import InputError

NVCC_WHEELS: Final = "nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-cccl"
"""Of one CUDA version; enough to compile and link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolkit:
    """What compiles."""

    nvcc: Path
    nvcc_version: str
    headers: Path
    """The folder that holds cutlass/."""
    headers_version: str


def installed(package: str) -> list[Path]:
    """The folders of an installed Python package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    return [Path(folder) for folder in spec.submodule_search_locations or ()]


def find_nvcc(path: str | None = None, wheels: Sequence[Path] | None = None) -> Path:
    """The first nvcc on the path, else that of NVIDIA's wheels.

    Args:
        path: None for PATH.
        wheels: where to look for NVIDIA's wheels; None for this Python's packages.

    Raises:
        InputError: there is none.
    """
    on_path = shutil.which("nvcc", path=path)
    if on_path:
        return Path(on_path)
    for folder in installed("nvidia") if wheels is None else wheels:
        candidates = sorted(folder.glob("*/bin/nvcc"))
        if candidates:
            return candidates[-1]
    rule = "CUTLASS kernels are compiled with nvcc, and there is none on the PATH"
    install = f"install the CUDA toolkit (or pip install {NVCC_WHEELS})"
    leave_out = "leave the cutlass family out of the plan: the others need no nvcc"
    raise InputError("nvcc", None, rule, f"{install}, or {leave_out}")


def find_headers(given: Path | None = None, packages: Sequence[Path] | None = None) -> Path:
    """The folder with CUTLASS' headers.

    Args:
        given: a CUTLASS checkout's include/; None for the package nvidia-cutlass.
        packages: where to look for that package; None for this Python's packages.

    Raises:
        InputError: there are none.
    """
    if packages is None:
        packages = installed("cutlass_library")
    folders = [given] if given is not None else [one / "source" / "include" for one in packages]
    for folder in folders:
        if (folder / "cutlass" / "version.h").is_file():
            return folder.resolve()
    value = None if given is None else str(given)
    way_out = (
        "pip install --no-deps nvidia-cutlass, or name a CUTLASS checkout's include/ with --headers"
    )
    raise InputError("headers", value, "no CUTLASS headers there (cutlass/version.h)", way_out)


def toolkit(nvcc: Path, headers: Path) -> Toolkit:
    """nvcc and headers with their versions.

    Raises:
        InputError: nvcc cannot be run.
    """
    return Toolkit(
        nvcc=nvcc,
        nvcc_version=_nvcc_version(nvcc),
        headers=headers,
        headers_version=_headers_version(headers),
    )


def _nvcc_version(nvcc: Path) -> str:
    command = [str(nvcc), "--version"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        way_out = "install the CUDA toolkit, or name another with --nvcc"
        raise InputError("nvcc", str(nvcc), f"can't be run ({error})", way_out) from None
    release = re.search(r"V(\d+\.\d+\.\d+)", output)
    if release is None:
        return hashlib.sha256(output.encode()).hexdigest()[:12]
    return release[1]


def _headers_version(headers: Path) -> str:
    text = (headers / "cutlass" / "version.h").read_text("utf-8")
    numbers = []
    for part in ("MAJOR", "MINOR", "PATCH"):
        match = re.search(rf"define CUTLASS_{part}\s+(\d+)", text)
        numbers.append(match[1] if match else "?")
    return ".".join(numbers)
