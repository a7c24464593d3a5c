"""`python -m agent.kernels.cutlass build | list`: compile a set of CUTLASS kernels, or list it.

Bad input, no nvcc or no headers end with one line and exit code 2, a file that nvcc refuses with
exit code 1.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gemmcast.errors import GemmcastError, InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="CUTLASS kernels of the agent.",
)

ARCH_HELP = "the GPUs' architecture, such as sm_90"
SET_HELP = (
    "paper (SIMT fp32), default (about 100: SIMT and tensor cores) "
    "or wide (default and wgmma; sm_90 only)"
)
JSON_HELP = "print the result as one JSON object on the last line"
OUT_HELP = "folder of the libraries, where agents look: $GEMMCAST_CUTLASS [the user's cache]"
NVCC_HELP = "path of nvcc [the first on the PATH, else NVIDIA's wheel]"
HEADERS_HELP = "a CUTLASS checkout's include/ [the package nvidia-cutlass]"
JOBS_HELP = "files compiled at once; each takes about 0.6 GiB"

Arch = Annotated[str, typer.Option("--arch", help=ARCH_HELP)]
SetName = Annotated[str, typer.Option("--set", help=SET_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


@app.command()
def build(
    arch: Arch,
    set_name: SetName = "default",
    out: Annotated[Path | None, typer.Option(help=OUT_HELP)] = None,
    nvcc: Annotated[Path | None, typer.Option(help=NVCC_HELP)] = None,
    headers: Annotated[Path | None, typer.Option(help=HEADERS_HELP)] = None,
    jobs: Annotated[int, typer.Option(min=1, help=JOBS_HELP)] = os.cpu_count() or 1,
    as_json: AsJson = False,
) -> None:
    """Compile a set into one shared library; what was compiled before is not compiled again."""
    from rich.console import Console
    from rich.progress import Progress

    from agent.kernels.cutlass import build as builder
    from agent.kernels.cutlass.generate import kernels
    from agent.kernels.cutlass.toolkit import find_headers, find_nvcc, toolkit

    members = kernels(set_name, arch)
    kit = toolkit(nvcc or find_nvcc(), find_headers(headers))
    versions = f"CUTLASS {kit.headers_version}, nvcc {kit.nvcc_version}"
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{len(members)} kernels for {arch} ({versions})", total=None)

        def progress(done: int, total: int) -> None:
            """Move the bar."""
            bar.update(task, completed=done, total=total)

        folder = out or builder.default_folder()
        report = builder.build(members, set_name, arch, folder, kit, jobs=jobs, progress=progress)
    if as_json:
        print(json.dumps(report))
        return
    how = "there already" if report["cached"] else f"compiled in {report['seconds']:.0f} s"
    print(f"{report['kernels']} kernels, {how}: {report['library']}")


@app.command(name="list")
def list_kernels(arch: Arch, set_name: SetName = "default", as_json: AsJson = False) -> None:
    """List the set's configurations, as a plan names them; needs neither nvcc nor headers."""
    from agent.kernels.cutlass.generate import kernels

    members = kernels(set_name, arch)
    if as_json:
        print(json.dumps({"kernels": [kernel.description for kernel in members]}))
        return
    for kernel in members:
        print(f"{kernel.dtype} {kernel.layout}  {kernel.config}")


def main() -> None:
    """Run the command; errors become one line and an exit code."""
    try:
        app(standalone_mode=False)
    except GemmcastError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except typer.TyperException as error:
        # Wrong usage; without a message the help has been printed.
        if error.format_message():
            print(f"error: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Exit as leaving:
        sys.exit(leaving.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


main()
