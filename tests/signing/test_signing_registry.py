"""Versions are signed when they are published and promoted, and checked before they go anywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.fleet.publishing import publish
from gemmcast import modeldir
from gemmcast.errors import InputError, ModelFileError
from registry.cli import main
from registry.kept import keep, publish_kept
from registry.registry import Registry
from registry.signatures import SIGNATURE_TAG, Signatures
from registry.tables import TableRegistry
from signing.keys import PUBLIC_KEYS, SIGNING_KEY
from signing.signature import stated
from tests.signing.pairs import Pair
from tests.small_tables import table

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1


@pytest.fixture
def registry(directory: Path, pair: Pair) -> Registry:
    """With the signing key, as on the head."""
    return Registry(directory, Signatures(pair.private))


@pytest.fixture
def reader(directory: Path, pair: Pair) -> Registry:
    """With the public key only."""
    return Registry(directory, Signatures(public_keys=pair.public))


def signature_of(registry: Registry, number: str) -> str:
    return registry._found(number)[0].tags[SIGNATURE_TAG]


def test_a_version_is_signed_as_candidate_and_as_champion(reader: Registry) -> None:
    assert {one.number: one.signed for one in reader.list()} == {
        "1": "champion",
        "2": "champion",
        "3": "candidate",
        "4": None,
    }
    signed = reader.signed("champion")
    assert signed is not None
    assert (signed.statement.lineage, signed.statement.version) == ("gemmcast", "2")


def test_a_version_that_nobody_signed_needs_somebody_who_trusts_it(registry: Registry) -> None:
    for use in (registry.verify, registry.promote, registry.ship):
        with pytest.raises(ModelFileError, match="version 4 in .* is missing.*registry sign"):
            use("4")
    assert registry.champion_number() == "2"
    assert registry.sign("4").signed == "candidate"
    assert registry.promote("4").signed == "champion"
    assert registry.ship("champion").signature == signature_of(registry, "4")


def test_a_roll_back_signs_anew_and_later(registry: Registry) -> None:
    before = {number: stated(signature_of(registry, number)) for number in ("1", "2")}
    assert before["1"] and before["2"]
    assert before["1"].moment < before["2"].moment
    assert registry.rollback().number == "1"
    again = stated(signature_of(registry, "1"))
    assert again and again.moment > before["2"].moment


def test_a_clock_that_went_back_does_not_matter(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's clock is ahead by a year once, and right again: later signatures stay later."""
    sign = registry._signatures.signer
    assert sign is not None
    number, files = "2", registry._whole(registry._found("2")[0])
    said = stated(signature_of(registry, "2"))
    assert said
    moment = said.moment.replace(year=said.moment.year + 1)
    text = registry._signatures.sign("gemmcast", number, files, "champion", moment)
    registry._backend.set_tag(SIGNATURE_TAG, text, number=number)
    registry.rollback()
    later = stated(signature_of(registry, "1"))
    assert later and later.moment > moment


def test_an_unpromoted_version_does_not_go_to_the_nodes_as_champion(
    registry: Registry, reader: Registry
) -> None:
    """Who can write the registry can move the alias, and no more."""
    registry._backend.set_alias("champion", "3")
    with pytest.raises(ModelFileError, match="says candidate, not champion; promote it"):
        reader.ship("champion")


def test_a_signature_of_another_version_does_not_do(registry: Registry, reader: Registry) -> None:
    registry._backend.set_tag(SIGNATURE_TAG, signature_of(registry, "2"), number="3")
    with pytest.raises(ModelFileError, match="was signed for version 2 of gemmcast"):
        reader.verify("3")


def test_a_card_that_was_altered_in_the_registry_is_refused(
    registry: Registry, reader: Registry, directory: Path
) -> None:
    """It has the hash of the model, so without a key nobody notices."""
    card = next(
        path
        for path in directory.rglob("card.json")
        if path.parent.parent.name == registry._found("3")[0].run_id
    )
    text = card.read_text()
    values = json.loads(text)
    card.write_text(text.replace(f'"rows": {values["rows"]}', f'"rows": {values["rows"] + 1}'))
    assert card.read_text() != text
    assert Registry(directory).verify("3").number == "3"
    for use in (reader.verify, registry.verify, registry.promote):
        with pytest.raises(ModelFileError, match="card.json is not what was signed"):
            use("3")
    assert registry.champion_number() == "2"


def test_a_run_notices_a_champion_that_is_signed_anew(registry: Registry) -> None:
    before = registry.champion_stamp()
    registry.sign("champion")
    assert registry.champion_stamp() != before
    assert str(registry.champion_stamp()).startswith("2 ")


