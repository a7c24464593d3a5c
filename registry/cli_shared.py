"""What the commands of `python -m registry` share: their options, and how they answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gemmcast.program import json_line
from signing.signature import Signed

_REF_HELP = "champion, challenger, or a version's number"
Ref = Annotated[str, typer.Argument(metavar="REF", help=_REF_HELP, show_default=False)]
OptionalRef = Annotated[
    str, typer.Argument(metavar="[REF]", help=f"{_REF_HELP} (champion)", show_default=False)
]
Workspace = Annotated[
    Path, typer.Option("--workspace", metavar="DIR", help="the coordinator's workspace")
]
Where = Annotated[
    str,
    typer.Option(
        "--registry",
        metavar="URI_OR_DIR",
        help="an MLflow tracking server, or a directory",
        show_default="DIR/registry",
    ),
]
Push = Annotated[
    Path | None,
    typer.Option(
        "--push",
        metavar="NODE_DIR",
        help="write the version into a node's model directory now",
        show_default=False,
    ),
]
SigningKey = Annotated[
    Path | None,
    typer.Option(
        "--signing-key",
        metavar="FILE",
        help="private key that signs it",
        envvar="GEMMCAST_SIGNING_KEY",
        show_default=False,
    ),
]
TrustedKeys = Annotated[
    Path | None,
    typer.Option(
        "--public-keys",
        metavar="FILE_OR_DIR",
        help="accept signatures of these keys only",
        envvar="GEMMCAST_PUBLIC_KEYS",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]
WORKSPACE = Path("workspace")
COLUMNS = 80
"""Width of what is shown of a card."""


def answer(as_json: bool, values: Mapping[str, object], *shown: Table | str) -> None:
    """Print one JSON object, or what is for people."""
    if as_json:
        print(json_line(values))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    for part in shown:
        console.print(part, soft_wrap=isinstance(part, str))


def signature_text(signed: Signed | None, said: str | None) -> str:
    """What is known of a version's signature, for people.

    Args:
        signed: a signature that holds.
        said: what the signature says, unchecked; None without one.
    """
    if signed:
        return signed.text()
    return f"says it is signed as {said}: no key is set to check it" if said else "not signed"


def key_name(signed: Signed | None) -> str | None:
    """The name of the key whose signature holds."""
    return signed.key.name if signed else None


def new_table(*columns: str, numbers: Collection[str] = ()) -> Table:
    """An empty table for the terminal.

    Args:
        numbers: the columns that are aligned to the right.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        justify: Literal["right", "left"] = "right" if column in numbers else "left"
        table.add_column(column, justify=justify, no_wrap=True)
    return table
