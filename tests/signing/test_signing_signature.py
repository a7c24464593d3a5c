"""A signature holds for these very bytes and this very statement, and for nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gemmcast.errors import ModelFileError
from gemmcast.modeldir import ShippedModel
from signing.keys import PublicKeys
from signing.signature import check, stated
from signing.signer import Signer
from signing.statement import CARD_FILE, MODEL_FILE, MODELS, STATEMENT_FILE, Statement
from tests.signing.pairs import CARD, CHANGES, MODEL, Pair, Sign, changed

FILES = {MODEL_FILE: MODEL, CARD_FILE: CARD}


def edited(model: ShippedModel, edit: Callable[[dict[str, str]], object]) -> str:
    """The signature with another statement."""
    values = json.loads(str(model.signature))
    statement = json.loads(values["statement"])
    edit(statement)
    return json.dumps({**values, "statement": json.dumps(statement)})


def test_what_was_signed_holds_and_says_what_it_is(pair: Pair, sign: Sign) -> None:
    signed = check(sign().signature, FILES, pair.trusted, "model 7")
    said = signed.statement
    assert (said.lineage, said.version, said.role) == (MODELS, "7", "champion")
    assert signed.text() == f"signed with key {signed.key.name} as champion at 2026-11-29T08:00:00"
    assert signed.key.name in pair.public.name


def test_openssf_s_own_tool_accepts_it(tmp_path: Path, pair: Pair, sign: Sign) -> None:
    """With the statement as a file, and the bundle beside the folder."""
    from model_signing import verifying

    values = json.loads(str(sign().signature))
    folder, bundle = tmp_path / "gemmcast-7", tmp_path / "bundle.json"
    folder.mkdir()
    for name, data in {**FILES, STATEMENT_FILE: values["statement"].encode()}.items():
        (folder / name).write_bytes(data)
    bundle.write_text(json.dumps(values["bundle"]))
    config = verifying.Config().use_elliptic_key_verifier(public_key=pair.public)
    config.verify(folder, bundle)
    (folder / CARD_FILE).write_bytes(CARD + b" ")
    with pytest.raises(ValueError, match="Hash mismatch for 'card.json'"):
        config.verify(folder, bundle)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda one: one.name)
def test_keys_that_openssl_made_on_other_curves_sign_too(
    tmp_path: Path, library: None, curve: ec.EllipticCurve
) -> None:
    key = ec.generate_private_key(curve)
    private_file, public_file = tmp_path / "a.key", tmp_path / "a.pub"
    private_file.touch(mode=0o600)
    private_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    public_file.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    said = Statement(
        lineage=MODELS, version="1", role="champion", signed_at="2026-11-29T08:00:00+00:00"
    )
    text = Signer(private_file, None).sign(FILES, said)
    assert check(text, FILES, PublicKeys.read(public_file), "model 1").statement == said


def test_no_signature_and_another_key_are_refused(pair: Pair, other_pair: Pair, sign: Sign) -> None:
    with pytest.raises(ModelFileError, match="model 7.*is missing, and GEMMCAST_PUBLIC_KEYS is"):
        check(None, FILES, pair.trusted, "model 7")
    with pytest.raises(ModelFileError, match="is of key .*, not of "):
        check(sign(key=other_pair).signature, FILES, pair.trusted, "model 7")


def test_a_key_that_only_claims_to_be_ours_is_refused(
    pair: Pair, other_pair: Pair, sign: Sign
) -> None:
    own, forged = json.loads(str(sign().signature)), json.loads(str(sign(key=other_pair).signature))
    forged["bundle"]["verificationMaterial"] = own["bundle"]["verificationMaterial"]
    with pytest.raises(ModelFileError, match="is not of key"):
        check(json.dumps(forged), FILES, pair.trusted, "model 7")


@pytest.mark.parametrize("name", [MODEL_FILE, CARD_FILE])
def test_other_content_is_refused(pair: Pair, sign: Sign, name: str) -> None:
    files = {**FILES, name: FILES[name] + b"\0"}
    with pytest.raises(ModelFileError, match=f"{name} is not what was signed"):
        check(sign().signature, files, pair.trusted, "model 7")


@pytest.mark.parametrize(
    "edit",
    [
        lambda said: said.update(version="8"),
        lambda said: said.update(role="candidate"),
        lambda said: said.update(signed_at="2027-01-01T00:00:00+00:00"),
        lambda said: said.update(lineage="gemmcast-table-h100"),
        lambda said: said.pop("role"),
    ],
)
def test_no_word_of_the_statement_can_be_changed(
    pair: Pair, sign: Sign, edit: Callable[[dict[str, str]], object]
) -> None:
    text = edited(sign(), edit)
    with pytest.raises(ModelFileError, match=r"version.json is not what was signed"):
        check(text, FILES, pair.trusted, "model 7")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"statement": "\\ud800", "bundle": {}}',
        "",
        "{}",
        "[]",
        "null",
        '{"statement": "{}", "bundle": []}',
    ],
)
def test_what_is_no_signature_is_refused(pair: Pair, text: str) -> None:
    with pytest.raises(ModelFileError, match="can't be read"):
        check(text, FILES, pair.trusted, "model 7")
    assert stated(text) is None


@pytest.mark.parametrize("name", [MODEL_FILE, CARD_FILE])
def test_a_thousand_changes_of_one_byte_of_model_or_card_are_refused(
    pair: Pair, sign: Sign, name: str
) -> None:
    draw, keys, signature = random.Random(name), pair.trusted, sign().signature
    refused = 0
    for _ in range(CHANGES):
        with pytest.raises(ModelFileError):
            check(signature, {**FILES, name: changed(FILES[name], draw)}, keys, "model 7")
        refused += 1
    assert refused == CHANGES


def test_a_thousand_changes_of_one_byte_of_a_signature_give_nothing_else(
    pair: Pair, sign: Sign
) -> None:
    """Refused, or without effect: `keyid` and the empty log entries of a bundle have no meaning."""
    draw, keys, text = random.Random(1), pair.trusted, str(sign().signature).encode()
    whole = check(text.decode(), FILES, keys, "model 7").statement
    without_effect = 0
    for _ in range(CHANGES):
        altered = changed(text, draw).decode(errors="replace")
        try:
            assert check(altered, FILES, keys, "model 7").statement == whole
            without_effect += 1
        except ModelFileError:
            pass
    assert without_effect < CHANGES // 20


def test_the_files_that_are_used_must_be_in_the_signature(pair: Pair, sign: Sign) -> None:
    with pytest.raises(ModelFileError, match="table.json is not what was signed"):
        check(sign().signature, {"table.json": b"{}"}, pair.trusted, "model 7")


def test_statements_of_other_programs_are_refused() -> None:
    said = Statement(
        lineage=MODELS, version="1", role="champion", signed_at="2026-11-29T08:00:00+00:00"
    )
    assert Statement.from_json(said.to_json()) == said
    wrong = (
        replace(said, signed_at="2026-11-29T08:00:00"),
        replace(said, signed_at="yesterday"),
        replace(said, role="king"),  # type: ignore[arg-type]
        replace(said, version=7),  # type: ignore[arg-type]
    )
    for one in wrong:
        with pytest.raises(ValueError, match=r"time zone|isoformat|unknown role|texts only"):
            Statement.from_json(one.to_json())
