"""MLflow, behind the few calls that the registry makes (registry/mlflow_calls.py).

A registry is a registered model named gemmcast, and one more for each line of tuned tables, in a
directory (SQLite and files) or on a tracking server. A version's files and tags are written before
the version exists. MLflow adds it in one transaction, so no reader sees half of one. Knows nothing
of ONNX, cards, tables or champions; whatever MLflow raises leaves here as a GemmcastError.
"""

from __future__ import annotations

import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gemmcast.errors import InputError, ModelFileError, WorkspaceError
from registry import mlflow_calls
from registry.directory import RegistryDirectory
from registry.records import RegistrySnapshot, RegistryState, VersionRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "gemmcast"
"""Of the registered model of models, and of the experiment."""


class RegistryBackend(ABC):
    """One registered model in one MLflow.

    Nothing is opened before the first call and nothing is created before the first `add`. A version
    never changes after `add`; aliases and tags change in one write each. A process killed in `add`
    leaves a run without a version, which no call returns. tests/registry/test_registry_backend.py
    runs this contract over every subclass.
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        """The registry's name in messages, without a password."""
        self.name = NAME
        """Of the registered model."""
        self._connected: MlflowClient | None = None

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Held while reading, deciding and writing; not nested."""

    @abstractmethod
    def _open(self, *, create: bool) -> MlflowClient:
        """Connect. Raises InputError where there is no registry, unless `create`."""

    @abstractmethod
    def _read_file(self, record: VersionRecord, name: str) -> bytes | None:
        """One file of a version; None when it is gone."""

    def named(self, name: str) -> Self:
        """Another registered model in the same MLflow."""
        other = copy(self)
        other.name = name
        return other

    def states_of(self, prefix: str) -> dict[str, RegistryState]:
        """Every registered model whose name starts so, by its name."""
        client = self._client()
        with self._translated():
            return {
                model.name: mlflow_calls.state(model)
                for model in mlflow_calls.models(client, prefix)
            }

    def exists(self) -> bool:
        """Whether a version was ever published here."""
        client = self._client()
        with self._translated():
            return mlflow_calls.or_none(lambda: client.get_registered_model(self.name)) is not None

    def state(self) -> RegistryState | None:
        """Aliases and tags in one cheap question to MLflow; None: nothing was published."""
        client = self._client()
        with self._translated():
            model = mlflow_calls.or_none(lambda: client.get_registered_model(self.name))
        return None if model is None else mlflow_calls.state(model)

    def snapshot(self) -> RegistrySnapshot:
        """All versions, aliases and tags. Raises InputError where nothing was published."""
        client = self._client()
        with self._translated():
            model = mlflow_calls.or_none(lambda: client.get_registered_model(self.name))
            if model is None:
                raise self._nothing_published()
            records = [mlflow_calls.record(one) for one in mlflow_calls.versions(client, self.name)]
        state = mlflow_calls.state(model)
        return RegistrySnapshot(records=tuple(records), aliases=state.aliases, tags=state.tags)

    def add(self, files: Mapping[str, bytes], tags: Mapping[str, str]) -> VersionRecord:
        """Write a new version. It appears last, when its files are whole."""
        client = self._client(create=True)
        with self._translated(), self.exclusive():
            mlflow_calls.unless_there(lambda: client.create_registered_model(self.name))
            run = client.create_run(self._experiment(client))
            mlflow_calls.upload(client, run.info.run_id, files)
            client.set_terminated(run.info.run_id)
            version = client.create_model_version(
                self.name, source=run.info.artifact_uri, run_id=run.info.run_id, tags=dict(tags)
            )
            return mlflow_calls.record(version)

    def check(self) -> None:
        """Raise WorkspaceError if `add` is bound to be refused; creates nothing."""
        self.exists()
        client = self._client()
        with self._translated():
            for name in self._experiment_names():
                experiment = client.get_experiment_by_name(name)
                if experiment and self._location() in (None, experiment.artifact_location):
                    mlflow_calls.refuse_deleted(experiment)

    def read(self, record: VersionRecord, name: str) -> bytes:
        """One file of a version. Raises ModelFileError when it is gone."""
        data = self._read_file(record, name)
        if data is None:
            rule = f"its {name} is missing from registry {self.shown}"
            raise ModelFileError("version", record.number, rule, "promote another version")
        return data

    def set_alias(self, alias: str, number: str | None) -> None:
        """Point an alias at a version, or remove it."""
        client = self._client()
        with self._translated():
            if number is None:
                client.delete_registered_model_alias(self.name, alias)
            else:
                client.set_registered_model_alias(self.name, alias, number)

    def set_tag(self, key: str, value: str, *, number: str | None = None) -> None:
        """Tag the registered model, or one of its versions."""
        client = self._client()
        with self._translated():
            if number is None:
                client.set_registered_model_tag(self.name, key, value)
            else:
                client.set_model_version_tag(self.name, number, key, value)

    def _nothing_published(self) -> InputError:
        rule = f"holds no model named {self.name}"
        return InputError(
            "registry", self.shown, rule, "publish one first, or name another registry"
        )

    def _client(self, *, create: bool = False) -> MlflowClient:
        if self._connected is None:
            self._connected = self._open(create=create)
        return self._connected

    def _location(self) -> str | None:
        """Where MLflow keeps the files of new versions; None: the server decides."""
        return None

    def _experiment_names(self) -> tuple[str, ...]:
        """MLflow cannot move an experiment, so a directory that was moved gets another one."""
        return (NAME, f"{NAME} in {self._location()}")

    def _experiment(self, client: MlflowClient) -> str:
        """The experiment of new runs, which decides where MLflow keeps their files."""
        location = self._location()
        experiment_id = None
        for name in self._experiment_names():
            experiment = client.get_experiment_by_name(name) or mlflow_calls.create_experiment(
                client, name, location
            )
            experiment_id = str(experiment.experiment_id)
            if location in (None, experiment.artifact_location):
                break
        return str(experiment_id)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """MLflow's errors as WorkspaceError, without a password."""
        try:
            yield
        except (mlflow_calls.library().MlflowException, OSError) as error:
            reason = without_password(" ".join(str(error).split()))
            raise WorkspaceError(f"registry {self.shown}: {reason[:400]}") from None


