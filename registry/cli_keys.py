"""`python -m registry keys new DIR`: a key pair that signs models and tuned tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from registry.cli_shared import AsJson, answer
from signing.keys import PASSPHRASE, PUBLIC_KEYS, SIGNING_KEY, new_pair, passphrase

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
