"""The options of `python -m coordinator tune`: their names and help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TOKENS = "1,16,64,256,1024,4096"
TP = 1
DTYPE = "bf16"

GemmFile = Annotated[
    Path | None,
    typer.Option(
        "--gemms",
        metavar="FILE",
        help="CSV or JSON of m, n, k and if need be batch, dtype, layout, weight, name, kernel",
    ),
]
ModelConfig = Annotated[
    Path | None,
    typer.Option(
        "--model", metavar="CONFIG.json", help="config.json of a language model: its GEMMs"
    ),
]
Tokens = Annotated[
    str | None,
    typer.Option(
        "--tokens",
        metavar="N,N,...",
        help="with --model: tokens of a forward pass",
        show_default=TOKENS,
    ),
]
TensorParallel = Annotated[
    int | None,
    typer.Option("--tp", help="with --model: GPUs that share each layer", show_default=str(TP)),
]
ModelDType = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="with --model: of what the file does not quantize", show_default=DTYPE
    ),
]
ObjectiveText = Annotated[
    str, typer.Option("--objective", help="time, energy, edp or time-under-watts=W")
]
FamilyNames = Annotated[
    str | None,
    typer.Option(
        "--families",
        metavar="F,F:KERNEL,...",
        help="kernel families; the first that can run a GEMM has its default",
        show_default="all",
    ),
]
KernelSet = Annotated[
    str | None,
    typer.Option("--kernel-set", help="of Triton's configurations those of this set: short, usual"),
]
Top = Annotated[int, typer.Option("--top", help="rivals in the first turn; later up to 2.5 times")]
BudgetText = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="time of each type of device: 90s, 10m",
        show_default="none",
    ),
]
DevicesText = Annotated[
    str,
    typer.Option("--devices", help="auto, cuda, cpu or replay:FILE[@DEVICE][,replay:...]"),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="directory of the tables", show_default="WORKSPACE/tuned"),
]
Again = Annotated[
    bool, typer.Option("--again", help="measure anew what an equal tuning has measured")
]
