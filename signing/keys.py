"""The key files of signatures: a private key beside the registry, public keys on every node.

    GEMMCAST_SIGNING_KEY         the private key: PEM, rights 600, on an elliptic curve
    GEMMCAST_SIGNING_PASSPHRASE  opens it, where it is encrypted; in no message, no log, no option
    GEMMCAST_PUBLIC_KEYS         a .pub file, or a folder: all .pub files in it are accepted

A key is named by the first twelve digits of the SHA-256 of its public half, as OpenSSF's
model-signing writes it into signatures. Does not know what is signed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from gemmcast.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

SIGNING_KEY: Final = "GEMMCAST_SIGNING_KEY"
PASSPHRASE: Final = "GEMMCAST_SIGNING_PASSPHRASE"
PUBLIC_KEYS: Final = "GEMMCAST_PUBLIC_KEYS"
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
"""Those that model-signing takes."""
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
"""Rights of everybody but the owner."""
_NEW: Final = "make a pair: python -m registry keys new DIR"
_COPY: Final = "copy the .pub file of the head's pair there"
_INSTALL: Final = "pip install cryptography"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key whose signatures are accepted."""

    digest: str
    """SHA-256 of its PEM text: the hint in a signature."""
    key: EllipticCurvePublicKey

    @property
    def name(self) -> str:
        """Twelve digits, for people."""
        return self.digest[:12]

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether the signature (ECDSA, DER) over the data was made with its private half."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        by_size = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
        try:
            self.key.verify(signature, data, ec.ECDSA(by_size[self.key.curve.key_size]))
        except InvalidSignature:
            return False
        return True


class PublicKeys:
    """The keys whose signatures are accepted here; one of them is enough."""

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        self._keys = {key.digest: key for key in keys}

    @property
    def names(self) -> str:
        """All of them, for messages."""
        return ", ".join(sorted(key.name for key in self._keys.values()))

    def get(self, digest: str) -> PublicKey | None:
        """The key that a signature names."""
        return self._keys.get(digest)

    def and_also(self, key: PublicKey) -> PublicKeys:
        """These and one more."""
        return PublicKeys([*self._keys.values(), key])

    @staticmethod
    def read(place: Path) -> PublicKeys:
        """The key of a file, or all .pub files of a folder.

        Raises:
            InputError: there is none, or one that can't be read: nothing is accepted then.
        """
        files = sorted(place.glob("*.pub")) if place.is_dir() else [place]
        if not files:
            raise InputError(PUBLIC_KEYS, str(place), "holds no .pub file", _COPY)
        return PublicKeys([_read_public(file) for file in files])


def public_keys(place: Path | None = None) -> PublicKeys | None:
    """The keys at a place, or those that the environment names; None: nothing is checked here.

    Raises:
        InputError: as `PublicKeys.read`.
    """
    named = str(place or os.environ.get(PUBLIC_KEYS, ""))
    return PublicKeys.read(Path(named)) if named else None


class PrivateKey(NamedTuple):
    """A private key that can be opened."""

    public: PublicKey
    """What checks its signatures."""
    passphrase: bytes | None
    """What opens the file; None: it is not encrypted."""


def read_private(path: Path, passphrase: bytes | None) -> PrivateKey:
    """Check a private key.

    Args:
        passphrase: opens it; not used where it is not encrypted.

    Raises:
        InputError: it is missing, open to others, of another kind, or the passphrase is wrong.
    """
    _refuse_open(path)
    data = _bytes_of(SIGNING_KEY, path)
    load = _primitives(SIGNING_KEY, path).serialization.load_pem_private_key
    try:
        key = load(data, passphrase)
    except TypeError:
        # One of the two: encrypted and no passphrase, or a passphrase and not encrypted.
        if passphrase is not None:
            return read_private(path, None)
        raise InputError(SIGNING_KEY, str(path), "is encrypted", f"set {PASSPHRASE}") from None
    except ValueError:
        if b"ENCRYPTED" in data:
            rule = f"{PASSPHRASE} does not open it"
            raise InputError(SIGNING_KEY, str(path), rule, f"set {PASSPHRASE} to its own") from None
        raise InputError(SIGNING_KEY, str(path), "is no private key in PEM", _NEW) from None
    return PrivateKey(_checked(SIGNING_KEY, path, key.public_key()), passphrase)


def new_pair(folder: Path, passphrase: bytes | None) -> tuple[Path, Path]:
    """Make a key pair (P-256); returns the files of the private and the public key.

    Args:
        folder: is made, closed to others, where it does not exist.
        passphrase: encrypts the private key; None: it is written as it is.

    Raises:
        InputError: the folder can't be written.
    """
    primitives = _primitives("DIR", folder)
    key = primitives.ec.generate_private_key(primitives.ec.SECP256R1())
    public = _pem(key.public_key())
    name = f"gemmcast-{sha256(public).hexdigest()[:12]}"
    private_file, public_file = folder / f"{name}.key", folder / f"{name}.pub"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(private_file, _private_pem(key, passphrase), 0o600)
        _write_new(public_file, public, 0o644)
    except OSError as error:
        rule = f"no key can be written there ({error.strerror})"
        raise InputError("DIR", str(folder), rule, "name a folder that you may write to") from None
    return private_file, public_file


def passphrase() -> bytes | None:
    """What the environment says; None where it says nothing."""
    text = os.environ.get(PASSPHRASE, "")
    return os.fsencode(text) or None


class _primitives:
    """The parts of `cryptography` that are used; its import takes 60 ms, hence here."""

    def __init__(self, field: str, place: Path) -> None:
        try:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            rule = "needs the package cryptography"
            raise InputError(field, str(place), rule, _INSTALL) from None
        self.serialization = serialization
        self.ec = ec


def _refuse_open(path: Path) -> None:
    """Raise InputError for a private key that others may read. Windows has no such rights."""
    try:
        rights = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise InputError(SIGNING_KEY, str(path), str(error.strerror), _NEW) from None
    if os.name == "posix" and rights & OTHERS:
        rule = f"others than its owner may use it (rights {rights:o})"
        raise InputError(SIGNING_KEY, str(path), rule, f"chmod 600 {path}")


def _read_public(path: Path) -> PublicKey:
    data = _bytes_of(PUBLIC_KEYS, path)
    primitives = _primitives(PUBLIC_KEYS, path)
    try:
        key = primitives.serialization.load_pem_public_key(data)
    except ValueError:
        raise InputError(PUBLIC_KEYS, str(path), "is no public key in PEM", _COPY) from None
    return _checked(PUBLIC_KEYS, path, key)


def _checked(field: str, path: Path, key: object) -> PublicKey:
    """A key of a kind that is used. Raises InputError for RSA, Ed25519, other curves."""
    if not isinstance(key, _primitives(field, path).ec.EllipticCurvePublicKey):
        raise InputError(field, str(path), "is not on an elliptic curve", _NEW)
    if key.curve.name not in CURVES:
        rule = f"is on {key.curve.name}, not one of {', '.join(CURVES)}"
        raise InputError(field, str(path), rule, _NEW)
    return PublicKey(sha256(_pem(key)).hexdigest(), key)


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _private_pem(key: EllipticCurvePrivateKey, passphrase: bytes | None) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _bytes_of(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        way_out = _COPY if field == PUBLIC_KEYS else _NEW
        raise InputError(field, str(path), str(error.strerror), way_out) from None


def _write_new(path: Path, data: bytes, rights: int) -> None:
    """Write a file that did not exist, with its rights from the first moment."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, rights)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
