"""The arguments and options of the coordinator's commands: their names and help texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gemmcast import __version__
from gemmcast.errors import InputError

WORKSPACE = Path("workspace")
"""Where a command works, unless another directory is named."""


def show_version(is_wanted: bool) -> None:
    """Print the version and end the program."""
    if is_wanted:
        print(f"gemmcast {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=show_version, is_eager=True, help="print the version and exit"
    ),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        metavar="text|json",
        envvar="GEMMCAST_LOG",
        help="json: one object a line on stderr (docs/watching.md); stands before the command",
        show_default="text",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="echo the whole plan, not ten lines")]
KnownDevices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        help="size it for this device, not for those of this machine: words of a known name, "
        "such as h100 or h100-sxm, or a JSON file with its description; repeat it for others",
    ),
]
PlanPath = Annotated[
    Path, typer.Argument(metavar="PLAN.toml", help="what to measure (docs/plan.md)")
]
WorkspacePath = Annotated[
    Path,
    typer.Option(
        "--workspace",
        help="directory of samples, registry and models; absolute inside a Ray job",
    ),
]
Watch = Annotated[bool, typer.Option("--watch", help="show the run again and again, until Ctrl-C")]
Every = Annotated[
    float, typer.Option("--every", metavar="SECONDS", help="with --watch: time between two looks")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="the result as one JSON object on the last line")
]
StoreUri = Annotated[
    str | None,
    typer.Option("--store", help="Delta table: a path or a URI", show_default="WORKSPACE/samples"),
]
RegistryUri = Annotated[
    str | None,
    typer.Option(
        "--registry",
        help="a directory or an MLflow server's URI",
        show_default="WORKSPACE/registry",
    ),
]
SigningKey = Annotated[
    Path | None,
    typer.Option(
        help="private key that signs champions (docs/signing.md)",
        envvar="GEMMCAST_SIGNING_KEY",
        show_default=False,
    ),
]
Address = Annotated[
    str | None, typer.Option(help="a Ray cluster to join; without it, one is started here")
]
WithoutToken = Annotated[
    bool,
    typer.Option(
        "--without-token",
        help="join several nodes that ask for no token, though whoever reaches them runs "
        "programs there (docs/security.md)",
    ),
]
PlanAddress = Annotated[
    str | None,
    typer.Option("--address", help="size it for the devices of this Ray cluster; `auto`: of ours"),
]
ModelDirectory = Annotated[
    Path | None,
    typer.Option(help="where agents keep their node's model", show_default="WORKSPACE/node"),
]
WithTraining = Annotated[bool, typer.Option(help="train, publish and push while measuring")]
MinRows = Annotated[int, typer.Option(help="refuse to train on fewer rows with status ok")]
Holdout = Annotated[float, typer.Option(help="share of the shapes that is never trained on")]
ExamFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="score the model with this table too; none of its boards and (n, k) may be in the "
        "samples. Look at it once per release",
    ),
]
BaseNames = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="BASE",
        help="what the model starts from: shipped, none or a model file; repeatable",
        show_default="shipped",
    ),
]
ImportFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="a measured table (docs/importing.md)")
]
ImportFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="aiconfigurator, t4, csv, parquet, tunableop or cutlass-profiler",
        show_default="by the file's content",
    ),
]
DeviceFile = Annotated[
    Path | None,
    typer.Option(
        "--device",
        help="JSON file of the measured device",
        show_default="estimated from the table",
    ),
]
Constants = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="COLUMN=VALUE",
        help="a value for all rows of t4, tunableop or cutlass-profiler; repeatable",
    ),
]
ExportFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="a dataset, .parquet, or T4 results, .json"),
]
ExportFormat = Annotated[
    str | None, typer.Option("--format", help="parquet or t4", show_default="by the file's name")
]
LanguageModelFile = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="CONFIG.json",
        help="a Hugging Face configuration: what this language model's GEMMs cost, and would gain",
    ),
]
TokenCounts = Annotated[str, typer.Option("--tokens", help="rows of its forward passes")]
TensorParallel = Annotated[str, typer.Option("--tp", help="GPUs that share each of its layers")]
KwhPrice = Annotated[
    float | None,
    typer.Option(
        "--kwh-price",
        metavar="PRICE",
        help="price of a kilowatt-hour, in any currency: adds what the boards' energy costs",
        show_default=False,
    ),
]
GramsPerKwh = Annotated[
    float | None,
    typer.Option(
        "--gco2-per-kwh",
        metavar="GRAMS",
        help="gCO2e of a kilowatt-hour of the grid: adds what the boards' energy emits",
        show_default=False,
    ),
]
ReportFile = Annotated[
    Path | None, typer.Option(help="the HTML file", show_default="WORKSPACE/report.html")
]
DemoDirectory = Annotated[
    Path, typer.Option("--directory", help="deleted and recreated by each demo")
]
DemoDataset = Annotated[
    Path | None,
    typer.Option("--dataset", help="a recorded dataset that answers in place of this machine"),
]
Seconds = Annotated[
    float, typer.Option("--seconds", help="judge what was measured by then; up to 3600")
]
OfSamples = Annotated[
    bool,
    typer.Option("--samples", help="judge the workspace's samples; nothing is measured"),
]
HealthDataset = Annotated[
    Path | None,
    typer.Option("--dataset", help="a recorded dataset that answers in place of boards"),
]
ClearedBoard = Annotated[
    str | None,
    typer.Option(
        "--clear", metavar="UUID", help="this board is well again: train on what it measures"
    ),
]


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """Column -> value, of the values of `--set`."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError("--set", text, "must be COLUMN=VALUE", "write --set m=1024")
        values[name] = value
    return values
