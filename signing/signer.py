"""Sign the files of a version with OpenSSF's model-signing and a private key; no network.

The library signs a folder, so the files are written to one that is removed again. Its import takes
a second, hence late.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemmcast.errors import InputError
from signing import keys, signature
from signing.statement import STATEMENT_FILE, Statement

INSTALL = "pip install model-signing pyopenssl"


class Signer:
    """A private key that can be used.

    Args:
        path: the key file.
        passphrase: opens it.

    Raises:
        InputError: the key can't be used, or model-signing is not installed.
    """

    def __init__(self, path: Path, passphrase: bytes | None) -> None:
        key = keys.read_private(path, passphrase)
        self.public = key.public
        """What checks its signatures."""
        self._path = path
        self._passphrase = key.passphrase
        try:
            import model_signing.signing
        except ImportError as error:
            rule = f"needs the package model-signing ({error})"
            raise InputError(keys.SIGNING_KEY, str(path), rule, INSTALL) from None
        # Its calls are untyped, and its passphrase is bytes where its hint says text.
        self._library: Any = model_signing.signing

    def sign(self, files: Mapping[str, bytes], statement: Statement) -> str:
        """The text of a signature over the files and the statement."""
        said = statement.to_json()
        with tempfile.TemporaryDirectory(prefix="gemmcast-sign-") as scratch:
            # The folder's name stands in the signature as its subject.
            folder = Path(scratch, f"{statement.lineage}-{statement.version}")
            folder.mkdir()
            for name, data in {**files, STATEMENT_FILE: said.encode()}.items():
                (folder / name).write_bytes(data)
            bundle = Path(scratch, "bundle.json")
            config = self._library.Config()
            config.use_elliptic_key_signer(private_key=self._path, password=self._passphrase)
            config.sign(folder, bundle)
            return signature.to_text(said, bundle.read_text("utf-8"))
