"""A signature over the files of a version, and its check.

    {"statement": TEXT, "bundle": {...}}       the text of a signature

The bundle is what OpenSSF's model-signing writes for a folder with the version's files and the
statement (signing/statement.py) as `version.json`: a Sigstore bundle with a DSSE envelope around an
in-toto statement, which lists the SHA-256 of each file. It is checked here and not by that library,
whose import takes a second and 50 MiB on every node; docs/decisions/0027-signing.md has the
figures. `cryptography` checks the signature itself.

Sources: https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md (`_signed_text`),
https://github.com/sigstore/model-transparency (the payload), https://docs.sigstore.dev/about/bundle.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple

from gemmcast.errors import ModelFileError
from signing.keys import PUBLIC_KEYS, PublicKey, PublicKeys
from signing.statement import STATEMENT_FILE, Statement

BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
SIGN_IT: Final = "if you trust it, sign it on the head: python -m registry sign REF"
_AGAIN: Final = "it was altered: fetch it again, or publish another version"


class Signed(NamedTuple):
    """A signature that was checked."""

    statement: Statement
    """What it says."""
    key: PublicKey
    """Whose it is."""

    def text(self) -> str:
        """For people: with which key, as what, when."""
        return f"signed with key {self.key.name} {self.statement.text()}"


class _Bundle(NamedTuple):
    """The parts of a bundle that count."""

    hint: str
    """The digest of the key."""
    payload: bytes
    """The in-toto statement, which is signed."""
    signature: bytes
    """ECDSA, in DER."""


def to_text(statement: str, bundle: str) -> str:
    """The text of a signature.

    Args:
        statement: as it was signed.
        bundle: what model-signing wrote.
    """
    return json.dumps({"statement": statement, "bundle": json.loads(bundle)})


def stated(text: str | None) -> Statement | None:
    """What a signature says, unchecked; None without one, or where it can't be read."""
    try:
        return None if text is None else Statement.from_json(json.loads(text)["statement"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def check(text: str | None, files: Mapping[str, bytes], keys: PublicKeys, source: str) -> Signed:
    """What is signed, if the signature is one of these keys' and over these very files.

    Args:
        text: of the signature; None: there is none.
        files: name -> content, of those that are used; the signature may be over more.
        source: which version of what; for messages.

    Raises:
        ModelFileError: unsigned, altered, or signed with another key.
    """
    if text is None:
        rule = f"is missing, and {PUBLIC_KEYS} is set"
        raise ModelFileError("signature", source, rule, SIGN_IT)
    statement, bundle = _parts(text, source)
    key = keys.get(bundle.hint)
    if key is None:
        rule = f"is of key {bundle.hint[:12]!r}, not of {keys.names}"
        way_out = f"{SIGN_IT}; or add that key to {PUBLIC_KEYS}"
        raise ModelFileError("signature", source, rule, way_out)
    if not key.verifies(_signed_text(bundle.payload), bundle.signature):
        raise ModelFileError("signature", source, f"is not of key {key.name}", _AGAIN)
    hashes = _hashes(bundle.payload, source)
    for name, data in {**files, STATEMENT_FILE: statement}.items():
        if hashes.get(name) != sha256(data).hexdigest():
            rule = f"does not fit: {name} is not what was signed"
            raise ModelFileError("signature", source, rule, _AGAIN)
    return Signed(_statement(statement, source), key)


def _parts(text: str, source: str) -> tuple[bytes, _Bundle]:
    try:
        values = json.loads(text)
        return str(values["statement"]).encode(), _bundle(values["bundle"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(source, error) from None


def _bundle(values: Mapping[str, Any]) -> _Bundle:
    """Raises ValueError, KeyError or TypeError for anything else than such a bundle."""
    envelope = values["dsseEnvelope"]
    (signature,) = envelope["signatures"]
    if values["mediaType"] != BUNDLE_TYPE or envelope["payloadType"] != PAYLOAD_TYPE:
        raise ValueError("another type of bundle")
    return _Bundle(
        hint=str(values["verificationMaterial"]["publicKey"]["hint"]),
        payload=base64.b64decode(envelope["payload"], validate=True),
        signature=base64.b64decode(signature["sig"], validate=True),
    )


def _signed_text(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: "DSSEv1", then lengths and texts of type and payload."""
    head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} "
    return head.encode() + payload


def _hashes(payload: bytes, source: str) -> dict[str, str]:
    """File name -> SHA-256, from a payload whose signature holds."""
    try:
        values = json.loads(payload)
        if (values["_type"], values["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise ValueError("another type of statement")
        hashes: dict[str, str] = {}
        for resource in values["predicate"]["resources"]:
            if resource["algorithm"] != "sha256" or resource["name"] in hashes:
                raise ValueError(f"unexpected entry for {resource['name']}")
            hashes[resource["name"]] = resource["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(source, error) from None
    return hashes


def _statement(data: bytes, source: str) -> Statement:
    try:
        return Statement.from_json(data.decode())
    except ValueError as error:
        raise _unreadable(source, error) from None


def _unreadable(source: str, error: Exception) -> ModelFileError:
    return ModelFileError("signature", source, f"can't be read ({error!r})", _AGAIN)
