"""Publishing, naming, promoting and rolling back, against a real MLflow in a directory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gemmcast.card import ModelCard
from gemmcast.errors import InputError, WorkspaceError
from gemmcast.modeldir import sha256
from registry.registry import Registry

MakeModel = Callable[..., bytes]
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1


def client_of(directory: Path) -> MlflowClient:
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def champions(registry: Registry) -> list[str]:
    """The champion, then each that a rollback puts back."""
    numbers = []
    try:
        numbers.append(registry.resolve("champion").number)
        while True:
            numbers.append(registry.rollback().number)
    except InputError:
        return numbers


def test_publish_gives_a_version_that_nothing_points_at(
    registry: Registry, make_model: MakeModel, card: ModelCard
) -> None:
    model = make_model(4)
    version = registry.publish(model, card)
    assert (version.number, version.sha256, version.aliases, version.status, version.rows) == (
        "4",
        sha256(model),
        (),
        "candidate",
        card.rows,
    )
    assert version.created_at.endswith("+00:00")
    assert registry.resolve("4") == version
    assert registry.resolve("champion").number == "2"


def test_load_gives_back_what_was_published(
    registry: Registry, make_model: MakeModel, card: ModelCard
) -> None:
    model, loaded, version = registry.load("champion")
    assert model == make_model(2)
    assert loaded.sha256 == version.sha256 == sha256(model)
    assert (loaded.scores, loaded.targets, loaded.split) == (card.scores, card.targets, card.split)


def test_list_is_newest_first_and_says_what_each_is(
    registry: Registry, make_model: MakeModel, card: ModelCard
) -> None:
    for seed in range(4, 11):
        registry.publish(make_model(seed), card)
    versions = registry.list()
    assert [version.number for version in versions] == [str(number) for number in range(10, 0, -1)]
    assert [version.status for version in versions[-3:]] == ["challenger", "champion", "retired"]


def test_promote_moves_the_champion_and_drops_the_challenger(registry: Registry) -> None:
    promoted = registry.promote("challenger")
    assert (promoted.number, promoted.aliases, promoted.status) == ("3", ("champion",), "champion")
    assert registry.resolve("2").status == "retired"
    with pytest.raises(
        InputError, match="no version has this alias; name one of: champion, 3, 2, 1"
    ):
        registry.resolve("challenger")


def test_promote_leaves_another_challenger_alone(registry: Registry) -> None:
    registry.promote("1")
    assert registry.resolve("challenger").number == "3"


def test_rollback_goes_back_step_by_step(registry: Registry) -> None:
    registry.promote("3")
    registry.promote("1")
    assert champions(registry) == ["1", "3", "2", "1"]
    with pytest.raises(
        InputError,
        match=r"champion is 1.*no champion came before; promote a version \(champion, 3, 2, 1\)",
    ):
        registry.rollback()


def test_rollbacks_of_several_processes_go_on_where_the_last_one_stopped(
    registry: Registry, directory: Path
) -> None:
    registry.promote("3")
    assert Registry(directory).rollback().number == "2"
    assert Registry(directory).rollback().number == "1"
    assert registry.champion_number() == "1"


def test_promoting_the_champion_again_changes_nothing(registry: Registry) -> None:
    registry.promote("2")
    registry.promote("champion")
    assert champions(registry) == ["2", "1"]


def test_a_version_that_was_rolled_back_is_not_returned_to(registry: Registry) -> None:
    registry.promote("3")
    registry.rollback()
    assert registry.resolve("3").status == "retired"
    assert champions(registry) == ["2", "1"]


def test_a_crash_between_history_and_alias_is_harmless(registry: Registry, directory: Path) -> None:
    """`promote` writes the history before the alias, `rollback` after: one entry too many."""
    client_of(directory).set_registered_model_tag(
        "gemmcast", "gemmcast.champions", json.dumps(["1", "2"])
    )
    assert champions(registry) == ["2", "1"]


def test_rollback_skips_a_version_that_was_deleted(registry: Registry, directory: Path) -> None:
    registry.promote("3")
    client_of(directory).delete_model_version("gemmcast", "2")
    assert champions(registry) == ["3", "1"]


def test_challenging_the_champion_is_refused(registry: Registry) -> None:
    with pytest.raises(InputError, match="is the champion already"):
        registry.challenge("2")
    assert registry.challenge("1").aliases == ("challenger",)
    assert registry.resolve("3").aliases == ()


@pytest.mark.parametrize("ref", ["4", "0", "best", "", "3.0"])
def test_an_unknown_version_names_what_exists(registry: Registry, ref: str) -> None:
    with pytest.raises(
        InputError, match="no such version; name one of: champion, challenger, 3, 2, 1"
    ):
        registry.resolve(ref)


def test_a_version_that_somebody_else_made_is_not_ours(registry: Registry, directory: Path) -> None:
    client = client_of(directory)
    client.create_model_version("gemmcast", source="file:///nowhere")
    client.set_registered_model_alias("gemmcast", "champion", "4")
    assert [version.number for version in registry.list()] == ["3", "2", "1"]
    with pytest.raises(InputError, match="no such version"):
        registry.load("4")
    with pytest.raises(InputError, match="points at version 4, which gemmcast did not publish"):
        registry.resolve("champion")


def test_a_publish_that_stopped_halfway_is_nothing(
    registry: Registry, directory: Path, make_model: MakeModel, card: ModelCard
) -> None:
    client = client_of(directory)
    [experiment] = client.search_experiments(filter_string="name = 'gemmcast'")
    run = client.create_run(experiment.experiment_id)
    half_written = directory / "artifacts" / run.info.run_id / "artifacts" / "model.onnx"
    half_written.parent.mkdir(parents=True)
    half_written.write_bytes(make_model(4)[:-9])
    assert [version.number for version in registry.list()] == ["3", "2", "1"]
    assert registry.publish(make_model(4), card).number == "4"
    assert registry.load("4")[0] == make_model(4)


def test_a_copied_registry_leaves_the_original_alone(
    registry: Registry, template: Path, directory: Path, make_model: MakeModel, card: ModelCard
) -> None:
    before = sorted(template.rglob("*"))
    registry.publish(make_model(4), card)
    registry.publish(make_model(5), card)
    assert [registry.verify(ref).number for ref in ("1", "4", "5")] == ["1", "4", "5"]
    assert sorted(template.rglob("*")) == before
    assert len(list((directory / "artifacts").iterdir())) == 5


def test_export_writes_the_model(registry: Registry, tmp_path: Path, make_model: MakeModel) -> None:
    target = tmp_path / "new" / "model.onnx"
    assert registry.export("1", target).number == "1"
    assert target.read_bytes() == make_model(1)
    assert [path.name for path in target.parent.iterdir()] == ["model.onnx"]


def test_export_to_a_directory_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be written"):
        registry.export("1", tmp_path)


def test_the_champion_of_nothing_is_none(
    registry: Registry, directory: Path, tmp_path: Path
) -> None:
    assert Registry(tmp_path / "none").champion() is None
    champion = registry.champion()
    assert champion is not None and champion.number == "2"
    assert Registry(tmp_path / "none").champion_number() is None
    assert registry.champion_number() == "2"
    client_of(directory).delete_registered_model_alias("gemmcast", "champion")
    assert registry.champion() is None
    assert registry.champion_number() is None


READS: list[Callable[[Registry], object]] = [
    lambda registry: registry.list(),
    lambda registry: registry.resolve("champion"),
    lambda registry: registry.load("1"),
    lambda registry: registry.verify("1"),
    lambda registry: registry.export("1", "model.onnx"),
    lambda registry: registry.promote("1"),
    lambda registry: registry.challenge("1"),
    lambda registry: registry.rollback(),
]


@pytest.mark.parametrize("read", READS)
def test_reading_nothing_is_refused_and_creates_nothing(
    tmp_path: Path, read: Callable[[Registry], object]
) -> None:
    with pytest.raises(InputError, match="holds no registry"):
        read(Registry(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_somebody_else_is_refused(
    tmp_path: Path, make_model: MakeModel, card: ModelCard
) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("CREATE TABLE other (id INTEGER)")
    with pytest.raises(InputError, match="mlflow.db is not MLflow's"):
        Registry(tmp_path).publish(make_model(), card)


def test_a_broken_database_is_refused_at_once(
    directory: Path, registry: Registry, make_model: MakeModel, card: ModelCard
) -> None:
    """MLflow itself tries again for 104 s."""
    (directory / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(WorkspaceError, match="can't be read"):
        registry.list()
    with pytest.raises(WorkspaceError, match="can't be read"):
        registry.publish(make_model(), card)


def test_a_path_that_cannot_be_a_directory_is_refused(
    tmp_path: Path, make_model: MakeModel, card: ModelCard
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="can't be created"):
        Registry(tmp_path / "file" / "registry").publish(make_model(), card)


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",
        "databricks://profile",
        "file:///tmp/registry",
    ],
)
def test_a_uri_that_mlflow_would_misread_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="registry = "):
        Registry(uri)
