"""A node takes models and tuned tables: checked with its public keys, then swapped in.

Without public keys here (GEMMCAST_PUBLIC_KEYS) everything is taken as it comes. With them a node
takes only what was signed as champion, and nothing that was signed before what it has: going back
to an earlier version is a new signature over it. What a node has lies in its model directory, so
every agent and every command that writes there goes through here. Keys are read at each push, so a
new one needs no restart. Knows nothing of Ray or of the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gemmcast import modeldir, tabledir
from gemmcast.errors import InputError, ModelFileError
from gemmcast.modeldir import CurrentModel, ShippedModel
from gemmcast.tabledir import PlacedTables, Shipped
from signing.keys import PublicKeys, public_keys
from signing.signature import check
from signing.statement import CARD_FILE, MODEL_FILE, MODELS, TABLE_FILE, Statement

_PROMOTE = "promote it, or roll back to it, on the head with its signing key"


def take_model(directory: Path, model: ShippedModel, version: str) -> str:
    """Make a model the current one of this node; returns the version that a reader gets.

    Raises:
        ModelFileError: this node has public keys, and the model must not be used; it keeps its own.
    """
    keys = public_keys()
    if keys is not None:
        files = {MODEL_FILE: model.data, CARD_FILE: model.card}
        signed = check(model.signature, files, keys, f"model {version}")
        _check_model(signed.statement, version)
        _refuse_older(signed.statement, _model_here(directory, keys))
    modeldir.put_model(directory, model.data, version, model.signature)
    return read_model(directory, keys).version


def take_tables(directory: Path, tables: Sequence[Shipped]) -> PlacedTables:
    """Make these the tuned tables of this node; returns what a reader gets.

    Raises:
        ModelFileError: this node has public keys, and a table must not be used; it keeps its own.
    """
    keys = public_keys()
    if keys is not None:
        here = _tables_here(directory, keys)
        lineages: set[str] = set()
        for table in tables:
            statement = _checked_table(table.signature, table.data, table.version, keys)
            _refuse_older(statement, here)
            if statement.lineage in lineages:
                rule = "comes twice in one set"
                raise ModelFileError("tuned table", statement.lineage, rule, _PROMOTE)
            lineages.add(statement.lineage)
    tabledir.put_tables(directory, tables)
    return read_tables(directory, keys)


def read_model(directory: Path, keys: PublicKeys | None) -> CurrentModel:
    """The current model of a node, whole and, with keys, signed as champion.

    Raises:
        ModelFileError: there is none, or it must not be used.
    """
    current = modeldir.read_current(directory)
    data = modeldir.read_model(directory, current)
    if keys is not None:
        source = f"model {current.version}"
        signed = check(current.signature, {MODEL_FILE: data}, keys, source)
        _check_model(signed.statement, current.version)
    return current


def read_tables(directory: Path, keys: PublicKeys | None) -> PlacedTables:
    """The tuned tables of a node, whole and, with keys, signed as champions.

    Raises:
        InputError: there are none, or one must not be used.
    """
    current = tabledir.read_current(directory)
    for table in current.tables:
        data = tabledir.read_table(directory, table)
        if keys is not None:
            _checked_table(table.signature, data, table.version, keys)
    return current


def _check_model(statement: Statement, version: str) -> None:
    _check_role(statement, f"model {version}", version)
    if statement.lineage != MODELS:
        rule = f"was signed for {statement.lineage}"
        raise ModelFileError("signature", f"model {version}", rule, _PROMOTE)


def _checked_table(signature: str | None, data: bytes, version: str, keys: PublicKeys) -> Statement:
    source = f"tuned table {version}"
    signed = check(signature, {TABLE_FILE: data}, keys, source)
    _check_role(signed.statement, source, version)
    return signed.statement


def _check_role(statement: Statement, source: str, version: str) -> None:
    """Raise ModelFileError for another version, or one that was never promoted."""
    if statement.version != version:
        rule = f"was signed for version {statement.version}"
        raise ModelFileError("signature", source, rule, _PROMOTE)
    if statement.role != "champion":
        raise ModelFileError("signature", source, "was not signed as champion", _PROMOTE)


def _model_here(directory: Path, keys: PublicKeys) -> dict[str, Statement]:
    """Lineage -> what is signed of the node's model; nothing where that can't be trusted."""
    try:
        current = modeldir.read_current(directory)
    except ModelFileError:
        return {}
    return _trusted([current.signature], keys)


def _tables_here(directory: Path, keys: PublicKeys) -> dict[str, Statement]:
    """The same of its tuned tables."""
    try:
        current = tabledir.read_current(directory)
    except InputError:
        return {}
    return _trusted([table.signature for table in current.tables], keys)


def _trusted(signatures: Iterable[str | None], keys: PublicKeys) -> dict[str, Statement]:
    statements: dict[str, Statement] = {}
    for signature in signatures:
        try:
            statement = check(signature, {}, keys, "here").statement
        except ModelFileError:
            continue
        statements[statement.lineage] = statement
    return statements


def _refuse_older(statement: Statement, here: dict[str, Statement]) -> None:
    """Raise ModelFileError for what was signed before that of its lineage which this node has."""
    own = here.get(statement.lineage)
    if own is None or statement.moment >= own.moment:
        return
    rule = f"of {statement.signed_at[:19]} is older than that of version {own.version} here"
    raise ModelFileError("signature", f"version {statement.version}", rule, _PROMOTE)
