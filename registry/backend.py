"""MLflow, behind the few calls that the registry makes. The only file that imports it.

A registry is one registered model named gemmcast, in a directory (SQLite and files) or on a tracking server.
A version's files and tags are written before the version exists: MLflow adds it in one transaction, so nobody sees half of one.
Knows nothing of ONNX, cards or champions; whatever MLflow raises leaves here as one of ours.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmcast.errors import InputError, ModelFileError, WorkspaceError
from registry.directory import Directory, sqlite_uri

NAME = "gemmcast"
# of the registered model and of its experiment
NOT_THERE, THERE_ALREADY = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
PAGE = 200
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
# MLflow's own defaults keep a caller waiting for minutes on a server that is down


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One version as MLflow holds it."""

    number: str
    run_id: str
    created_ms: int
    # Unix time
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that MLflow says about the registered model."""

    records: tuple[Record, ...]
    aliases: Mapping[str, str]
    # alias -> number
    tags: Mapping[str, str]


class Backend:
    """One registered model in one MLflow; nothing is opened before the first call, nothing is created before `add`."""

    def __init__(self, uri: str | Path) -> None:
        text = str(uri)
        self.shown = _without_password(text)
        self._server = text if text.startswith(("http://", "https://")) else None
        if not self._server and "://" in text:
            raise InputError("registry", self.shown, "neither a directory nor a tracking server", "name a directory, or http(s)://HOST:PORT")
        self._directory = None if self._server else Directory(Path(text))
        self._opened: Any = None

    def exists(self) -> bool:
        """Whether a version was ever published here."""
        if self._directory and not self._directory.exists():
            return False
        client = self._client()
        with self._translated():
            return _or_none(client.get_registered_model, NAME) is not None

    def snapshot(self) -> Snapshot:
        client = self._client()
        with self._translated():
            model = _or_none(client.get_registered_model, NAME)
            if model is None:
                raise InputError("registry", self.shown, f"holds no model named {NAME}", "publish one first, or name another registry")
            records = [_record(version) for version in _pages(client) if version.status == "READY"]
        aliases = {alias: str(number) for alias, number in model.aliases.items()}
        return Snapshot(records=tuple(records), aliases=aliases, tags=dict(model.tags))

    def add(self, files: Mapping[str, bytes], tags: Mapping[str, str]) -> Record:
        """A new version. The version itself comes last; a run without one is nothing to anybody."""
        client = self._client(create=True)
        with self._translated(), self.exclusive(), tempfile.TemporaryDirectory(prefix="gemmcast-publish-") as scratch:
            _create_unless_there(client.create_registered_model, NAME)
            run = client.create_run(self._experiment(client))
            for name, data in files.items():
                path = Path(scratch, name)
                path.write_bytes(data)
                client.log_artifact(run.info.run_id, str(path))
            client.set_terminated(run.info.run_id)
            return _record(client.create_model_version(NAME, source=run.info.artifact_uri, run_id=run.info.run_id, tags=dict(tags)))

    def read(self, record: Record, name: str) -> bytes:
        """One file of a version. Raises ModelFileError when it is gone."""
        gone = ModelFileError("version", record.number, f"its {name} is missing from registry {self.shown}", "promote another version")
        if self._directory:
            try:
                return self._directory.file(record.run_id, name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise gone from None
            except OSError as error:
                raise WorkspaceError(f"registry {self.shown}: {error}") from None
        client = self._client()
        with self._translated(), tempfile.TemporaryDirectory(prefix="gemmcast-read-") as scratch:
            path = _or_none(client.download_artifacts, record.run_id, name, scratch)
            if path is None:
                raise gone
            return Path(path).read_bytes()

    def set_alias(self, alias: str, number: str | None) -> None:
        """Point an alias at a version, or take it away."""
        client = self._client()
        with self._translated():
            if number is None:
                client.delete_registered_model_alias(NAME, alias)
            else:
                client.set_registered_model_alias(NAME, alias, number)

    def set_tag(self, key: str, value: str, *, number: str | None = None) -> None:
        """Tag the registered model, or one of its versions."""
        client = self._client()
        with self._translated():
            if number is None:
                client.set_registered_model_tag(NAME, key, value)
            else:
                client.set_model_version_tag(NAME, number, key, value)

    def exclusive(self) -> AbstractContextManager[None]:
        """Held around reading, deciding and writing; not nested. A server has no such lock: there, the later of two writers wins."""
        if self._directory is None:
            return nullcontext()
        self._directory.check()
        return self._directory.lock()

    def _client(self, *, create: bool = False) -> Any:
        if self._opened is None:
            if self._directory:
                if create and not self._directory.exists():
                    with self._translated():
                        self._directory.create(_fill)
                self._directory.check()
            with self._translated():
                self._opened = _connect(sqlite_uri(self._directory.database) if self._directory else str(self._server))
        return self._opened

    def _experiment(self, client: Any) -> str:
        """Where new runs keep their files. MLflow can't move an experiment, so a directory that was moved gets another."""
        location = self._directory.artifacts.as_uri() if self._directory else None
        for name in (NAME, f"{NAME} in {location}"):
            if client.get_experiment_by_name(name) is None:
                _create_unless_there(client.create_experiment, name, artifact_location=location)
            experiment = client.get_experiment_by_name(name)
            if location in (None, experiment.artifact_location):
                break
        return str(experiment.experiment_id)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (_mlflow().MlflowException, OSError) as error:
            reason = _without_password(" ".join(str(error).split()))
            raise WorkspaceError(f"registry {self.shown}: {reason[:400]}") from None


def _mlflow() -> Any:
    """MLflow, quiet and without telemetry. Its import takes a second and more, hence here."""
    os.environ.update(NO_TELEMETRY)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def _connect(uri: str) -> Any:
    return _mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)


def _fill(uri: str) -> None:
    """Opening an empty database is what writes MLflow's tables."""
    _connect(uri).search_registered_models(max_results=1)


def _pages(client: Any) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_model_versions(f"name='{NAME}'", max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _or_none(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except _mlflow().MlflowException as error:
        if error.error_code == NOT_THERE:
            return None
        raise


def _create_unless_there(call: Any, *arguments: Any, **options: Any) -> None:
    try:
        call(*arguments, **options)
    except _mlflow().MlflowException as error:
        if error.error_code != THERE_ALREADY:
            raise


def _record(version: Any) -> Record:
    created_ms = int(version.creation_timestamp)
    return Record(number=str(version.version), run_id=version.run_id or "", created_ms=created_ms, tags=dict(version.tags))


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)
