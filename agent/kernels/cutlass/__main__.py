"""`python -m agent.kernels.cutlass build | list`: compile a set of CUTLASS kernels, or say which configurations it holds.

Bad input, no nvcc or no headers end with one line and exit code 2, a file that nvcc refuses with exit code 1.
"""

from __future__ import annotations

import json as jsons
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from gemmcast.errors import GemmcastError, InputError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="CUTLASS kernels of the agent.")

Arch = Annotated[str, typer.Option("--arch", help="the GPUs' architecture, such as sm_90")]
Set = Annotated[str, typer.Option("--set", help="paper (SIMT fp32), default (about 100: SIMT and tensor cores) or wide (and wgmma, sm_90 alone)")]
AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON object on the last line")]


@app.command()
def build(
    arch: Arch,
    of_set: Set = "default",
    out: Annotated[Path | None, typer.Option(help="where agents look, too: $GEMMCAST_CUTLASS [the user's cache]")] = None,
    nvcc: Annotated[Path | None, typer.Option(help="which nvcc [the first on the PATH, else NVIDIA's wheel]")] = None,
    headers: Annotated[Path | None, typer.Option(help="a CUTLASS checkout's include/ [the package nvidia-cutlass]")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="files compiled at once; each takes about 0.6 GiB")] = os.cpu_count() or 1,
    json: AsJson = False,
) -> None:
    """Compile a set into one shared library; what was compiled before is not compiled again."""
    from rich.console import Console
    from rich.progress import Progress

    from agent.kernels.cutlass import build as builder
    from agent.kernels.cutlass.generate import kernels

    made = kernels(of_set, arch)
    kit = builder.toolkit(nvcc or builder.find_nvcc(), builder.find_headers(headers))
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{len(made)} kernels for {arch} (CUTLASS {kit.headers_version}, nvcc {kit.nvcc_version})", total=None)
        found = builder.build(
            made,
            of_set,
            arch,
            out or builder.default_folder(),
            kit,
            jobs=jobs,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        print(jsons.dumps(found))
    else:
        how = "there already" if found["cached"] else f"compiled in {found['seconds']:.0f} s"
        print(f"{found['kernels']} kernels, {how}: {found['library']}")


@app.command(name="list")
def list_kernels(arch: Arch, of_set: Set = "default", json: AsJson = False) -> None:
    """The set's configurations, as a plan names them; needs neither nvcc nor headers."""
    from agent.kernels.cutlass.generate import kernels

    made = kernels(of_set, arch)
    if json:
        print(jsons.dumps({"kernels": [kernel.description for kernel in made]}))
    else:
        print("\n".join(f"{kernel.dtype} {kernel.layout}  {kernel.config}" for kernel in made))


def main() -> None:
    try:
        app(standalone_mode=False)
    except GemmcastError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except typer.Exit as leaving:
        sys.exit(leaving.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's own: wrong usage
            error.show()
            sys.exit(error.exit_code)
        raise


main()
