"""What the registry's tests share: a tiny model, its card, and a registry of three versions.

Each test copies the registry. A tracking server is MLflow's Flask app in a process of its own, with
artifacts through the server.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from mlflow import MlflowClient
from onnx import TensorProto, helper

from gemmcast.card import ModelCard
from registry.registry import Registry

MakeModel = Callable[..., bytes]
SERVE = """
import sys
from werkzeug.serving import make_server
from mlflow.server import app
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A tracking server that runs."""

    uri: str
    """What clients use."""
    database: str
    """URI of its database."""
    files: Path
    """Where it keeps artifacts."""


def _make_model(seed: int = 0, contract: str | None = "2") -> bytes:
    query = helper.make_tensor_value_info("question", TensorProto.FLOAT, [None, 1])
    runtime = helper.make_tensor_value_info("runtime_us", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["question"], ["runtime_us"])],
        f"tiny{seed}",
        [query],
        [runtime],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if contract is not None:
        helper.set_model_props(model, {"gemmcast.contract": contract})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _make_card() -> ModelCard:
    metrics = {"mape": 4.7, "median_ape": 3.0, "p90_ape": 11.25, "r2": 0.98, "rows": 4683.0}
    scores = {
        "runtime_us": {
            "model": metrics,
            "lookup": {**metrics, "mape": 31.0},
            "roofline": {**metrics, "mape": 40.0},
        }
    }
    return ModelCard(
        created_at="2026-01-01T00:00:00+00:00",
        program_version="0.1.0",
        contract=2,
        targets=("runtime_us",),
        rows=22683,
        rows_by_device={"NVIDIA H100 80GB HBM3": 22683},
        store_version=3,
        split="grouped by shape",
        holdout=0.15,
        train_rows=18000,
        test_rows=4683,
        train_shapes=440,
        test_shapes=110,
        scores=scores,
        scores_by_family={"cutlass": scores},
        parity_max_rel=4e-6,
        latency_p50_us=12.3,
    )


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    return _make_model


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return _make_card()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 (retired), 2 (champion), 3 (challenger); made once: MLflow takes seconds."""
    directory = tmp_path_factory.mktemp("registry template") / "registry"
    registry = Registry(directory)
    for seed in (1, 2, 3):
        registry.publish(_make_model(seed), _make_card())
    registry.promote("1")
    registry.promote("2")
    registry.challenge("3")
    return directory


@pytest.fixture
def directory(tmp_path: Path, template: Path) -> Path:
    """A copy of the template, as a user would move a registry; its path must not matter."""
    return Path(shutil.copytree(template, tmp_path / "workspace" / "registry"))


@pytest.fixture
def registry(directory: Path) -> Registry:
    return Registry(directory)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return free_port


@pytest.fixture(scope="session")
def running_server(
    tmp_path_factory: pytest.TempPathFactory, template: Path, free_port: Callable[[], int]
) -> Iterator[Server]:
    """Its database is the template's, which already has MLflow's tables."""
    files = tmp_path_factory.mktemp("server")
    database = f"sqlite:///{shutil.copy(template / 'mlflow.db', files / 'mlflow.db')}"
    client = MlflowClient(tracking_uri=database, registry_uri=database)
    client.rename_experiment("1", "of the template")
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(files / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    port = free_port()
    command = [sys.executable, "-c", SERVE, str(port)]
    with (
        open(files / "log", "wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_until_up(process, port)
            yield Server(uri=f"http://127.0.0.1:{port}", database=database, files=files)
        finally:
            process.kill()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, wait_s: float = 60.0) -> None:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not come up")


@pytest.fixture
def server(running_server: Server) -> Server:
    """The server without a registered model, as before the first publish."""
    client = MlflowClient(
        tracking_uri=running_server.database, registry_uri=running_server.database
    )
    if client.search_registered_models("name='gemmcast'"):
        client.delete_registered_model("gemmcast")
    shutil.rmtree(running_server.files / "artifacts", ignore_errors=True)
    return running_server
