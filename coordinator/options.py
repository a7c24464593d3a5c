"""The arguments and options of the coordinator's commands: their names and help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
AsJson = Annotated[
    bool, typer.Option("--json", help="the result as one JSON object on the last line")
]
StoreUri = Annotated[
    str | None,
    typer.Option("--store", help="Delta table: a path or a URI [workspace/samples]"),
]
RegistryUri = Annotated[
    str | None,
    typer.Option("--registry", help="a directory or an MLflow server's URI [workspace/registry]"),
]
Address = Annotated[
    str | None, typer.Option(help="a Ray cluster to join; without it, one is started here")
]
ModelDirectory = Annotated[
    Path | None, typer.Option(help="where agents keep their node's model [workspace/node]")
]
WithTraining = Annotated[bool, typer.Option(help="train, publish and push while measuring")]
MinRows = Annotated[int, typer.Option(help="refuse to train on fewer rows with status ok")]
Holdout = Annotated[float, typer.Option(help="share of the shapes that is never trained on")]
ImportFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="a measured table (docs/importing.md)")
]
ImportFormat = Annotated[
    str | None,
    typer.Option("--format", help="aiconfigurator, t4, csv or parquet [by the file's content]"),
]
DeviceFile = Annotated[
    Path | None,
    typer.Option("--device", help="JSON file of the measured device [estimated from the table]"),
]
Constants = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="COLUMN=VALUE", help="a value for all T4 results; repeatable"),
]
ExportFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="a dataset, .parquet, or T4 results, .json"),
]
ExportFormat = Annotated[
    str | None, typer.Option("--format", help="parquet or t4 [by the file's name]")
]
ReportFile = Annotated[Path | None, typer.Option(help="the HTML file [workspace/report.html]")]
DemoDirectory = Annotated[
    Path, typer.Option("--directory", help="deleted and recreated by each demo")
]
DemoDataset = Annotated[
    Path | None,
    typer.Option("--dataset", help="a recorded dataset that answers in place of this machine"),
]
