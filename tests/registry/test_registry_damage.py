"""Damaged and foreign models are refused: when they come in, when they are read or promoted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gemmcast.card import ModelCard
from gemmcast.errors import ModelFileError
from gemmcast.modeldir import sha256
from registry.registry import Registry

MakeModel = Callable[..., bytes]
Change = Callable[[bytes], bytes]
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1


def file_of(directory: Path, number: str, name: str) -> Path:
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    run_id = (
        MlflowClient(tracking_uri=uri, registry_uri=uri)
        .get_model_version("gemmcast", number)
        .run_id
    )
    return directory / "artifacts" / str(run_id) / "artifacts" / name


def flip_a_bit(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


DAMAGES: list[Change] = [
    flip_a_bit,
    lambda data: data[: len(data) // 2],
    lambda data: data + b"\0",
    lambda data: b"",
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["flipped", "cut", "longer", "empty"])
def test_a_damaged_model_is_refused(registry: Registry, directory: Path, damage: Change) -> None:
    path = file_of(directory, "3", "model.onnx")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelFileError, match=r"version 3 in .*: damaged: \d+ bytes with SHA-256"):
        registry.load("3")
    assert registry.verify("2").number == "2"


def test_a_damaged_version_is_never_promoted(
    registry: Registry, directory: Path, tmp_path: Path
) -> None:
    path = file_of(directory, "3", "model.onnx")
    path.write_bytes(flip_a_bit(path.read_bytes()))
    for refused in (
        registry.promote,
        registry.challenge,
        lambda ref: registry.export(ref, tmp_path / "model.onnx"),
    ):
        with pytest.raises(ModelFileError, match="damaged"):
            refused("3")
    assert registry.resolve("champion").number == "2"
    assert not (tmp_path / "model.onnx").exists()


def test_a_damaged_version_is_never_rolled_back_to(registry: Registry, directory: Path) -> None:
    file_of(directory, "1", "model.onnx").write_bytes(b"")
    with pytest.raises(ModelFileError, match="version 1 .*damaged"):
        registry.rollback()
    assert registry.resolve("champion").number == "2"


@pytest.mark.parametrize("name", ["model.onnx", "card.json"])
def test_a_missing_file_is_named(registry: Registry, directory: Path, name: str) -> None:
    file_of(directory, "2", name).unlink()
    with pytest.raises(ModelFileError, match=f"its {name} is missing"):
        registry.load("champion")


def test_another_models_card_is_refused(registry: Registry, directory: Path) -> None:
    file_of(directory, "2", "card.json").write_bytes(
        file_of(directory, "1", "card.json").read_bytes()
    )
    with pytest.raises(ModelFileError, match="belongs to another model"):
        registry.load("2")


def test_a_card_that_is_no_card_is_refused(registry: Registry, directory: Path) -> None:
    file_of(directory, "2", "card.json").write_bytes(b"\xff{")
    with pytest.raises(ModelFileError, match="not a model card"):
        registry.load("2")


def test_a_foreign_model_with_the_right_hash_is_refused(
    registry: Registry, directory: Path, make_model: MakeModel
) -> None:
    """Somebody put their own model there, and mended the tag."""
    foreign = make_model(contract=None)
    file_of(directory, "3", "model.onnx").write_bytes(foreign)
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).set_model_version_tag(
        "gemmcast", "3", "gemmcast.sha256", sha256(foreign)
    )
    with pytest.raises(ModelFileError, match="not a gemmcast model"):
        registry.promote("3")


@pytest.mark.parametrize(
    "bytes_", [b"", b"PK\x03\x04 not ONNX", b"\x00" * 64], ids=["empty", "zip", "zeros"]
)
def test_foreign_bytes_are_not_published(tmp_path: Path, card: ModelCard, bytes_: bytes) -> None:
    with pytest.raises(ModelFileError, match="the model to publish"):
        Registry(tmp_path / "registry").publish(bytes_, card)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_model_is_not_published(
    tmp_path: Path, make_model: MakeModel, card: ModelCard
) -> None:
    with pytest.raises(ModelFileError, match="no gemmcast.contract in its metadata"):
        Registry(tmp_path / "registry").publish(make_model(contract=None), card)
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_not_published_with_another_contracts_card(
    tmp_path: Path, make_model: MakeModel, card: ModelCard
) -> None:
    with pytest.raises(ModelFileError, match="the card says 3"):
        Registry(tmp_path / "registry").publish(make_model(), replace(card, contract=3))
    assert list(tmp_path.iterdir()) == []


def test_the_card_gets_the_models_hash(
    registry: Registry, make_model: MakeModel, card: ModelCard
) -> None:
    registry.publish(make_model(4), replace(card, sha256="of another model"))
    assert registry.load("4")[1].sha256 == sha256(make_model(4))
