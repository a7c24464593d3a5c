"""`python -m registry list | show | promote | rollback | verify | sign | export | publish | ...`.

The registry is WORKSPACE/registry, or what --registry names. REF is champion, challenger, or the
number of a version. With --json, a command prints one JSON object as its last line. Bad input ends
with one line `error: ...` on stderr and exit code 2 (gemmcast/program.py). Tables fit into 80
columns. A run that is in progress pushes a version that is promoted or rolled back to
(coordinator/fleet/champion.py); --push writes it to a node here. Tuned tables have commands of
their own (registry/cli_tables.py), and so have keys (registry/cli_keys.py).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from typer.main import get_command

from gemmcast import __version__, modeldir, models
from gemmcast.card import ModelCard, Scores
from gemmcast.errors import InputError
from gemmcast.program import run_click
from gemmcast.score_table import (
    SCORE_COLUMNS,
    SPLITS,
    SUMMARY_TARGETS,
    score_rows,
    split_rows,
)
from registry.cli_keys import keys, verify_node
from registry.cli_shared import (
    COLUMNS,
    WORKSPACE,
    AsJson,
    OptionalRef,
    Push,
    Ref,
    SigningKey,
    TrustedKeys,
    Where,
    Workspace,
    answer,
    key_name,
    new_table,
    signature_text,
)
from registry.cli_tables import tables
from registry.kept import publish_kept
from registry.registry import PublishedModel, Registry, Version
from registry.signatures import Signatures
from signing.node import take_model

app = typer.Typer(
    help="Model versions and tuned tables: list them, choose which one runs.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
PROGRAM = "python -m registry"
SHIPPED = "shipped"
"""The model that comes with gemmcast, which is in no registry."""
app.add_typer(tables, name="tables")
app.add_typer(keys, name="keys")
_table = partial(new_table, numbers=SCORE_COLUMNS[2:])


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"gemmcast {__version__}")
        raise typer.Exit


Target = Annotated[
    Path, typer.Argument(metavar="FILE", help="the .onnx or .c file to write", show_default=False)
]
Exported = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="champion, challenger, a version's number, or shipped: the wheel's model",
        show_default=False,
    ),
]
Format = Annotated[
    str,
    typer.Option("--format", metavar="FORMAT", help="onnx, or c: a source, its header beside it"),
]
KeptModel = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="WORKSPACE/kept/model-....onnx, as the training said",
        show_default=False,
    ),
]
NodeDirectory = Annotated[
    Path | None,
    typer.Option(
        "--node",
        metavar="NODE_DIR",
        help="check what this model directory of a node holds instead",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="the whole card: baselines, families, splits")]
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
    """Model versions and tuned tables: list them, choose which one runs."""


@app.command("list")
def list_(workspace: Workspace = WORKSPACE, registry: Where = "", as_json: AsJson = False) -> None:
    """Every version, newest first."""
    versions = _open(workspace, registry).list()
    signed = ["signed"] if any(version.signed for version in versions) else []
    table = _table("version", "status", "created", "rows", "sha256", *signed)
    for version in versions:
        created, digest = version.created_at[:19], version.sha256[:12]
        says = ["as " + version.signed if version.signed else "no"] if signed else []
        table.add_row(version.number, version.status, created, str(version.rows), digest, *says)
    answer(as_json, {"versions": [asdict(version) for version in versions]}, table)


@app.command()
def show(
    ref: OptionalRef = "champion",
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    whole: All = False,
    as_json: AsJson = False,
) -> None:
    """How wrong a version is and on what data; with --all its whole card."""
    published = _open(workspace, registry).load(ref)
    card = json.loads(published.card.to_json())
    values = {"version": asdict(published.version), "card": card}
    shown = [*_errors(published), *(_card(published) if whole else ())]
    answer(as_json, values, *shown)


@app.command()
def promote(
    ref: Ref,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    push: Push = None,
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Verify a version and make it the champion; a run in progress pushes it to its nodes."""
    versions = _open(workspace, registry, signing_key)
    if push:
        modeldir.check_writable(push)
    version = versions.promote(ref)
    text = f"version {version.number} is the champion"
    _answer_champion(as_json, versions, version, push, text)


