"""`python -m registry tables publish | list | show | promote | rollback | verify | sign | ...`.

A registry has one champion for each type of device and objective. --device and --objective say
which is meant; they may be left out where there is only one. A run in progress pushes a table that
is promoted or rolled back to (coordinator/fleet/table_watch.py), and so does --push or `push` to a
node here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmcast import modeldir, tabledir
from gemmcast.errors import InputError
from registry.cli_shared import (
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
from registry.signatures import Signatures
from signing.node import take_tables

if TYPE_CHECKING:
    from rich.table import Table

    from gemmcast.tuned_entry import TunedEntry
    from gemmcast.tuned_table import TunedTable
    from registry.tables import TableLineage, TableRegistry
    from registry.versions import Version

tables = typer.Typer(help="Tuned tables: which kernel runs for each GEMM.", rich_markup_mode=None)
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="tables of one key, .json or .parquet; several are merged",
        show_default=False,
    ),
]
Target = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="the .json or .parquet to write", show_default=False),
]
NodeDirectory = Annotated[
    Path,
    typer.Argument(metavar="NODE_DIR", help="a node's model directory", show_default=False),
]
OnDevice = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="words of its name: h100", show_default=False),
]
For = Annotated[
    str | None,
    typer.Option("--objective", metavar="O", help="time, energy, edp, ...", show_default=False),
]
Promote = Annotated[bool, typer.Option("--promote", help="make it the champion at once")]


@tables.command()
def publish(
    files: Files,
    promote_it: Promote = False,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Add a table as a new version; the champion stays, unless --promote."""
    first, *others = [_read(path) for path in files]
    lineage, version = _open(workspace, registry, signing_key).publish(first.merged_with(*others))
    way_out = f"python -m registry tables promote {version.number} makes it the champion"
    if promote_it:
        version = lineage.promote(version.number)
        way_out = "it is the champion"
    text = f"version {version.number} of {_name(lineage)}: {version.rows} entries; {way_out}"
    _answer_version(as_json, lineage, version, text)


@tables.command("list")
def list_(workspace: Workspace = WORKSPACE, registry: Where = "", as_json: AsJson = False) -> None:
    """Every version of every table, newest first."""
    shown: list[Table | str] = []
    values: list[dict[str, object]] = []
    for lineage in _open(workspace, registry).lineages():
        listed = new_table("version", "status", "created", "entries", "sha256")
        for version in lineage.list():
            created, digest = version.created_at[:19], version.sha256[:12]
            entries = str(version.rows)
            listed.add_row(version.number, version.status, created, entries, digest)
            values.append(_values(lineage, version))
        shown += [_name(lineage), listed]
    nothing = "no tuned table yet: python -m registry tables publish FILE"
    answer(as_json, {"tables": values}, *(shown or [nothing]))


@tables.command()
def show(
    ref: OptionalRef = "champion",
    device: OnDevice = None,
    objective: For = None,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    as_json: AsJson = False,
) -> None:
    """What a table was tuned on, and its entries."""
    lineage = _open(workspace, registry).lineage(device, objective)
    published = lineage.load(ref)
    table, version = published.table, published.version
    head = f"version {version.number} {version.status} of {_name(lineage)}"
    values = {**_values(lineage, version), "table": table.values()}
    answer(as_json, values, head, *_lines(table))


