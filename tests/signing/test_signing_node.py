"""What a node with a public key takes into its model directory, and what it refuses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gemmcast import modeldir, tabledir
from gemmcast.errors import InputError, ModelFileError
from gemmcast.modeldir import CURRENT, ShippedModel
from gemmcast.tabledir import Shipped
from signing.keys import PUBLIC_KEYS, PublicKeys
from signing.node import read_model, read_tables, take_model, take_tables
from signing.signer import Signer
from signing.statement import TABLE_FILE, Statement
from tests.signing.pairs import CHANGES, MODEL, Pair, Sign, changed
from tests.small_tables import table

H100, H200 = "gemmcast-table-h100-time", "gemmcast-table-h200-time"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return tmp_path / "node"


def held(node: Path) -> tuple[str, bytes]:
    """What a reader without keys gets."""
    current = modeldir.read_current(node)
    return current.version, modeldir.read_model(node, current)


def signed_table(
    pair: Pair, version: str = "3", *, lineage: str = H100, hour: int = 8, m: int = 1
) -> Shipped:
    data = table(m).to_json().encode()
    signed_at = f"2026-11-29T{hour:02}:00:00+00:00"
    said = Statement(lineage=lineage, version=version, role="champion", signed_at=signed_at)
    signature = Signer(pair.private, None).sign({TABLE_FILE: data}, said)
    return Shipped(data=data, version=version, signature=signature)


def test_without_a_key_everything_is_taken(node: Path, sign: Sign) -> None:
    assert take_model(node, ShippedModel(data=b"a model"), "1") == "1"
    assert take_model(node, replace(sign("2"), card=b"another card"), "2") == "2"


def test_what_is_unsigned_is_written_as_by_programs_that_knew_no_signatures(node: Path) -> None:
    take_model(node, ShippedModel(data=b"a model"), "1")
    take_tables(node, [Shipped(data=table(1).to_json().encode(), version="2")])
    assert set(json.loads((node / CURRENT).read_text())) == {"file", "sha256", "version"}
    (placed,) = json.loads((node / tabledir.CURRENT).read_text())["tables"]
    assert set(placed) == {"file", "sha256", "version"}


def test_a_signed_champion_is_taken_and_can_be_checked_later(
    node: Path, sign: Sign, with_public_key: PublicKeys
) -> None:
    assert take_model(node, sign("7"), "7") == "7"
    assert held(node) == ("7", MODEL)
    assert read_model(node, with_public_key).version == "7"


REFUSED: dict[str, tuple[Callable[[Sign, Pair], ShippedModel], str]] = {
    "unsigned": (lambda sign, _: ShippedModel(data=MODEL), "is missing, and GEMMCAST_PUBLIC_KEYS"),
    "another key": (lambda sign, other: sign("7", key=other), "is of key .*, not of "),
    "another model": (lambda sign, _: replace(sign("7"), data=b"x"), "model.onnx is not what was"),
    "another card": (lambda sign, _: replace(sign("7"), card=b"x"), "card.json is not what was"),
    "another version": (lambda sign, _: sign("6"), "was signed for version 6"),
    "never promoted": (lambda sign, _: sign("7", role="candidate"), "was not signed as champion"),
    "no model": (lambda sign, _: sign("7", lineage=H100), f"was signed for {H100}"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_this_signed_champion_is_refused_in_one_line(
    case: str, node: Path, sign: Sign, other_pair: Pair, with_public_key: PublicKeys
) -> None:
    make, message = REFUSED[case]
    take_model(node, sign("5", hour=7, data=b"the one before"), "5")
    with pytest.raises(ModelFileError, match=message) as refused:
        take_model(node, make(sign, other_pair), "7")
    assert "\n" not in str(refused.value)
    assert held(node) == ("5", b"the one before")
    assert read_model(node, with_public_key).version == "5"


def test_an_earlier_champion_is_refused_until_it_is_signed_anew(
    node: Path, sign: Sign, with_public_key: PublicKeys
) -> None:
    """An old signature is not enough to go back; the head's roll-back makes a new one."""
    seven, eight = sign("7", hour=8), sign("8", hour=9, data=b"version eight")
    take_model(node, seven, "7")
    take_model(node, eight, "8")
    take_model(node, eight, "8")
    rule = "version 7.*of 2026-11-29T08:00:00 is older than that of version 8 here"
    with pytest.raises(ModelFileError, match=rule):
        take_model(node, seven, "7")
    assert held(node)[0] == "8"
    assert take_model(node, sign("7", hour=10), "7") == "7"


