"""The same registry on an MLflow tracking server, with artifacts through the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from gemmcast.card import ModelCard
from gemmcast.errors import InputError, ModelFileError, WorkspaceError
from registry.registry import Registry

MakeModel = Callable[..., bytes]
# Inside MLflow 3.17 with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


class Server(Protocol):
    """conftest.py's."""

    uri: str
    files: Path


def test_a_server_keeps_versions_like_a_directory(
    server: Server, make_model: MakeModel, card: ModelCard, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(server.uri)
    with pytest.raises(InputError, match="holds no model named gemmcast"):
        registry.list()
    assert registry.champion() is None
    assert registry.champion_number() is None
    for seed in (1, 2):
        registry.publish(make_model(seed), card)
    assert registry.champion_number() is None
    registry.promote("1")
    registry.challenge("2")
    assert registry.promote("challenger").aliases == ("champion",)
    assert registry.load("champion")[0] == make_model(2)
    assert registry.champion_number() == "2"
    assert registry.rollback().number == "1"
    assert registry.champion_number() == "1"
    assert [(version.number, version.status) for version in registry.list()] == [
        ("2", "retired"),
        ("1", "champion"),
    ]
    [damaged] = [
        path for path in server.files.rglob("model.onnx") if path.read_bytes() == make_model(2)
    ]
    damaged.write_bytes(make_model(2)[:-1])
    with pytest.raises(ModelFileError, match="damaged"):
        registry.promote("2")
    damaged.unlink()
    with pytest.raises(ModelFileError, match="its model.onnx is missing"):
        registry.verify("2")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_server_that_is_down_is_named_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
    make_model: MakeModel,
    card: ModelCard,
    free_port: Callable[[], int],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry(f"http://user:secret@127.0.0.1:{free_port()}")
    for call in (
        registry.list,
        registry.champion,
        registry.champion_number,
        lambda: registry.publish(make_model(), card),
    ):
        with pytest.raises(WorkspaceError, match="registry http://127.0.0.1:.*failed") as caught:
            call()
        assert "secret" not in str(caught.value)