class DirectoryBackend(RegistryBackend):
    """A registry in a directory, which many processes may use at once.

    It is read without MLflow (registry/database.py) and written with it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self._directory = RegistryDirectory(root)

    def exists(self) -> bool:
        """Whether a version was ever published here."""
        if not self._directory.exists():
            return False
        with self._directory.viewed() as view:
            return view.holds(self.name)

    def states_of(self, prefix: str) -> dict[str, RegistryState]:
        """Every registered model whose name starts so, by its name."""
        if not self._directory.exists():
            return {}
        with self._directory.viewed() as view:
            return {name: view.state(name) for name in view.names(prefix)}

    def state(self) -> RegistryState | None:
        """Aliases and tags; None: nothing was published."""
        if not self._directory.exists():
            return None
        with self._directory.viewed() as view:
            return view.state(self.name) if view.holds(self.name) else None

    def snapshot(self) -> RegistrySnapshot:
        """All versions, aliases and tags. Raises InputError where nothing was published."""
        with self._directory.viewed() as view:
            if not view.holds(self.name):
                raise self._nothing_published()
            return view.snapshot(self.name)

    def exclusive(self) -> AbstractContextManager[None]:
        """A lock on the directory."""
        self._directory.check()
        return self._directory.lock()

    def check(self) -> None:
        """Raise WorkspaceError if `add` is bound to be refused; creates nothing."""
        self._directory.check_writable()
        if self._directory.exists():
            super().check()

    def _open(self, *, create: bool) -> MlflowClient:
        if create and not self._directory.exists():
            with self._translated():
                self._directory.create(mlflow_calls.fill)
        self._directory.check()
        with self._translated():
            return mlflow_calls.connect(self._directory.uri)

    def _read_file(self, record: VersionRecord, name: str) -> bytes | None:
        try:
            return self._directory.file(record.run_id, name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise WorkspaceError(f"registry {self.shown}: {error}") from None

    def _location(self) -> str | None:
        return self._directory.artifacts.as_uri()


class ServerBackend(RegistryBackend):
    """A registry on an MLflow tracking server."""

    def __init__(self, uri: str) -> None:
        super().__init__(without_password(uri))
        self._uri = uri

    def exclusive(self) -> AbstractContextManager[None]:
        """A server has no such lock: the later of two writers wins."""
        return nullcontext()

    def _open(self, *, create: bool) -> MlflowClient:
        with self._translated():
            return mlflow_calls.connect(self._uri)

    def _read_file(self, record: VersionRecord, name: str) -> bytes | None:
        client = self._client()
        with self._translated(), tempfile.TemporaryDirectory(prefix="gemmcast-read-") as scratch:
            download = client.download_artifacts
            path = mlflow_calls.or_none(lambda: download(record.run_id, name, scratch))
            return None if path is None else Path(path).read_bytes()


def open_backend(uri: str | Path) -> RegistryBackend:
    """The backend of a directory, or of the http(s):// URI of a tracking server."""
    text = str(uri)
    if text.startswith(("http://", "https://")):
        return ServerBackend(text)
    if "://" in text:
        rule = "neither a directory nor a tracking server"
        way_out = "name a directory, or http(s)://HOST:PORT"
        raise InputError("registry", without_password(text), rule, way_out)
    return DirectoryBackend(Path(text))


def without_password(text: str) -> str:
    """The text without the user and password of its URIs."""
    return re.sub(r"//[^/@\s]*@", "//", text)
