"""The calls to MLflow that the registry makes, and how MLflow is made quiet.

Knows nothing of directories, ONNX, cards, tables or champions.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from gemmcast.errors import WorkspaceError
from registry.records import RegistryState, VersionRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

T = TypeVar("T")

VERSIONS_PER_PAGE = 200
"""Versions of one request to MLflow."""
_NOT_THERE, _THERE_ALREADY = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
_NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""MLflow's own defaults keep a caller waiting for minutes on a server that is down."""


def library() -> ModuleType:
    """MLflow, quiet and without telemetry. Its import takes over a second, hence here."""
    os.environ.update(_NO_TELEMETRY)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def connect(uri: str) -> MlflowClient:
    """A client of a database or of a tracking server."""
    client: MlflowClient = library().MlflowClient(tracking_uri=uri, registry_uri=uri)
    return client


def fill(uri: str) -> None:
    """Write MLflow's tables: opening an empty database does."""
    connect(uri).search_registered_models(max_results=1)


def create_experiment(client: MlflowClient, name: str, location: str | None) -> Experiment:
    """The experiment of a name, which another process may have made.

    Args:
        location: URI of the folder for the files of its runs; None: the server decides.

    Raises:
        WorkspaceError: somebody deleted it.
    """
    unless_there(lambda: client.create_experiment(name, artifact_location=location))
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise WorkspaceError(f"experiment {name!r} was deleted from the registry: restore it")
    return experiment


def refuse_deleted(experiment: Experiment) -> None:
    """MLflow makes no run in an experiment that somebody has deleted, and no second one."""
    if experiment.lifecycle_stage == "active":
        return
    number = experiment.experiment_id
    way_out = f"restore it: mlflow experiments restore --experiment-id {number}"
    raise WorkspaceError(f"registry: experiment {experiment.name!r} was deleted; {way_out}")


def upload(client: MlflowClient, run_id: str, files: Mapping[str, bytes]) -> None:
    """Add files, by name, to a run."""
    with tempfile.TemporaryDirectory(prefix="gemmcast-publish-") as scratch:
        for name, data in files.items():
            path = Path(scratch, name)
            path.write_bytes(data)
            client.log_artifact(run_id, str(path))


def models(client: MlflowClient, prefix: str) -> Iterator[RegisteredModel]:
    """Every registered model whose name starts so."""
    token = None
    while True:
        page = client.search_registered_models(f"name LIKE '{prefix}%'", page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """Every version of a registered model that is written to its end."""
    token = None
    while True:
        page = client.search_model_versions(
            f"name='{name}'", max_results=VERSIONS_PER_PAGE, page_token=token
        )
        yield from (version for version in page if version.status == "READY")
        token = page.token
        if not token:
            return


def or_none(call: Callable[[], T]) -> T | None:
    """The result of a call, or None where MLflow has no such thing."""
    try:
        return call()
    except library().MlflowException as error:
        if error.error_code == _NOT_THERE:
            return None
        raise


def unless_there(create: Callable[[], object]) -> None:
    """Create something that another process may create at the same time."""
    try:
        create()
    except library().MlflowException as error:
        if error.error_code != _THERE_ALREADY:
            raise


def state(model: RegisteredModel) -> RegistryState:
    """What MLflow says of a registered model itself."""
    aliases = {alias: str(number) for alias, number in model.aliases.items()}
    return RegistryState(aliases=aliases, tags=dict(model.tags))


def record(version: ModelVersion) -> VersionRecord:
    """What the registry needs of a version."""
    return VersionRecord(
        number=str(version.version),
        run_id=version.run_id or "",
        created_ms=int(version.creation_timestamp),
        tags=dict(version.tags),
    )
