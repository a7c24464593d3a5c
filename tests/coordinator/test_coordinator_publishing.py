"""A registry that refuses a model costs no training: the model is kept and published later."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from coordinator.fleet.publishing import KeptError, LatePublisher, publish_or_keep
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from costmodel.train import TrainedModel
from gemmcast.card import ModelCard
from gemmcast.errors import WorkspaceError
from registry.cli import main as registry_main
from registry.registry import Registry

# Inside MLflow 3.17 with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
Coordinator = Callable[..., subprocess.CompletedProcess[str]]
Refuse = Callable[[bool], None]


@pytest.fixture
def place(tmp_path: Path, candidate: TrainedModel) -> Workspace:
    """A workspace with one published version."""
    place = Workspace(tmp_path / "workspace")
    Registry(place.registry).publish(candidate.model, candidate.card)
    return place


@pytest.fixture
def refuse(place: Workspace) -> Refuse:
    """Delete the experiment as in MLflow's UI, or restore it."""
    uri = f"sqlite:///{place.registry / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("gemmcast")
    assert experiment is not None

    def refuse(is_refused: bool) -> None:
        if is_refused:
            client.delete_experiment(experiment.experiment_id)
        else:
            client.restore_experiment(experiment.experiment_id)

    return refuse


def test_a_refused_model_is_kept_and_one_command_publishes_it(
    place: Workspace, candidate: TrainedModel, refuse: Refuse, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(place.registry)
    refuse(True)
    judged = (candidate.model, candidate.card, None)
    with pytest.raises(KeptError, match="publish it with: python -m registry publish ") as caught:
        publish_or_keep(registry, judged, None, place.kept)
    path = caught.value.path
    assert path.read_bytes() == candidate.model
    refuse(False)
    assert registry_main(["publish", str(path), "--workspace", str(place.path)]) == 0
    assert "version 2 is the champion" in capsys.readouterr().out
    assert registry.load("champion").model == candidate.model
    assert list(place.kept.iterdir()) == []


def test_while_a_run_lasts_it_is_tried_again_with_growing_pauses(
    place: Workspace, candidate: TrainedModel, refuse: Refuse
) -> None:
    registry = Registry(place.registry)
    refuse(True)
    with pytest.raises(KeptError) as caught:
        publish_or_keep(registry, (candidate.model, candidate.card, None), None, place.kept)
    pauses: list[float] = []
    shown: list[str | None] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            refuse(False)

    def on_trained(_: ModelCard, version: str | None) -> None:
        shown.append(version)

    publisher = LatePublisher(registry, on_trained, pause)
    publisher.start(caught.value.path, candidate.card).join()
    assert pauses == [1, 2, 4, 8]
    assert shown == ["2"]
    assert registry.resolve("champion").number == "2"


def test_the_registry_is_tried_before_the_training(
    place: Workspace,
    refuse: Refuse,
    coordinator: Coordinator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    SampleStore.open(place.samples, create=True)
    refuse(True)

    def no_training(*_: object) -> None:
        raise AssertionError("trained before the registry was tried")

    monkeypatch.setattr("coordinator.training.fit_and_judge", no_training)
    ended = coordinator("train", "--workspace", place.path)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.strip().splitlines()
    assert "experiment 'gemmcast' was deleted; restore it: mlflow experiments restore" in line


def test_a_registry_that_is_down_ends_a_training_before_it_begins(
    place: Workspace, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    SampleStore.open(place.samples, create=True)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = "http://127.0.0.1:1"
    ended = coordinator("train", "--workspace", place.path, "--registry", registry)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith(f"error: registry {registry}: ")


def test_a_disk_that_is_full_twice_says_both(
    place: Workspace, candidate: TrainedModel, refuse: Refuse
) -> None:
    """Neither registry nor workspace takes the model: the training is lost, and that is said."""
    refuse(True)
    place.kept.write_text("in the way")
    judged = (candidate.model, candidate.card, None)
    with pytest.raises(WorkspaceError, match="can't be kept in .*free some space"):
        publish_or_keep(Registry(place.registry), judged, None, place.kept)
