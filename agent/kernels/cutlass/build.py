"""Compile a set of CUTLASS kernels into one shared library with nvcc, cached by content.

Several files are compiled at once. A file's object is named by the hash of its text, the headers'
version, nvcc's version and the flags; so is the library, over all files. Objects and library are
written beside their place and renamed into it: a build that was killed continues where it stopped.
The CUDA runtime is linked statically, so the library needs only the driver, shares CuPy's context,
and can be loaded without a GPU. Compilers and headers are located in toolkit.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final, TypedDict

from agent.kernels.cutlass.sources import sources
from agent.kernels.cutlass.toolkit import Toolkit
from gemmcast.cutlass.kernel import CutlassKernel
from gemmcast.cutlass.sets import HOPPER
from gemmcast.errors import GemmcastError

COMPILE_FLAGS: Final = (
    "-std=c++17",
    "-O3",
    "-DNDEBUG",
    "--expt-relaxed-constexpr",
    "-cudart=static",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
)
LINK_FLAGS: Final = ("-shared", "-cudart=static")
FOLDER_VARIABLE: Final = "GEMMCAST_CUTLASS"

Files = Mapping[str, str]
"""File name -> text."""
ReportProgress = Callable[[int, int], None]
"""Called with the number of files that are done, and the number of all files."""


class BuildError(GemmcastError):
    """nvcc refused a file."""


class Manifest(TypedDict):
    """The newest library of a set, as its JSON file says."""

    library: str
    """Name of its file in the folder."""
    set: str
    arch: str
    kernels: int
    """How many."""
    cutlass: str
    """Version of the headers."""
    nvcc: str
    """Version."""


class BuildReport(Manifest):
    """The manifest, with the library's whole path."""

    cached: bool
    """The library was there already."""
    seconds: float


def default_folder() -> Path:
    """Where libraries are built to and looked for: $GEMMCAST_CUTLASS, else in the user's cache."""
    configured = os.environ.get(FOLDER_VARIABLE)
    if configured:
        return Path(configured)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "gemmcast" / "cutlass"


def compile_flags(arch: str) -> tuple[str, ...]:
    """Machine code for this architecture only.

    wgmma needs the "a" of sm_90a, which runs on every sm_90 GPU.
    """
    number = arch.removeprefix("sm_")
    if arch == HOPPER:
        number += "a"
    return (*COMPILE_FLAGS, f"-gencode=arch=compute_{number},code=sm_{number}")


def content_hash(texts: Sequence[str], arch: str, kit: Toolkit) -> str:
    """Names what is compiled from these texts."""
    versions = (kit.nvcc_version, kit.headers_version)
    parts = [*texts, *compile_flags(arch), *LINK_FLAGS, *versions]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def manifest_path(folder: Path, set_name: str, arch: str) -> Path:
    """Of the file that names the newest library of a set."""
    return folder / f"{set_name}-{arch}.json"


def _no_report(_done: int, _all: int) -> None:
    """Reports no progress."""


def build(
    kernels: Sequence[CutlassKernel],
    set_name: str,
    arch: str,
    folder: Path,
    kit: Toolkit,
    *,
    jobs: int,
    progress: ReportProgress = _no_report,
) -> BuildReport:
    """Compile what is not there yet, link, and write the manifest.

    Args:
        jobs: files that are compiled at once.

    Raises:
        BuildError: nvcc refused a file.
    """
    began_s = monotonic()
    files = sources(kernels)
    digest = content_hash(list(files.values()), arch, kit)
    library = folder / f"{set_name}-{arch}-{digest}.so"
    cached = library.is_file()
    if cached:
        progress(1, 1)
    else:
        _build_library(files, library, arch, kit, jobs, progress)
    manifest = Manifest(
        library=library.name,
        set=set_name,
        arch=arch,
        kernels=len(kernels),
        cutlass=kit.headers_version,
        nvcc=kit.nvcc_version,
    )
    _place(manifest_path(folder, set_name, arch), json.dumps(manifest, indent=1) + "\n")
    return BuildReport(
        library=str(library.resolve()),
        set=set_name,
        arch=arch,
        kernels=len(kernels),
        cutlass=kit.headers_version,
        nvcc=kit.nvcc_version,
        cached=cached,
        seconds=round(monotonic() - began_s, 3),
    )


def _build_library(
    files: Files, library: Path, arch: str, kit: Toolkit, jobs: int, progress: ReportProgress
) -> None:
    folder = library.parent
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        for name, text in files.items():
            (Path(scratch) / name).write_text(text, "utf-8")
        objects = _compile_all(files, Path(scratch), arch, kit, jobs, progress)
        _link(objects, library, Path(scratch), kit)


def _compile_all(
    files: Files, scratch: Path, arch: str, kit: Toolkit, jobs: int, progress: ReportProgress
) -> list[Path]:
    """The objects, in the files' order."""
    objects = _object_paths(files, scratch.parent / "objects", arch, kit)
    progress(0, len(objects))
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        compiling = [
            pool.submit(compile_file, scratch / name, target, arch, kit)
            for name, target in objects.items()
        ]
        try:
            for done, future in enumerate(as_completed(compiling), 1):
                future.result()
                progress(done, len(objects))
        except BaseException:
            # Ctrl-C, too: files that wait must not start any more.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return list(objects.values())


def _object_paths(files: Files, folder: Path, arch: str, kit: Toolkit) -> dict[str, Path]:
    """Name of a .cu file -> where its object is kept; it depends on the headers, too."""
    headers = [text for name, text in files.items() if name.endswith(".h")]
    paths = {}
    for name, text in files.items():
        if name.endswith(".cu"):
            digest = content_hash([*headers, text], arch, kit)
            paths[name] = folder / f"{Path(name).stem}-{digest}.o"
    return paths


def compile_file(source: Path, target: Path, arch: str, kit: Toolkit) -> None:
    """One .cu to the object `target`, if that is not there yet."""
    if target.is_file():
        return
    compiled = source.with_suffix(".o")
    includes = [f"-I{kit.headers}", f"-I{source.parent}"]
    _nvcc(kit, [*compile_flags(arch), *includes, "-c", str(source), "-o", str(compiled)])
    compiled.replace(target)


def _link(objects: Sequence[Path], library: Path, scratch: Path, kit: Toolkit) -> None:
    linked = scratch / library.name
    # NVIDIA's wheels keep the runtime here; nvcc itself looks in lib64.
    runtime = kit.nvcc.resolve().parent.parent / "lib"
    names = [str(path) for path in objects]
    _nvcc(kit, [*LINK_FLAGS, f"-L{runtime}", *names, "-o", str(linked)])
    linked.replace(library)


def _nvcc(kit: Toolkit, arguments: Sequence[str]) -> None:
    done = subprocess.run([kit.nvcc, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    output = (done.stdout + done.stderr).splitlines()
    lines = [line for line in output if line.strip()] or [f"exit code {done.returncode}"]
    errors = [line for line in lines if "error" in line.lower()]
    first = errors[0] if errors else lines[-1]
    # The third to last is the file to compile, or the last one to link.
    raise BuildError(f"nvcc {kit.nvcc_version} refused {arguments[-3]}: {first}")


def _place(path: Path, text: str) -> None:
    """Write the whole file or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, "utf-8")
    beside.replace(path)
