"""A registry in a directory with any name: it lies there, and nowhere else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gemmcast.card import ModelCard
from gemmcast.errors import InputError, WorkspaceError
from registry.backend import NAME, open_backend
from registry.kept import keep, publish_kept
from registry.registry import Registry

MakeModel = Callable[..., bytes]
# Inside MLflow 3.17 with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
NAMES = ("feature%2Fx", "per%cent", "what?", "a\\b", "[x]#1", "two words", "日本", "new\nline")


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """No path is writable, whoever runs the tests."""
    monkeypatch.setattr(os, "access", lambda *_: False)


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_of_any_name_holds_its_registry(
    template: Path, tmp_path: Path, make_model: MakeModel, card: ModelCard, name: str
) -> None:
    place = Path(shutil.copytree(template, tmp_path / name / "registry"))
    registry = Registry(place)
    assert registry.publish(make_model(4), card).number == "4"
    assert registry.promote("4").number == "4"
    assert Registry(place).load("champion").model == make_model(4)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sorted(path.name for path in place.iterdir()) == [".lock", "artifacts", "mlflow.db"]


def test_a_new_registry_can_have_such_a_name(
    tmp_path: Path, make_model: MakeModel, card: ModelCard
) -> None:
    Registry(tmp_path / "feature%2Fx" / "registry").publish(make_model(), card)
    assert [path.name for path in tmp_path.iterdir()] == ["feature%2Fx"]


def test_the_neighbour_with_the_decoded_name_is_not_read(template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "feature" / "x")
    registry = Registry(tmp_path / "feature%2Fx")
    assert registry.champion() is None
    with pytest.raises(InputError, match="holds no registry"):
        registry.list()
    assert [path.name for path in tmp_path.iterdir()] == ["feature"]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="registry = .*its name is not UTF-8; name another"):
        Registry(os.fsdecode(bytes(tmp_path) + b"/x\xff"))


# Whether a version could be published, and what becomes of a model that was refused


def _delete_experiment(directory: Path) -> MlflowClient:
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for experiment in client.search_experiments():
        if experiment.name.startswith(NAME):
            client.delete_experiment(experiment.experiment_id)
    return client


@pytest.fixture
def original(template: Path, tmp_path: Path, make_model: MakeModel, card: ModelCard) -> Path:
    """A copy of the template with an experiment of its own, as after one more training."""
    place = Path(shutil.copytree(template, tmp_path / "registry"))
    Registry(place).publish(make_model(4), card)
    return place


def test_a_registry_that_would_take_a_version_passes(original: Path, tmp_path: Path) -> None:
    Registry(original).check()
    Registry(tmp_path / "new" / "registry").check()
    assert not (tmp_path / "new").exists()


def test_a_deleted_experiment_is_found_before_the_training(original: Path) -> None:
    _delete_experiment(original)
    way_out = "restore it: mlflow experiments restore --experiment-id"
    with pytest.raises(WorkspaceError, match=f"was deleted; {way_out}"):
        Registry(original).check()


def test_a_directory_that_cannot_be_written_is_found_before_the_training(
    tmp_path: Path, as_root: None
) -> None:
    with pytest.raises(WorkspaceError, match="can't be written: name a directory"):
        Registry(tmp_path / "new" / "registry").check()


@pytest.mark.parametrize("objection", [None, "worse by 3 %"])
def test_a_kept_model_is_published_later(
    original: Path, tmp_path: Path, make_model: MakeModel, card: ModelCard, objection: str | None
) -> None:
    registry = Registry(original)
    champion = registry.load("champion").model
    path = keep(tmp_path / "kept", make_model(5), card, objection, champion)
    version, reason = publish_kept(registry, path)
    assert registry.load(version.number).model == make_model(5)
    assert reason == objection
    assert version.status == ("challenger" if objection else "champion")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_kept_model_does_not_displace_a_champion_that_it_was_not_compared_with(
    original: Path, tmp_path: Path, make_model: MakeModel, card: ModelCard
) -> None:
    registry = Registry(original)
    path = keep(tmp_path, make_model(5), card, None, make_model(77))
    version, reason = publish_kept(registry, path)
    assert version.status == "challenger"
    assert reason == "the champion is not the one that it was compared with"


def test_a_model_that_is_refused_again_stays(
    original: Path, tmp_path: Path, make_model: MakeModel, card: ModelCard
) -> None:
    _delete_experiment(original)
    path = keep(tmp_path / "kept", make_model(5), card, None, make_model(2))
    with pytest.raises(WorkspaceError):
        publish_kept(Registry(original), path)
    assert path.read_bytes() == make_model(5)
    assert open_backend(original).snapshot().aliases["champion"] == "2"


def test_a_file_that_is_no_kept_model_is_refused(original: Path, tmp_path: Path) -> None:
    way_out = "name the model-....onnx that a training kept"
    with pytest.raises(InputError, match=f"FILE = .*No such file or directory; {way_out}"):
        publish_kept(Registry(original), tmp_path / "model.onnx")
    (tmp_path / "model.onnx").touch()
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(InputError, match=f"is not what a training kept; {way_out}"):
        publish_kept(Registry(original), tmp_path / "model.onnx")
