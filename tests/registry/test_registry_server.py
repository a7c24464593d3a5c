"""The same registry on an MLflow tracking server: its own Flask app, in a process of its own, artifacts through the server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gemmcast.card import ModelCard
from gemmcast.errors import InputError, ModelFileError, WorkspaceError
from registry.registry import Registry

MakeModel = Callable[..., bytes]
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # inside MLflow 3.17 with SQLAlchemy 2.1

SERVE = """
import sys
from werkzeug.serving import make_server
from mlflow.server import app
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(server: subprocess.Popen[bytes], port: int, wait_s: float = 60.0) -> None:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the server ended with {server.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not come up")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps artifacts."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def uri(files: Path, template: Path) -> Iterator[str]:
    """A server whose database has MLflow's tables and nothing of ours."""
    database, port = f"sqlite:///{shutil.copy(template / 'mlflow.db', files / 'mlflow.db')}", _free_port()
    client = MlflowClient(tracking_uri=database, registry_uri=database)
    client.delete_registered_model("gemmcast")
    client.rename_experiment("1", "of the template")
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(files / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    with (
        open(files / "log", "wb") as log,
        subprocess.Popen([sys.executable, "-c", SERVE, str(port)], env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            _wait_until_up(server, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def test_a_server_keeps_versions_like_a_directory(
    uri: str, files: Path, make_model: MakeModel, card: ModelCard, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(uri)
    with pytest.raises(InputError, match="holds no model named gemmcast"):
        registry.list()
    assert registry.champion() is None
    for seed in (1, 2):
        registry.publish(make_model(seed), card)
    registry.promote("1")
    registry.challenge("2")
    assert registry.promote("challenger").aliases == ("champion",)
    assert registry.load("champion")[0] == make_model(2)
    assert registry.rollback().number == "1"
    assert [(version.number, version.status) for version in registry.list()] == [("2", "retired"), ("1", "champion")]
    [damaged] = [path for path in files.rglob("model.onnx") if path.read_bytes() == make_model(2)]
    damaged.write_bytes(make_model(2)[:-1])
    with pytest.raises(ModelFileError, match="damaged"):
        registry.promote("2")
    damaged.unlink()
    with pytest.raises(ModelFileError, match="its model.onnx is missing"):
        registry.verify("2")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_server_that_is_down_is_said_without_the_password(monkeypatch: pytest.MonkeyPatch, make_model: MakeModel, card: ModelCard) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry(f"http://user:secret@127.0.0.1:{_free_port()}")
    for call in (registry.list, registry.champion, lambda: registry.publish(make_model(), card)):
        with pytest.raises(WorkspaceError, match="registry http://127.0.0.1:.*failed") as caught:
            call()
        assert "secret" not in str(caught.value)
