"""Key files: who may read them, which kinds are taken, what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gemmcast.errors import InputError
from registry.cli import main
from signing.keys import PASSPHRASE, PublicKeys, new_pair, public_keys, read_private
from tests.signing.pairs import Pair

SECRET = "correct horse"


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_a_new_pair_fits_together_and_is_closed_to_others(tmp_path: Path) -> None:
    private_file, public_file = new_pair(tmp_path / "keys", None)
    assert private_file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    digest = read_private(private_file, None).public.digest
    assert PublicKeys.read(public_file).get(digest) is not None
    assert digest[:12] in private_file.name


def test_the_command_says_what_to_set_and_not_the_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PASSPHRASE, SECRET)
    assert main(["keys", "new", str(tmp_path)]) == 0
    said = capsys.readouterr()
    (private_file,) = tmp_path.glob("*.key")
    assert f"export GEMMCAST_SIGNING_KEY={private_file}" in said.out
    assert SECRET not in said.out + said.err
    assert read_private(private_file, SECRET.encode()).passphrase == SECRET.encode()


def test_a_folder_that_takes_no_key_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"DIR = .*: no key can be written there \("):
        new_pair(tmp_path / "file" / "keys", None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, f"is encrypted; set {PASSPHRASE}"),
        (b"wrong", f"{PASSPHRASE} does not open it; set {PASSPHRASE}"),
    ],
)
def test_an_encrypted_key_needs_its_passphrase(
    tmp_path: Path, given: bytes | None, message: str
) -> None:
    private_file, _ = new_pair(tmp_path, SECRET.encode())
    with pytest.raises(InputError, match=message) as refused:
        read_private(private_file, given)
    assert "wrong" not in str(refused.value)
    assert read_private(private_file, SECRET.encode()).passphrase == SECRET.encode()


def test_a_passphrase_for_a_key_that_has_none_is_not_used(pair: Pair) -> None:
    assert read_private(pair.private, b"any").passphrase is None


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    private_file, _ = new_pair(tmp_path, None)
    private_file.chmod(0o640)
    with pytest.raises(InputError, match=r"others .* \(rights 640\); chmod 600 "):
        read_private(private_file, None)


def test_what_is_no_private_key_is_refused(tmp_path: Path, pair: Pair) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_private(tmp_path / "none", None)
    for name, data in (("noise", b"noise"), ("public", pair.public.read_bytes())):
        file = tmp_path / name
        file.write_bytes(data)
        file.chmod(0o600)
        with pytest.raises(InputError, match="is no private key in PEM"):
            read_private(file, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"noise", "is no public key in PEM"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "is not on an elliptic curve"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "is on secp256k1, not one of secp256r1"),
    ],
)
def test_other_public_keys_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "a.pub"
    file.write_bytes(data)
    with pytest.raises(InputError, match=message):
        public_keys(file)


def test_a_folder_gives_all_its_keys_and_an_empty_one_accepts_nothing(
    tmp_path: Path, pair: Pair, other_pair: Pair
) -> None:
    with pytest.raises(InputError, match=r"holds no \.pub file; copy the \.pub file of the head"):
        public_keys(tmp_path)
    for one in (pair, other_pair):
        (tmp_path / one.public.name).write_bytes(one.public.read_bytes())
    (tmp_path / "README").write_text("no key")
    both = public_keys(tmp_path)
    assert both is not None
    for one in (pair, other_pair):
        assert both.get(read_private(one.private, None).public.digest) is not None


def test_without_a_key_nothing_is_checked() -> None:
    assert public_keys() is None
