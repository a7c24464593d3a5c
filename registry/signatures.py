"""The signatures of a registry's versions, where keys are set (docs/signing.md).

A version is signed as `candidate` when it is published, from the bytes of the trainer; `promote`
and `rollback` check that and sign it anew as `champion`, because a version that changed in between
must not get a good signature. Only `sign` signs what has none: somebody trusts it. The signature is
a tag of the version, so it is replaced in one write, as aliases are. Knows no MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

from registry.records import VersionRecord
from signing import keys
from signing.keys import PublicKeys
from signing.signature import Signed, check, stated
from signing.signer import Signer
from signing.statement import Role, Statement

SIGNATURE_TAG: Final = "gemmcast.signature"
SIGNED_TAG: Final = "gemmcast.champion_signature"
"""At the registered model: so a run notices a champion that was signed later."""
TICK: Final = timedelta(microseconds=1)
Files = Mapping[str, bytes]
"""File name -> content, of a version."""


@dataclass(frozen=True)
class Signatures:
    """Signs and checks versions, with the keys that are named or those of the environment.

    Without a key, nothing is signed and nothing is checked. Keys are read when they are needed
    first.
    """

    signing_key: Path | None = None
    """The private key's file; None: GEMMCAST_SIGNING_KEY."""
    public_keys: Path | None = None
    """The public keys' file or folder; None: GEMMCAST_PUBLIC_KEYS."""

    def load(self) -> None:
        """Read the keys now. Raises InputError for one that can't be used."""
        _ = self.trusted

    @cached_property
    def signer(self) -> Signer | None:
        """What signs here. Raises InputError for a key that can't be used."""
        named = str(self.signing_key or os.environ.get(keys.SIGNING_KEY, ""))
        return Signer(Path(named), keys.passphrase()) if named else None

    @cached_property
    def trusted(self) -> PublicKeys | None:
        """What is accepted here: the public keys, and that of the signing key."""
        trusted = keys.public_keys(self.public_keys)
        if self.signer is None:
            return trusted
        own = self.signer.public
        return trusted.and_also(own) if trusted else PublicKeys([own])

    @property
    def objection(self) -> str | None:
        """Why nothing can be promoted here: public keys without a signing key. None: it can."""
        if self.signer is not None or self.trusted is None:
            return None
        return f"{keys.PUBLIC_KEYS} is set here, and {keys.SIGNING_KEY} is not"

    def check(self, record: VersionRecord, files: Files, source: str) -> Signed | None:
        """What is signed of a version; None where no key is set.

        Raises:
            ModelFileError: a key is set, and the version is unsigned, altered, or another one.
        """
        if self.trusted is None:
            return None
        return check(record.tags.get(SIGNATURE_TAG), files, self.trusted, source)

    def sign(self, lineage: str, number: str, files: Files, role: Role, after: datetime) -> str:
        """The text of a new signature. Only where there is a signer.

        Args:
            after: it says a later time, whatever the clock of this machine says.
        """
        assert self.signer is not None
        moment = max(datetime.now(UTC), after + TICK)
        statement = Statement(
            lineage=lineage, version=number, role=role, signed_at=moment.isoformat()
        )
        return self.signer.sign(files, statement)


def role_of(record: VersionRecord) -> Role | None:
    """What a version's signature says that it is, unchecked; None: no signature."""
    statement = stated(record.tags.get(SIGNATURE_TAG))
    return statement.role if statement else None
