"""A key pair, a signer, and a registry with signed versions, made once: MLflow takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gemmcast import models
from gemmcast.card import ModelCard
from gemmcast.modeldir import ShippedModel
from registry.registry import Registry
from registry.signatures import Signatures
from signing.keys import PASSPHRASE, PUBLIC_KEYS, SIGNING_KEY, PublicKeys, new_pair
from signing.signer import Signer
from signing.statement import CARD_FILE, MODEL_FILE, MODELS, Role, Statement
from tests.signing.pairs import CARD, MODEL, Pair, Sign


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of whoever runs the tests are not meant."""
    for variable in (SIGNING_KEY, PUBLIC_KEYS, PASSPHRASE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(*new_pair(tmp_path_factory.mktemp("keys") / "own", None))


@pytest.fixture(scope="session")
def other_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(*new_pair(tmp_path_factory.mktemp("keys") / "other", None))


@pytest.fixture
def with_public_key(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> PublicKeys:
    """This process is a node with the public key."""
    monkeypatch.setenv(PUBLIC_KEYS, str(pair.public))
    return pair.trusted


@pytest.fixture(scope="session")
def library() -> None:
    """model-signing, where the extra `signing` is installed."""
    pytest.importorskip("model_signing", reason="needs the extra signing", exc_type=ImportError)


@pytest.fixture(scope="session")
def sign(pair: Pair, library: None) -> Sign:
    """A small signed model, as the registry ships one."""

    def sign(
        version: str = "7",
        *,
        hour: int = 8,
        role: Role = "champion",
        lineage: str = MODELS,
        key: Pair = pair,
        data: bytes = MODEL,
    ) -> ShippedModel:
        signed_at = f"2026-11-29T{hour:02}:00:00+00:00"
        said = Statement(lineage=lineage, version=version, role=role, signed_at=signed_at)
        text = Signer(key.private, None).sign({MODEL_FILE: data, CARD_FILE: CARD}, said)
        return ShippedModel(data=data, card=CARD, signature=text)

    return sign


@pytest.fixture(scope="session")
def template(pair: Pair, library: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as versions 1 (retired), 2 (champion), 3 (candidate), 4 (unsigned)."""
    directory = tmp_path_factory.mktemp("signed") / "registry"
    model = models.path().read_bytes()
    card = ModelCard.from_json(models.path().with_suffix(".json").read_text())
    registry = Registry(directory, Signatures(pair.private))
    for _ in range(3):
        registry.publish(model, card)
    registry.promote("1")
    registry.promote("2")
    Registry(directory).publish(model, card)
    return directory


@pytest.fixture
def directory(tmp_path: Path, template: Path) -> Path:
    """A copy of the template."""
    return Path(shutil.copytree(template, tmp_path / "workspace" / "registry"))
