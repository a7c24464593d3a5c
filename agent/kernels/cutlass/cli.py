"""`python -m agent.kernels.cutlass build | list`: compile a set of CUTLASS kernels, or list it.

Bad input, no nvcc or no headers end with one line and exit code 2, a file that nvcc refuses with
exit code 1 (gemmcast/program.py). `list --json` prints what `gemmcast rank --configs-file` reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from agent.kernels.build_progress import build_progress
from gemmcast import __version__
from gemmcast.errors import InputError
from gemmcast.program import json_line, run_click

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
PROGRAM = "python -m agent.kernels.cutlass"
JOBS = os.cpu_count() or 1
SET_HELP = (
    "paper (SIMT fp32), default (about 100: SIMT and tensor cores), "
    "wide (default and wgmma; sm_90 only) "
    "or between (about 200 more tiles and stages; sm_90 only)"
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"gemmcast {__version__}")
        raise typer.Exit


Arch = Annotated[str, typer.Option("--arch", help="the GPUs' architecture, such as sm_90")]
SetName = Annotated[str, typer.Option("--set", help=SET_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="print one line of JSON as the last line")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="only these", show_default="all")]
Layout = Annotated[str | None, typer.Option("--layout", help="only these", show_default="all")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="folder of the libraries, where agents look",
        show_default="$GEMMCAST_CUTLASS, else the user's cache",
    ),
]
Nvcc = Annotated[
    Path | None,
    typer.Option(
        help="path of nvcc", show_default="the first on the PATH, else that of NVIDIA's wheel"
    ),
]
Headers = Annotated[
    Path | None,
    typer.Option(
        help="a CUTLASS checkout's include/", show_default="those of the package nvidia-cutlass"
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="files compiled at once; each takes about 0.6 GiB")]
ShowVersion = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="print the version and exit"
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    return run_click(get_command(app), PROGRAM, argv)


@app.callback()
def program(version: ShowVersion = False) -> None:
    """CUTLASS kernels of the agent."""


@app.command()
def build(
    arch: Arch,
    set_name: SetName = "default",
    out: Out = None,
    nvcc: Nvcc = None,
    headers: Headers = None,
    jobs: Jobs = JOBS,
    as_json: AsJson = False,
) -> None:
    """Compile a set into one shared library; what was compiled before is not compiled again."""
    from agent.kernels.cutlass import build as builder
    from agent.kernels.cutlass.toolkit import find_headers, find_nvcc, toolkit
    from gemmcast.cutlass.sets import kernels

    members = kernels(set_name, arch)
    kit = toolkit(nvcc or find_nvcc(), find_headers(headers))
    versions = f"CUTLASS {kit.headers_version}, nvcc {kit.nvcc_version}"
    folder = out or builder.default_folder()
    with build_progress(f"{len(members)} kernels for {arch} ({versions})") as progress:
        report = builder.build(members, set_name, arch, folder, kit, jobs=jobs, progress=progress)
    if as_json:
        print(json_line(report))
        return
    how = "there already" if report["cached"] else f"compiled in {report['seconds']:.0f} s"
    print(f"{report['kernels']} kernels, {how}: {report['library']}")


@app.command(name="list")
def list_kernels(
    arch: Arch,
    set_name: SetName = "default",
    dtype: Dtype = None,
    layout: Layout = None,
    as_json: AsJson = False,
) -> None:
    """List the set's configurations, as a plan names them; needs neither nvcc nor headers.

    With --json it is the JSON list that `gemmcast rank --configs-file` reads.
    """
    from gemmcast.cutlass.sets import kernels

    chosen = []
    for kernel in kernels(set_name, arch):
        if dtype in (None, kernel.dtype) and layout in (None, kernel.layout):
            chosen.append(kernel)
    if not chosen:
        wanted = " ".join(word for word in (dtype, layout) if word)
        rule = f"set {set_name} has no such kernels for {arch}"
        raise InputError("--dtype, --layout", wanted, rule, "leave them out to list all")
    if as_json:
        print(json_line([asdict(kernel.config) for kernel in chosen]))
        return
    for kernel in chosen:
        print(f"{kernel.dtype} {kernel.layout}  {kernel.config}")
