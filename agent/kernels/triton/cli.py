"""`python -m agent.kernels.triton build | list`: compile Triton kernels ahead, or list them.

Bad input or no Triton end with one line and exit code 2 (gemmcast/program.py); a kernel that Triton
refuses does not end a build, it is counted and its cells become rows. `list --json` prints what
`gemmcast rank --configs-file` reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from agent.kernels.build_progress import build_progress
from gemmcast import __version__
from gemmcast.config import TRITON_KERNELS, KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.program import json_line, run_click

if TYPE_CHECKING:
    from agent.kernels.triton.build import BuildReport
    from agent.kernels.triton.description import TritonKernel

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
PROGRAM = "python -m agent.kernels.triton"
JOBS = os.cpu_count() or 1
SIDE = 256
"""Of a GEMM that stands for all of its dtype and layout: what is compiled depends on no size."""
KERNEL_HELP = "a kernel of ours, or the path of a description (.toml); may be given several times"
SET_HELP = "usual (the 1,280 of vLLM's tuner that fit) or short (192 of them); of our kernels"


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"gemmcast {__version__}")
        raise typer.Exit


Arch = Annotated[str, typer.Option("--arch", help="the GPUs' architecture, such as sm_90")]
SetName = Annotated[str, typer.Option("--set", help=SET_HELP)]
Kernels = Annotated[
    list[str] | None, typer.Option("--kernel", help=KERNEL_HELP, show_default="all of ours")
]
AsJson = Annotated[bool, typer.Option("--json", help="print one line of JSON as the last line")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="only these", show_default="all")]
Layout = Annotated[str | None, typer.Option("--layout", help="only these", show_default="all")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="folder of the cubins, where agents look",
        show_default="$GEMMCAST_TRITON, else the user's cache",
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="kernels compiled at once; each takes 0.5 GiB")]
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
    """Triton kernels of the agent."""


@app.command()
def build(
    arch: Arch,
    kernel: Kernels = None,
    set_name: SetName = "usual",
    dtype: Dtype = None,
    layout: Layout = None,
    out: Out = None,
    jobs: Jobs = JOBS,
    as_json: AsJson = False,
) -> None:
    """Compile the kernels of all configurations; what was compiled before is not compiled again."""
    from agent.kernels.triton import build as builder
    from agent.kernels.triton.compiler import TritonCompiler
    from agent.kernels.triton.cubins import Cubins, default_folder

    chosen = _chosen(kernel, set_name, arch, dtype, layout)
    needed = [
        one
        for described, gemm, configs in chosen
        for one in builder.compilations_of(described, gemm, configs, arch)
    ]
    compilations = list({one.key: one for one in needed}.values())
    compiler = TritonCompiler()
    label = f"{len(compilations)} kernels for {arch} (Triton {compiler.version})"
    with build_progress(label) as progress:
        report = builder.build(
            compilations,
            Cubins(out or default_folder()),
            compiler,
            arch=arch,
            configurations=sum(len(configs) for _, _, configs in chosen),
            jobs=jobs,
            progress=progress,
        )
    print(json_line(report) if as_json else _report(report))


def _report(report: BuildReport) -> str:
    of = f"{report['configurations']} configurations in {report['kernels']} kernels"
    how = f"{report['cached']} were there, {report['failed']} refused by Triton"
    size = f"{report['bytes'] / 2**20:.1f} MiB, {report['seconds']:.0f} s"
    return f"{of} ({how}; {size}): {report['folder']}"


@app.command(name="list")
def list_kernels(
    arch: Arch,
    kernel: Kernels = None,
    set_name: SetName = "usual",
    dtype: Dtype = None,
    layout: Layout = None,
    as_json: AsJson = False,
) -> None:
    """List the configurations, as a plan names them; needs no Triton.

    With --json it is the JSON list that `gemmcast rank --configs-file` reads.
    """
    chosen = _chosen(kernel, set_name, arch, dtype, layout)
    if as_json:
        configs = [config for _, _, configs in chosen for config in configs]
        print(json_line([asdict(config) for config in dict.fromkeys(configs)]))
        return
    for _, gemm, configs in chosen:
        for config in configs:
            print(f"{gemm.dtype} {gemm.layout}  {config}")


def _chosen(
    kernels: list[str] | None, set_name: str, arch: str, dtype: str | None, layout: str | None
) -> list[tuple[TritonKernel, Gemm, list[KernelConfig]]]:
    """Each kernel with each of its dtypes and layouts, and the configurations of that.

    Raises:
        InputError: an unknown name, or none is left.
    """
    from agent.kernels.triton.description import read_triton
    from agent.kernels.triton.sets import all_configs

    chosen = []
    for name in kernels or TRITON_KERNELS:
        described = read_triton(name)
        for gemm in _problems(described, dtype, layout):
            chosen.append((described, gemm, all_configs(described, set_name, arch, gemm)))
    if not chosen:
        wanted = " ".join(word for word in (dtype, layout) if word)
        rule = f"{', '.join(kernels or TRITON_KERNELS)} have no such kernels"
        raise InputError("--dtype, --layout", wanted, rule, "leave them out to take all")
    return chosen


def _problems(kernel: TritonKernel, dtype: str | None, layout: str | None) -> list[Gemm]:
    problems = []
    for one_dtype in kernel.description.dtypes:
        for one_layout in kernel.description.layouts:
            if dtype in (None, one_dtype) and layout in (None, one_layout):
                gemm = Gemm(m=SIDE, n=SIDE, k=SIDE, dtype=one_dtype, layout=one_layout)
                problems.append(gemm)
    return problems
