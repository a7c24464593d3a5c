"""`python -m registry keys new DIR`, and `verify --node`: what needs keys and no registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemmcast import tabledir
from gemmcast.errors import InputError
from registry.cli_shared import AsJson, answer
from signing.keys import (
    PASSPHRASE,
    PUBLIC_KEYS,
    SIGNING_KEY,
    PublicKeys,
    new_pair,
    passphrase,
    public_keys,
)
from signing.node import read_model, read_tables

keys = typer.Typer(help="Keys that sign models and tuned tables.", rich_markup_mode=None)
Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="the folder for both files", show_default=False)
]


@keys.callback()
def program() -> None:
    """Keys that sign models and tuned tables."""


@keys.command()
def new(directory: Folder, as_json: AsJson = False) -> None:
    """Make a pair: a private key for the head, a public one for every node.

    GEMMCAST_SIGNING_PASSPHRASE, where it is set, encrypts the private key.
    """
    secret = passphrase()
    private_file, public_file = new_pair(directory.absolute(), secret)
    state = "encrypted" if secret else f"not encrypted: {PASSPHRASE} is not set"
    values = {"private": str(private_file), "public": str(public_file), "encrypted": bool(secret)}
    answer(
        as_json,
        values,
        f"on the head ({state}):   export {SIGNING_KEY}={private_file}",
        f"on every node (copy it there):   export {PUBLIC_KEYS}={public_file}",
    )


def _table_versions(directory: Path, keys: PublicKeys | None) -> list[str]:
    if not (directory / tabledir.CURRENT).exists():
        return []
    return [table.version for table in read_tables(directory, keys).tables]


def verify_node(directory: Path, named: Path | None, as_json: bool) -> None:
    """Say what a node's model directory holds, and whether its signatures hold.

    Raises:
        InputError: there is no model, or something there must not be used.
    """
    keys = public_keys(named)
    try:
        current = read_model(directory, keys)
        tables = _table_versions(directory, keys)
    except OSError as error:
        way_out = "the next push writes it anew"
        raise InputError("--node", str(directory), f"can't be read ({error})", way_out) from None
    checked = "signed as champion" if keys else "no public key is set, so no signature is checked"
    text = f"model {current.version} in {directory} is whole; {checked}"
    if tables:
        text += f"; so are {len(tables)} tuned tables"
    values = {"model": current.version, "tables": tables, "verified": True, "signed": bool(keys)}
    answer(as_json, values, text)
