"""Compile a set of CUTLASS kernels into one shared library with nvcc, several files at a time, cached by content.

A file's object is named by the hash of its text, the headers' version, nvcc's version and the flags; so is the library, over all files.
Objects and library are written beside their place and renamed into it: a build that was killed goes on where it stopped.
The CUDA runtime is linked statically: the library needs the driver alone, shares CuPy's context, and can be loaded without a GPU.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from agent.kernels.cutlass.generate import HOPPER
from agent.kernels.cutlass.kernel import Kernel
from agent.kernels.cutlass.sources import sources
from gemmcast.errors import GemmcastError, InputError

FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "--expt-relaxed-constexpr", "-cudart=static", "-Xcompiler=-fPIC,-fvisibility=hidden")
LINK_FLAGS = ("-shared", "-cudart=static")
WHEELS = "nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-cccl"
# of one CUDA version; enough to compile and link
FOLDER_VARIABLE = "GEMMCAST_CUTLASS"
Progress = Callable[[int, int], None]
# done, of how many files


class BuildError(GemmcastError):
    """nvcc refused a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolkit:
    """What compiles."""

    nvcc: Path
    nvcc_version: str
    headers: Path
    # the folder that holds cutlass/
    headers_version: str


def default_folder() -> Path:
    """Where libraries are built to and looked for: $GEMMCAST_CUTLASS, else in the user's cache."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gemmcast" / "cutlass"


def installed(package: str) -> list[Path]:
    """The folders of an installed Python package, without importing it."""
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []


def find_nvcc(path: str | None = None, wheels: Sequence[Path] | None = None) -> Path:
    """The first nvcc on `path` (PATH), else that of NVIDIA's wheels. Raises InputError."""
    if found := shutil.which("nvcc", path=path):
        return Path(found)
    for folder in installed("nvidia") if wheels is None else wheels:
        if inside := sorted(folder.glob("*/bin/nvcc")):
            return inside[-1]
    raise InputError(
        "nvcc", None, "CUTLASS kernels are compiled with nvcc, and there is none on the PATH",
        f"install the CUDA toolkit (or pip install {WHEELS}), or leave the cutlass family out of the plan: the others need no nvcc",
    )  # fmt: skip


def find_headers(given: Path | None = None, packages: Sequence[Path] | None = None) -> Path:
    """`given` (a CUTLASS checkout's include/), else the headers of the package nvidia-cutlass. Raises InputError."""
    places = [folder / "source" / "include" for folder in (installed("cutlass_library") if packages is None else packages)]
    for folder in places if given is None else [given]:
        if (folder / "cutlass" / "version.h").is_file():
            return folder.resolve()
    raise InputError(
        "headers", None if given is None else str(given), "no CUTLASS headers there (cutlass/version.h)",
        "pip install --no-deps nvidia-cutlass, or name a CUTLASS checkout's include/ with --headers",
    )  # fmt: skip


def toolkit(nvcc: Path, headers: Path) -> Toolkit:
    """With the versions that the hash is made of."""
    try:
        told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError("nvcc", str(nvcc), f"can't be run ({error})", "install the CUDA toolkit, or name another with --nvcc") from None
    release = re.search(r"V(\d+\.\d+\.\d+)", told)
    version = (headers / "cutlass" / "version.h").read_text()
    numbers = [re.search(rf"define CUTLASS_{part}\s+(\d+)", version) for part in ("MAJOR", "MINOR", "PATCH")]
    return Toolkit(
        nvcc=nvcc,
        nvcc_version=release[1] if release else hashlib.sha256(told.encode()).hexdigest()[:12],
        headers=headers,
        headers_version=".".join(found[1] if found else "?" for found in numbers),
    )


def flags(arch: str) -> tuple[str, ...]:
    """Machine code of this architecture alone: no other could be compared with it. wgmma needs the "a" of sm_90a, which runs where sm_90 does."""
    number = arch.removeprefix("sm_") + ("a" if arch == HOPPER else "")
    return (*FLAGS, f"-gencode=arch=compute_{number},code=sm_{number}")


def content_hash(texts: Sequence[str], arch: str, kit: Toolkit) -> str:
    parts = [*texts, *flags(arch), *LINK_FLAGS, kit.nvcc_version, kit.headers_version]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def manifest_path(folder: Path, of_set: str, arch: str) -> Path:
    """Names the newest library of a set; what the family looks for."""
    return folder / f"{of_set}-{arch}.json"


def build(
    made: list[Kernel], of_set: str, arch: str, folder: Path, kit: Toolkit, *, jobs: int, progress: Progress = lambda _done, _all: None
) -> dict[str, Any]:
    """The library's manifest: library, kernels, seconds, versions. Compiles only what is not there yet. Raises BuildError."""
    began = monotonic()
    files = sources(made)
    library = folder / f"{of_set}-{arch}-{content_hash(list(files.values()), arch, kit)}.so"
    if cached := library.is_file():
        progress(1, 1)
    else:
        (folder / "objects").mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as scratch:
            for name, text in files.items():
                (Path(scratch) / name).write_text(text)
            _link(_compile_all(files, Path(scratch), arch, kit, jobs, progress), library, Path(scratch), kit)
    manifest = {
        "library": library.name, "set": of_set, "arch": arch, "kernels": len(made), "cutlass": kit.headers_version, "nvcc": kit.nvcc_version,
    }  # fmt: skip
    _place(manifest_path(folder, of_set, arch), json.dumps(manifest, indent=1) + "\n")
    return {**manifest, "library": str(library.resolve()), "cached": cached, "seconds": round(monotonic() - began, 3)}


def _compile_all(files: dict[str, str], scratch: Path, arch: str, kit: Toolkit, jobs: int, progress: Progress) -> list[Path]:
    shared = [text for name, text in files.items() if name.endswith(".h")]
    units = {name: f"{Path(name).stem}-{content_hash([*shared, text], arch, kit)}.o" for name, text in files.items() if name.endswith(".cu")}
    folder = scratch.parent / "objects"
    progress(0, len(units))
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        waiting = [pool.submit(compile_file, scratch / name, folder / kept, arch, kit) for name, kept in units.items()]
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                progress(done, len(units))
        except BaseException:  # Ctrl-C too: what waits must not start any more; raised again
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [folder / kept for kept in units.values()]


def compile_file(source: Path, kept: Path, arch: str, kit: Toolkit) -> None:
    """One .cu to the object `kept`, if that is not there yet."""
    if not kept.is_file():
        made = source.with_suffix(".o")
        _nvcc(kit, [*flags(arch), f"-I{kit.headers}", f"-I{source.parent}", "-c", str(source), "-o", str(made)])
        made.replace(kept)


def _link(objects: list[Path], library: Path, scratch: Path, kit: Toolkit) -> None:
    made = scratch / library.name
    beside = kit.nvcc.resolve().parent.parent / "lib"  # where the wheels keep the runtime; nvcc itself looks in lib64
    _nvcc(kit, [*LINK_FLAGS, f"-L{beside}", *map(str, objects), "-o", str(made)])
    made.replace(library)


def _nvcc(kit: Toolkit, arguments: list[str]) -> None:
    done = subprocess.run([kit.nvcc, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        lines = [line for line in said if "error" in line.lower()] or said[-1:]
        raise BuildError(f"nvcc {kit.nvcc_version} refused {arguments[-3]}: {lines[0]}")


def _place(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)