def test_keys_are_exchanged_while_a_node_runs(
    node: Path,
    tmp_path: Path,
    sign: Sign,
    pair: Pair,
    other_pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    monkeypatch.setenv(PUBLIC_KEYS, str(keys))
    own, new = keys / "own.pub", keys / "new.pub"
    own.write_bytes(pair.public.read_bytes())
    take_model(node, sign("7"), "7")
    with pytest.raises(ModelFileError, match="is of key"):
        take_model(node, sign("8", hour=9, key=other_pair), "8")
    new.write_bytes(other_pair.public.read_bytes())
    take_model(node, sign("8", hour=9, key=other_pair), "8")
    own.unlink()
    with pytest.raises(ModelFileError, match="is of key"):
        take_model(node, sign("9", hour=10), "9")
    new.unlink()
    with pytest.raises(InputError, match=r"holds no \.pub file"):
        take_model(node, sign("9", hour=10), "9")
    assert held(node)[0] == "8"


def test_model_and_current_that_were_altered_together_are_refused(
    node: Path, sign: Sign, with_public_key: PublicKeys
) -> None:
    take_model(node, sign("7"), "7")
    signature = modeldir.read_current(node).signature
    modeldir.put_model(node, b"a model of somebody else", "7", signature)
    assert held(node) == ("7", b"a model of somebody else"), "a reader without keys is fooled"
    with pytest.raises(ModelFileError, match="model.onnx is not what was signed"):
        read_model(node, with_public_key)
    modeldir.put_model(node, MODEL, "8", signature)
    with pytest.raises(ModelFileError, match="was signed for version 7"):
        read_model(node, with_public_key)
    assert take_model(node, sign("7"), "7") == "7", "the next push mends it"


def test_a_thousand_changes_of_one_byte_of_current_give_no_other_model(
    node: Path, sign: Sign, with_public_key: PublicKeys
) -> None:
    take_model(node, sign("7"), "7")
    current = node / CURRENT
    whole, draw = current.read_bytes(), random.Random(2)
    read = 0
    for _ in range(CHANGES):
        current.write_bytes(changed(whole, draw))
        try:
            found = read_model(node, with_public_key)
        except (InputError, FileNotFoundError):
            continue
        assert (found.version, modeldir.read_model(node, found)) == ("7", MODEL)
        read += 1
    assert read < CHANGES // 10


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_to_the_right_bytes_elsewhere_is_refused(
    node: Path, tmp_path: Path, sign: Sign, with_public_key: PublicKeys, inside: bool
) -> None:
    """What it points at may change after the look. The next push replaces the link."""
    take_model(node, sign("7"), "7")
    file = node / modeldir.read_current(node).file
    elsewhere = (node if inside else tmp_path) / "kept"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    if inside:
        assert read_model(node, with_public_key).version == "7"
    else:
        with pytest.raises(ModelFileError, match="leads out of the directory"):
            read_model(node, with_public_key)
    take_model(node, sign("7"), "7")
    assert not file.is_symlink()
    assert elsewhere.read_bytes() == MODEL


def test_signed_tables_are_taken_and_others_refused(
    node: Path, pair: Pair, other_pair: Pair, library: None, with_public_key: PublicKeys
) -> None:
    good = signed_table(pair)
    assert take_tables(node, [good, signed_table(pair, lineage=H200, m=2)]).tables[0].version == "3"
    assert len(read_tables(node, with_public_key).tables) == 2
    wrong = {
        "is missing": replace(good, signature=None),
        "is of key": signed_table(other_pair, "4"),
        "table.json is not what was": replace(good, data=table(9).to_json().encode()),
        "was signed for version 3": replace(good, version="4"),
        "is older than that of version 3": signed_table(pair, "2", hour=7),
    }
    for message, one in wrong.items():
        with pytest.raises(ModelFileError, match=message):
            take_tables(node, [one])
    with pytest.raises(ModelFileError, match="comes twice in one set"):
        take_tables(node, [good, signed_table(pair, "4", hour=9, m=5)])
    assert len(read_tables(node, with_public_key).tables) == 2
    placed = tabledir.put_tables(node, [replace(good, data=b"[]")])
    assert placed.tables[0].signature == good.signature
    with pytest.raises(ModelFileError, match="table.json is not what was signed"):
        read_tables(node, with_public_key)


def test_a_model_is_no_table(node: Path, sign: Sign, with_public_key: PublicKeys) -> None:
    model = sign("3")
    posing = Shipped(data=model.data, version="3", signature=model.signature)
    with pytest.raises(ModelFileError, match="table.json is not what was signed"):
        take_tables(node, [posing])