@tables.command()
def promote(
    ref: Ref,
    device: OnDevice = None,
    objective: For = None,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    push_to: Push = None,
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Verify a version and make it the champion; a run in progress pushes it to its nodes."""
    opened = _open(workspace, registry, signing_key)
    lineage = opened.lineage(device, objective)
    if push_to:
        modeldir.check_writable(push_to)
    version = lineage.promote(ref)
    _answer_champion(as_json, opened, lineage, version, push_to, "is the champion")


@tables.command()
def rollback(
    device: OnDevice = None,
    objective: For = None,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    push_to: Push = None,
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Make the champion before this one the champion again; repeated, it goes further back."""
    opened = _open(workspace, registry, signing_key)
    lineage = opened.lineage(device, objective)
    if push_to:
        modeldir.check_writable(push_to)
    version = lineage.rollback()
    _answer_champion(as_json, opened, lineage, version, push_to, "is the champion again")


@tables.command()
def verify(
    ref: OptionalRef = "champion",
    device: OnDevice = None,
    objective: For = None,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    public_keys: TrustedKeys = None,
    as_json: AsJson = False,
) -> None:
    """Read a version and compare it with its hash."""
    lineage = _open(workspace, registry, public_keys=public_keys).lineage(device, objective)
    version, signed = lineage.resolve(ref), lineage.signed(ref)
    whole = f"version {version.number} of {_name(lineage)} is whole (SHA-256 {version.sha256})"
    text = f"{whole}; {signature_text(signed, version.signed)}"
    _answer_version(as_json, lineage, version, text, verified=True, key=key_name(signed))


@tables.command()
def sign(
    ref: Ref,
    device: OnDevice = None,
    objective: For = None,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Sign a version that you trust: one of before there was a key, or of an older key."""
    lineage = _open(workspace, registry, signing_key).lineage(device, objective)
    version = lineage.sign(ref)
    text = f"version {version.number} of {_name(lineage)} is signed as {version.signed}"
    _answer_version(as_json, lineage, version, text)


@tables.command()
def export(
    ref: Ref,
    file: Target,
    device: OnDevice = None,
    objective: For = None,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    as_json: AsJson = False,
) -> None:
    """Write a version as .json or .parquet."""
    _check_ending(file)
    lineage = _open(workspace, registry).lineage(device, objective)
    published = lineage.load(ref)
    _write(published.table, file)
    version = published.version
    text = f"version {version.number} of {_name(lineage)} is in {file}"
    _answer_version(as_json, lineage, version, text, path=str(file))


@tables.command()
def push(
    node: NodeDirectory,
    workspace: Workspace = WORKSPACE,
    registry: Where = "",
    as_json: AsJson = False,
) -> None:
    """Write every champion into a node's model directory now."""
    placed = _push(_open(workspace, registry), node)
    text = f"{node} has {len(placed.tables)} tuned tables (set {placed.version})"
    answer(as_json, asdict(placed), text)


def _open(
    workspace: Path,
    registry: str,
    signing_key: Path | None = None,
    public_keys: Path | None = None,
) -> TableRegistry:
    # Reading tables takes a while to import; --help needs none of it.
    from registry.tables import TableRegistry

    signatures = Signatures(signing_key, public_keys)
    return TableRegistry(registry or workspace / "registry", signatures)


def _read(path: Path) -> TunedTable:
    from gemmcast.tuned_table import TunedTable

    if path.suffix != ".parquet":
        return TunedTable.read(path)
    from gemmcast.tuned_parquet import read_parquet

    return read_parquet(path)


def _check_ending(path: Path) -> None:
    if path.suffix not in (".json", ".parquet"):
        way_out = "name a file that ends in .json or .parquet"
        raise InputError("FILE", str(path), "says no format", way_out)


def _write(table: TunedTable, path: Path) -> None:
    try:
        if path.suffix == ".json":
            table.write(path)
            return
        from gemmcast.tuned_parquet import write_parquet

        write_parquet(table, path)
    except OSError as error:
        way_out = "name a file in a directory that you may write"
        rule = f"can't be written ({error.strerror})"
        raise InputError("FILE", str(path), rule, way_out) from None


def _push(opened: TableRegistry, node: Path) -> tabledir.PlacedTables:
    modeldir.check_writable(node)
    shipped = opened.shipped()
    if not shipped:
        way_out = "promote one: python -m registry tables promote REF"
        raise InputError("registry", "tables", "no table is champion", way_out)
    return take_tables(node, shipped)


def _lines(table: TunedTable) -> Iterator[str]:
    """What a table was tuned on, then two lines for each entry."""
    key = {name: value for name, value in asdict(table.key).items() if value is not None}
    yield from (f"{name:14} {value}" for name, value in key.items())
    for entry in table.entries:
        counts = f"{entry.measured} of {entry.possible} measured"
        yield f"{entry.gemm}: {_gain(entry)}, {counts}"
        yield f"    {entry.winner}"


def _gain(entry: TunedEntry) -> str:
    if entry.keeps_default:
        return "the default"
    kind = "measured" if entry.verified else "predicted"
    interval = f"{entry.gain_low:.3f} to {entry.gain_high:.3f}"
    return f"gain {entry.gain:.3f} {kind} ({interval})"


def _answer_champion(
    as_json: bool,
    opened: TableRegistry,
    lineage: TableLineage,
    version: Version,
    node: Path | None,
    state: str,
) -> None:
    """Push the champions where that is wanted, and say how the nodes get them."""
    pushed = None
    reach = "a run in progress pushes it within 5 s, else the next run does; --push NODE_DIR now"
    if node:
        pushed = _push(opened, node).version
        reach = f"the model directory {node} has it"
    text = f"version {version.number} of {_name(lineage)} {state}; {reach}"
    _answer_version(as_json, lineage, version, text, pushed=pushed)


def _answer_version(
    as_json: bool, lineage: TableLineage, version: Version, text: str, **more: object
) -> None:
    answer(as_json, {**_values(lineage, version), **more}, text)


def _values(lineage: TableLineage, version: Version) -> dict[str, object]:
    named = {"device": lineage.device, "objective": lineage.key.objective}
    return {**named, "version": asdict(version)}


def _name(lineage: TableLineage) -> str:
    return f"{lineage.device}, {lineage.key.objective}"