def test_a_key_that_cannot_be_used_is_refused_before_anything_is_written(
    directory: Path, tmp_path: Path
) -> None:
    registry = Registry(directory, Signatures(tmp_path / "none"))
    whole = registry.load("1")
    with pytest.raises(InputError, match=r"GEMMCAST_SIGNING_KEY = .*No such file"):
        registry.publish(whole.model, whole.card)
    with pytest.raises(InputError, match="GEMMCAST_SIGNING_KEY"):
        registry.check()
    with pytest.raises(InputError, match="GEMMCAST_SIGNING_KEY = None: is not set"):
        Registry(directory).sign("1")
    assert len(registry.list()) == 4


def test_with_public_keys_alone_nothing_is_promoted(reader: Registry, tmp_path: Path) -> None:
    """Whoever holds the signing key does that; a training leaves a challenger."""
    for use in (lambda: reader.promote("3"), reader.rollback):
        with pytest.raises(InputError, match="PUBLIC_KEYS is set here, and .*SIGNING_KEY is not"):
            use()
    model = reader.load("3")
    assert publish(reader, (model.model, model.card, None)) is None
    newest = reader.list()[0]
    assert (newest.number, newest.status, newest.signed) == ("5", "challenger", None)
    champion = reader.load("champion").model
    later = publish_kept(reader, keep(tmp_path, model.model, model.card, None, champion))
    assert (later.version.status, later.objection) == ("challenger", reader.objection)
    assert reader.champion_number() == "2"


def test_without_any_key_a_promotion_warns(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Registry(directory).promote("3")
        Registry(directory).promote("4")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("version 3 is not signed anew")


def test_tables_are_signed_the_same_way(directory: Path, pair: Pair) -> None:
    tables = TableRegistry(directory, Signatures(pair.private))
    lineage, version = tables.publish(table(1, 2))
    assert version.signed == "candidate"
    lineage.promote(version.number)
    (shipped,) = tables.shipped()
    said = stated(shipped.signature)
    assert said and said.role == "champion"
    assert said.lineage.startswith("gemmcast-table-")
    lineage._backend.set_tag(SIGNATURE_TAG, "", number=version.number)
    with pytest.raises(ModelFileError, match="can't be read"):
        tables.shipped()


@pytest.fixture
def ask(directory: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command on the copied registry: its output, or its error."""

    def run(*arguments: str) -> str:
        code = main([*arguments, "--workspace", str(directory.parent)])
        said = capsys.readouterr()
        assert code == (2 if said.err else 0)
        return said.err or said.out

    return run


def test_what_the_commands_say(
    ask: Callable[..., str], pair: Pair, other_pair: Pair, tmp_path: Path
) -> None:
    key, public = str(pair.private), str(pair.public)
    name = pair.trusted.names
    assert f"signed with key {name} as champion at" in ask("verify", "--public-keys", public)
    assert "says it is signed as candidate: no key is set" in ask("verify", "3")
    assert ask("verify", "4").endswith("; not signed\n")
    rows = [line.split() for line in ask("list").splitlines()]
    assert [row[-1] for row in rows if row[:1] in (["3"], ["4"])] == ["no", "candidate"]
    refused = ask("verify", "--public-keys", str(other_pair.public))
    assert refused.startswith("error: signature = 'version 2 in ")
    assert refused.count("\n") == 1
    assert ask("sign", "4", "--signing-key", key) == "version 4 is signed as candidate\n"
    node = tmp_path / "node"
    ask("promote", "4", "--signing-key", key, "--push", str(node))
    said = ask("verify", "--node", str(node), "--public-keys", public)
    assert said == f"model 4 in {node} is whole; signed as champion\n"
    modeldir.put_model(node, b"a model of somebody else", "4")
    assert "is missing" in ask("verify", "--node", str(node), "--public-keys", public)
    for file in node.glob("model-*"):
        file.unlink()
    assert ask("verify", "--node", str(node)).startswith(f"error: --node = '{node}': can't be")


def test_the_environment_names_the_keys(
    ask: Callable[..., str], pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SIGNING_KEY, str(pair.private))
    monkeypatch.setenv(PUBLIC_KEYS, str(pair.public))
    assert "version 1 is the champion again" in ask("rollback", "--push", str(tmp_path / "node"))
    assert "as champion at" in ask("verify")
    assert json.loads(ask("verify", "--json"))["key"] == pair.trusted.names