@app.command()
def rollback(
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    push: Push = None,
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Make the champion before this one the champion again; repeated, it goes further back."""
    versions = _open(workspace, registry, signing_key)
    if push:
        modeldir.check_writable(push)
    version = versions.rollback()
    text = f"version {version.number} is the champion again"
    _answer_champion(as_json, versions, version, push, text)


@app.command()
def verify(
    ref: OptionalRef = "champion",
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    public_keys: TrustedKeys = None,
    node: NodeDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Compare a version with its hash and, where a key is set, check its signature."""
    if node:
        verify_node(node, public_keys, as_json)
        return
    versions = _open(workspace, registry, public_keys=public_keys)
    version, signed = versions.resolve(ref), versions.signed(ref)
    whole = f"version {version.number} is whole (SHA-256 {version.sha256})"
    text = f"{whole}; {signature_text(signed, version.signed)}"
    _answer_version(as_json, version, text, verified=True, key=key_name(signed))


@app.command()
def sign(
    ref: Ref,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Sign a version that you trust: one of before there was a key, or of an older key."""
    version = _open(workspace, registry, signing_key).sign(ref)
    text = f"version {version.number} is signed as {version.signed}"
    _answer_version(as_json, version, text)


@app.command()
def export(
    ref: Exported,
    file: Target,
    kind: Format = "onnx",
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    as_json: AsJson = False,
) -> None:
    """Write a version as an .onnx file or as C, with test vectors beside it."""
    from registry.exporting import export_files

    version = None
    model, source = models.path().read_bytes(), "the shipped model"
    if ref != SHIPPED:
        model, _, version = _open(workspace, registry).load(ref)
        source = f"version {version.number}"
    files = [str(path) for path in export_files(model, file, kind, source)]
    values = {"version": version and asdict(version), "path": str(file), "files": files}
    answer(as_json, values, f"{source} is in {', '.join(files)}")


@app.command()
def publish(
    file: KeptModel,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Publish a model that a training kept, because the registry refused it then."""
    version, objection = publish_kept(_open(workspace, registry, signing_key), file)
    text = f"version {version.number} is the {version.status}"
    if objection:
        text += f": {objection}; registry promote {version.number} makes it champion"
    _answer_version(as_json, version, text, objection=objection)


def _open(
    workspace: Path,
    registry: str,
    signing_key: Path | None = None,
    public_keys: Path | None = None,
) -> Registry:
    signatures = Signatures(signing_key, public_keys)
    return Registry(registry or workspace / "registry", signatures)


def _answer_champion(
    as_json: bool, versions: Registry, version: Version, push: Path | None, text: str
) -> None:
    """Push the new champion where that is wanted, and say how the nodes get it."""
    pushed = None
    if push:
        pushed = _push(versions, version, push)
        reach = f"the model directory {push} has it"
    else:
        way_out = "--push NODE_DIR writes it now"
        reach = f"a run in progress pushes it within 5 s, else the next run does; {way_out}"
    _answer_version(as_json, version, f"{text}; {reach}", pushed=pushed)


def _push(versions: Registry, version: Version, directory: Path) -> str:
    """Returns the version that a reader of the directory gets now."""
    try:
        return take_model(directory, versions.ship(version.number), version.number)
    except OSError as error:
        rule = f"version {version.number} is the champion, but can't be written there"
        way_out = "run the command again, or let the next run push it"
        raise InputError("--push", str(directory), f"{rule} ({error.strerror})", way_out) from None


def _answer_version(as_json: bool, version: Version, text: str, **more: object) -> None:
    answer(as_json, {"version": asdict(version), **more}, text)


def _errors(published: PublishedModel) -> Iterator[Table | str]:
    """The answer: how wrong the model is, and on what."""
    card = published.card
    rows = f"{card.test_rows} held-out rows of {card.test_shapes} shapes"
    if card.exam:
        yield textwrap.fill(f"exam: errors in per cent on {card.exam['split']}", COLUMNS)
        yield _model_table(card.exam["scores"])
    yield f"version {_names(published.version)}: errors in per cent on {rows}"
    yield _model_table(card.scores)
    yield _facts({"devices": _devices(card), "trained": f"{card.created_at} on {_rows(card)}"})


def _model_table(scores: Scores) -> Table:
    table = _table("target", *SCORE_COLUMNS[2:])
    for target, method, *numbers in score_rows(scores):
        if method == "model":
            table.add_row(SUMMARY_TARGETS.get(target, target), *numbers)
    return table


def _card(published: PublishedModel) -> Iterator[Table | str]:
    """The other facts of a card, then its score tables."""
    card = published.card
    facts = {
        "sha256": published.version.sha256,
        "program": f"gemmcast {card.program_version}, contract {card.contract}",
        "targets": ", ".join(card.targets),
        "split": _split(card),
        "parity": f"{_shown(card.parity_max_rel)} largest relative difference from scikit-learn",
        "latency": f"{_shown(card.latency_p50_us)} us a query",
    }
    yield _facts(facts)
    yield "\nbeside the baselines, in per cent"
    yield _score_table(card.scores)
    for family, scores in card.scores_by_family.items():
        yield f"family {family}"
        yield _score_table(scores)
    for name, part in card.generalisation.items():
        yield textwrap.fill(f"generalisation, {name}: {part['split']}", COLUMNS)
        yield _score_table(part["scores"])
    for target, name in SUMMARY_TARGETS.items():
        rows = split_rows(card, target)
        if rows:
            yield f"{name}: median / mean error (within the 90 % interval), per cent"
            table = _table("kernels", *SPLITS.values())
            for row in rows:
                table.add_row(*row)
            yield table


def _facts(facts: Mapping[str, str]) -> str:
    lines = []
    for name, fact in facts.items():
        lines.append(textwrap.fill(f"{name:9} {fact}", COLUMNS, subsequent_indent=10 * " "))
    return "\n".join(lines)


def _names(version: Version) -> str:
    aliases = [alias for alias in version.aliases if alias != version.status]
    return " ".join([version.number, version.status, *aliases])


def _rows(card: ModelCard) -> str:
    if card.store_version is None:
        return f"{card.rows} rows"
    return f"{card.rows} rows of sample store version {card.store_version}"


def _devices(card: ModelCard) -> str:
    return ", ".join(f"{device} ({rows})" for device, rows in card.rows_by_device.items())


def _split(card: ModelCard) -> str:
    training = f"{card.train_rows} rows of {card.train_shapes} shapes to train"
    test = f"{card.test_rows} of {card.test_shapes} to test"
    return f"{card.split}: {training}, {test}"


def _score_table(scores: Scores) -> Table:
    table = _table(*SCORE_COLUMNS)
    for target, method, *numbers in score_rows(scores):
        # The model's row is the first of each target.
        table.add_row(target if method == "model" else "", method, *numbers)
    return table


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"
