"""`python -m registry list | show | promote | rollback | verify | export`.

The registry is WORKSPACE/registry, or what --registry names. REF is champion, challenger, or a version's number.
Every command takes --json and then prints one JSON object as its last line; bad input ends with one line on stderr and exit code 2.
Promoting and rolling back are fine while a coordinator runs: it pushes the champion that it finds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gemmcast.card import ModelCard, Scores
from gemmcast.errors import GemmcastError
from gemmcast.score_table import SCORE_COLUMNS, score_rows
from registry.registry import Registry, Version

app = typer.Typer(help="Model versions: which there are, which one runs.", add_completion=False, rich_markup_mode=None)

Ref = Annotated[str, typer.Argument(metavar="REF", help="champion, challenger, or a version's number", show_default=False)]
OptionalRef = Annotated[
    str, typer.Argument(metavar="[REF]", help="champion (taken when absent), challenger, or a version's number", show_default=False)
]
Target = Annotated[Path, typer.Argument(metavar="FILE", help="the .onnx file to write", show_default=False)]
Workspace = Annotated[Path, typer.Option("--workspace", metavar="DIR", help="the coordinator's workspace")]
Where = Annotated[
    str, typer.Option("--registry", metavar="URI_OR_DIR", help="an MLflow tracking server, or a directory", show_default="DIR/registry")
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]
WORKSPACE = Path("workspace")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or 2 for bad input."""
    try:
        return app(args=argv, prog_name="python -m registry", standalone_mode=False) or 0
    except (GemmcastError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        print("registry:", " ".join(message.split()), file=sys.stderr)
        return 2


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, registry: Where = "", as_json: AsJson = False) -> None:
    """Every version, newest first."""
    versions = _open(workspace, registry).list()
    table = _table("version", "status", "created", "rows", "sha256")
    for version in versions:
        table.add_row(version.number, version.status, version.created_at[:19], str(version.rows), version.sha256[:12])
    _answer(as_json, {"versions": [asdict(version) for version in versions]}, table)


@app.command()
def show(ref: OptionalRef = "champion", workspace: Workspace = WORKSPACE, registry: Where = "", as_json: AsJson = False) -> None:
    """A version's card: its data, its errors, the baselines."""
    _, card, version = _open(workspace, registry).load(ref)
    _answer(as_json, {"version": asdict(version), "card": json.loads(card.to_json())}, *_card(version, card))


@app.command()
def promote(ref: Ref, workspace: Workspace = WORKSPACE, registry: Where = "", as_json: AsJson = False) -> None:
    """Make a version the champion, once it is verified."""
    version = _open(workspace, registry).promote(ref)
    _answer(as_json, {"version": asdict(version)}, f"version {version.number} is the champion")


@app.command()
def rollback(workspace: Workspace = WORKSPACE, registry: Where = "", as_json: AsJson = False) -> None:
    """Make the champion before this one the champion again."""
    version = _open(workspace, registry).rollback()
    _answer(as_json, {"version": asdict(version)}, f"version {version.number} is the champion again")


@app.command()
def verify(ref: OptionalRef = "champion", workspace: Workspace = WORKSPACE, registry: Where = "", as_json: AsJson = False) -> None:
    """Read a version whole: is it what was published?"""
    version = _open(workspace, registry).verify(ref)
    _answer(as_json, {"version": asdict(version), "verified": True}, f"version {version.number} is whole (SHA-256 {version.sha256})")


@app.command()
def export(ref: Ref, file: Target, workspace: Workspace = WORKSPACE, registry: Where = "", as_json: AsJson = False) -> None:
    """Write a version's .onnx file."""
    version = _open(workspace, registry).export(ref, file)
    _answer(as_json, {"version": asdict(version), "path": str(file)}, f"version {version.number} is in {file}")


def _open(workspace: Path, registry: str) -> Registry:
    return Registry(registry or workspace / "registry")


def _answer(as_json: bool, values: dict[str, Any], *shown: Table | str) -> None:
    if as_json:
        print(json.dumps(values))
        return
    console = Console(highlight=False, markup=False)
    for each in shown:
        console.print(each, soft_wrap=isinstance(each, str))


def _card(version: Version, card: ModelCard) -> Iterator[Table | str]:
    said = {
        "version": " ".join([version.number, version.status, *(alias for alias in version.aliases if alias != version.status)]),
        "sha256": version.sha256,
        "trained": f"{card.created_at} by gemmcast {card.program_version}, contract {card.contract}",
        "targets": ", ".join(card.targets),
        "rows": f"{card.rows}" + (f" of sample store version {card.store_version}" if card.store_version is not None else ""),
        "devices": ", ".join(f"{device} ({rows})" for device, rows in card.rows_by_device.items()),
        "split": f"{card.split}: {card.train_rows} rows of {card.train_shapes} shapes to train, {card.test_rows} of {card.test_shapes} to test",
        "parity": f"{_shown(card.parity_max_rel)} largest relative difference from scikit-learn",
        "latency": f"{_shown(card.latency_p50_us)} us a question",
    }
    yield "\n".join(f"{name:9} {value}" for name, value in said.items())
    yield _scores("errors on the test rows, percent", card.scores)
    for family, scores in card.scores_by_family.items():
        yield _scores(f"family {family}", scores)
    for name, part in card.generalisation.items():
        yield _scores(f"unseen {name}: {part['split']}", part["scores"])


def _scores(title: str, scores: Scores) -> Table:
    """Errors in per cent, the model's first."""
    table = _table(*SCORE_COLUMNS, title=title)
    for target, method, *numbers in score_rows(scores):
        # the model's row is the first of each target
        table.add_row(target if method == "model" else "", method, *numbers)
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in SCORE_COLUMNS[2:] else "left", no_wrap=True)
    return table


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"
