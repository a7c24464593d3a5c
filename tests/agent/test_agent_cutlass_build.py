"""CUTLASS kernels: what their cache goes by, how nvcc and headers are located, two real compiles.

The folder with CUTLASS' headers is located as the builder does it, or through CUTLASS_HEADERS.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.kernels.cutlass import Cutlass
from agent.kernels.cutlass.build import (
    BuildError,
    build,
    compile_flags,
    content_hash,
    manifest_path,
)
from agent.kernels.cutlass.libraries import PROBLEM_ARGUMENTS, BuiltKernel, open_library
from agent.kernels.cutlass.sources import sources
from agent.kernels.cutlass.toolkit import Toolkit, find_headers, find_nvcc, toolkit
from gemmcast.cutlass.sets import kernels
from gemmcast.errors import InputError

KIT = Toolkit(
    nvcc=Path("nvcc"), nvcc_version="13.0.88", headers=Path("include"), headers_version="4.2.0"
)
SIMT = kernels("paper", "sm_90")[0]


def test_the_wide_set_compiles_what_the_default_set_has_not() -> None:
    """Equal files are one object in the cache."""
    default = sources(kernels("default", "sm_90"))
    wide = sources(kernels("wide", "sm_90"))
    del default["table.cu"]
    assert default.items() <= wide.items()
    assert "sm_90a" in compile_flags("sm_90")[-1]
    assert compile_flags("sm_80")[-1].endswith("code=sm_80")


def test_the_cache_goes_by_text_architecture_and_versions() -> None:
    texts = list(sources([SIMT]).values())
    other = list(sources([replace(SIMT, stages=4)]).values())
    hashes = [
        content_hash(texts, "sm_90", KIT),
        content_hash(other, "sm_90", KIT),
        content_hash(texts, "sm_80", KIT),
        content_hash(texts, "sm_90", replace(KIT, nvcc_version="12.9.1")),
        content_hash(texts, "sm_90", replace(KIT, headers_version="4.3.0")),
    ]
    assert len(set(hashes)) == len(hashes)
    moved = replace(KIT, nvcc=Path("elsewhere"), headers=Path("elsewhere"))
    assert content_hash(texts, "sm_90", moved) == hashes[0]


def test_libraries_that_were_built_before_keep_their_names() -> None:
    """Pinned: a change of one byte in the sources compiles every library again."""
    files = sources(kernels("wide", "sm_90"))
    assert content_hash(list(files.values()), "sm_90", KIT) == "bbf1c13d0f0438f9"


@pytest.mark.parametrize(
    ("locate", "message"),
    [
        (
            lambda folder: find_nvcc(str(folder), []),
            "none on the PATH; install the CUDA toolkit .* the others need no nvcc",
        ),
        (lambda folder: find_headers(packages=[folder]), "pip install --no-deps nvidia-cutlass"),
        (lambda folder: find_headers(folder), r"headers = '.*': no CUTLASS headers there"),
        (lambda folder: toolkit(folder / "nvcc", folder), "can't be run"),
    ],
)
def test_without_nvcc_or_headers_the_message_names_the_way_out(
    locate: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        locate(tmp_path)


def test_nvcc_and_headers_of_the_wheels_are_located(tmp_path: Path) -> None:
    nvcc = tmp_path / "cu13/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.88\n")
    nvcc.chmod(0o755)
    version = tmp_path / "source/include/cutlass/version.h"
    version.parent.mkdir(parents=True)
    version.write_text(
        "#define CUTLASS_MAJOR 4\n#define CUTLASS_MINOR 2\n#define CUTLASS_PATCH 0\n"
    )
    located = find_nvcc(str(tmp_path / "empty"), [tmp_path])
    kit = toolkit(located, find_headers(packages=[tmp_path]))
    assert (kit.nvcc, kit.nvcc_version, kit.headers_version) == (nvcc, "13.0.88", "4.2.0")


def test_a_file_that_nvcc_refuses_is_named_and_leaves_no_library(tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'part_00.cu(3): error: no such tile' >&2\nexit 2\n")
    nvcc.chmod(0o755)
    kit = replace(KIT, nvcc=nvcc)
    message = r"nvcc 13\.0\.88 refused .*\.cu: part_00\.cu\(3\): error: no such tile"
    with pytest.raises(BuildError, match=message):
        build([SIMT], "paper", "sm_90", tmp_path / "out", kit, jobs=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["objects"]


def _kit() -> Toolkit:
    given = os.environ.get("CUTLASS_HEADERS")
    try:
        return toolkit(find_nvcc(), find_headers(Path(given) if given else None))
    except InputError as error:
        pytest.skip(str(error))


def _simt_can(kernel: BuiltKernel, index: int = 0, m: int = 100, split_k: int = 1) -> int:
    problem = (m, 70, 33, 4096, 33, 4096, 70, 4096, 70, 1.0, 0.0, split_k)
    return int(kernel.library.gemmcast_can_implement(index, *problem))


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_compiled_library_describes_its_kernels_without_a_gpu(tmp_path: Path) -> None:
    kit = _kit()
    steps: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        steps.append((done, total))

    first = build([SIMT], "paper", "sm_90", tmp_path, kit, jobs=2, progress=progress)
    assert not first["cached"]
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert build([SIMT], "paper", "sm_90", tmp_path, kit, jobs=2)["cached"]
    manifest = json.loads(manifest_path(tmp_path, "paper", "sm_90").read_text())
    assert manifest["kernels"] == 1
    assert (manifest["cutlass"], manifest["nvcc"]) == (kit.headers_version, kit.nvcc_version)

    (kernel,) = Cutlass(tmp_path).kernels("sm_90")
    assert kernel.name == SIMT.name
    assert kernel.origin == f"cutlass {kit.headers_version}, nvcc {kit.nvcc_version}"
    library = kernel.library
    assert json.loads(library.gemmcast_describe(0)) == SIMT.description
    assert library.gemmcast_describe(1) is None
    assert library.gemmcast_occupancy(1) == -1
    (again,) = open_library(Path(first["library"]))
    assert again.knobs == kernel.knobs
    _check_host_side(kernel)


def _check_host_side(kernel: BuiltKernel) -> None:
    """What CUTLASS decides on the host: which problems it takes, and the semaphores of split-k."""
    assert len(PROBLEM_ARGUMENTS) == 12
    assert _simt_can(kernel) == 0
    assert _simt_can(kernel, split_k=5) == 0
    assert _simt_can(kernel, index=7) == -1
    assert _simt_can(kernel, m=0) == 4
    # Five steps of k in slices of two: the fourth would be empty.
    assert _simt_can(kernel, split_k=4) == 4
    library = kernel.library
    assert library.gemmcast_workspace_bytes(0, 100, 70, 33, 1) == 0
    # One int for each tile.
    semaphores = 2 * 2 * ctypes.sizeof(ctypes.c_int)
    assert library.gemmcast_workspace_bytes(0, 100, 70, 33, 5) == semaphores
    # A workspace that is too small is refused before anything is launched.
    problem = (100, 70, 33, 4096, 33, 4096, 70, 4096, 70, 1.0, 0.0, 5)
    assert library.gemmcast_run(0, *problem, None, 0, None) == 6


def _hopper_can(
    kernel: BuiltKernel, n: int = 64, k: int = 512, a: int = 4096, split_k: int = 1
) -> int:
    problem = (100, n, k, a, k, 4096, k, 4096, n, 1.0, 0.0, split_k)
    return int(kernel.library.gemmcast_can_implement(0, *problem))


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_compiled_wgmma_library_reports_its_stages_and_limits(tmp_path: Path) -> None:
    wide = kernels("wide", "sm_90")
    (generated,) = [one for one in wide if (one.dtype, one.schedule) == ("fp8_e4m3", "streamk")]
    report = build([generated], "wide", "sm_90", tmp_path, _kit(), jobs=2)
    (kernel,) = open_library(Path(report["library"]))
    assert (kernel.name, kernel.alignment) == (generated.name, 16)
    assert kernel.knobs["cluster_n"] == 2
    assert kernel.knobs["stages"] >= 4
    assert _hopper_can(kernel) == _hopper_can(kernel, split_k=4) == _hopper_can(kernel, n=72) == 0
    # Four steps of k cannot be cut into five slices.
    assert _hopper_can(kernel, split_k=5) == 4
    # Operands and rows must be whole 16 bytes.
    assert _hopper_can(kernel, k=520) == 1
    assert _hopper_can(kernel, n=68) == 1
    assert _hopper_can(kernel, a=4104) == 1
    # Stream-k's plan divides by the number of SMs: without a GPU it must be refused; with one, for
    # want of a workspace.
    problem = (100, 64, 512, 4096, 512, 4096, 512, 4096, 64, 1.0, 0.0, 2)
    assert kernel.library.gemmcast_run(0, *problem, None, 0, None) in (6, 9)
