"""Tuned tables in a registry: one champion per type of device and objective, beside the models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from gemmcast import tabledir
from gemmcast.errors import InputError, WorkspaceError
from gemmcast.tuned_parquet import read_parquet, write_parquet
from gemmcast.tuned_table import TunedTable
from registry.cli import main
from registry.registry import Registry
from registry.tables import PREFIX, TableRegistry, device_label
from registry.versions import CHAMPION
from tests.small_tables import KEY, table

Server = Any
H200 = replace(KEY, device="NVIDIA H200")
ENERGY = replace(KEY, objective="energy")
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1


@pytest.fixture(scope="session")
def tables_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the H100, by time: 1 (retired), 2 (champion), 3 (candidate); of the H200 one candidate.

    They are beside models, in a registry that is older than them.
    """
    directory = tmp_path_factory.mktemp("tables template") / "registry"
    shutil.copytree(template, directory)
    tables = TableRegistry(directory)
    for m in (1, 2):
        lineage, version = tables.publish(table(m))
        lineage.promote(version.number)
    tables.publish(table(3, key=replace(KEY, driver="590.1")))
    tables.publish(table(4, 5, key=H200))
    return directory


@pytest.fixture
def tables(tmp_path: Path, tables_template: Path) -> TableRegistry:
    return TableRegistry(shutil.copytree(tables_template, tmp_path / "workspace" / "registry"))


@pytest.fixture
def ask(
    tables: TableRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs `registry tables ...` on the copied registry and gives what it printed."""

    def run(*words: object, code: int = 0) -> str:
        place = ["--workspace", str(tmp_path / "workspace")]
        assert main(["tables", *map(str, words), *place]) == code
        out, err = capsys.readouterr()
        assert (out if code else err) == ""
        return str(err if code else out)

    return run


def test_each_device_and_objective_has_its_own_versions(tables: TableRegistry) -> None:
    lineages = {(one.device, one.key.objective): one for one in tables.lineages()}
    h100, h200 = "NVIDIA H100 80GB HBM3 (132 units, 700 W)", "NVIDIA H200 (132 units, 700 W)"
    assert list(lineages) == [(h100, "time"), (h200, "time")]
    states = [(one.number, one.status, one.rows) for one in lineages[h100, "time"].list()]
    assert states == [("3", "candidate", 1), ("2", "champion", 1), ("1", "retired", 1)]
    assert [one.rows for one in lineages[h200, "time"].list()] == [2]


def test_a_version_gives_its_table_back(tables: TableRegistry) -> None:
    published = tables.lineage("h100").load(CHAMPION)
    assert published.table == table(2)
    assert published.data == table(2).to_json().encode()
    assert tables.lineage("h200").load("1").table == table(4, 5, key=H200)


def test_promotion_and_rollback_of_one_do_not_touch_the_other(tables: TableRegistry) -> None:
    tables.lineage("h200").promote("1")
    h100 = tables.lineage("h100")
    assert h100.promote("3").status == "champion"
    assert h100.load(CHAMPION).table.key.driver == "590.1"
    assert [h100.rollback().number for _ in range(2)] == ["2", "1"]
    with pytest.raises(InputError, match="no champion came before"):
        h100.rollback()
    assert tables.lineage("h200").champion_number() == "1"
    assert sorted(tables.champions().values()) == ["1", "1"]


def test_what_is_shipped_are_the_champions(tables: TableRegistry) -> None:
    (shipped,) = tables.shipped()
    assert (shipped.version, shipped.data) == ("2", table(2).to_json().encode())
    tables.lineage("h200").promote("1")
    assert [one.version for one in tables.shipped()] == ["2", "1"]


@pytest.mark.parametrize(
    ("device", "objective", "message"),
    [
        (None, None, r"--device = None: must be given: .* several; name one of: NVIDIA H100"),
        ("b200", None, r"--device = 'b200': is no known device; name one of: NVIDIA H100"),
        ("nvidia", None, r"--device = 'nvidia': fits several devices"),
        ("h100", "edp", r"--objective = 'edp': no table has it; name one of: time"),
    ],
)
def test_a_lineage_that_is_not_meant_is_named(
    tables: TableRegistry, device: str | None, objective: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tables.lineage(device, objective)


def test_power_limits_part_tables_of_one_device(tables: TableRegistry) -> None:
    capped = replace(KEY, power_limit_w=500.0)
    assert device_label(capped) == "NVIDIA H100 80GB HBM3 (132 units, 500 W)"
    assert device_label(replace(KEY, mig=True, power_limit_w=None)).endswith("(MIG, 132 units)")
    tables.publish(table(7, key=capped))
    with pytest.raises(InputError, match="fits several devices"):
        tables.lineage("h100")
    assert tables.lineage("h100 500 w").load("1").table == table(7, key=capped)


def test_damage_is_refused_and_the_champion_stays(tables: TableRegistry, tmp_path: Path) -> None:
    for path in (tmp_path / "workspace").rglob("table.json"):
        path.write_bytes(path.read_bytes()[:-1])
    lineage = tables.lineage("h100")
    for call in (lineage.verify, lineage.promote, lineage.load):
        with pytest.raises(InputError, match=r"table = 'version 3 in .*: damaged: SHA-256"):
            call("3")
    with pytest.raises(InputError, match="damaged"):
        tables.shipped()
    assert lineage.champion_number() == "2"


def test_models_and_tables_share_a_registry_and_do_not_see_each_other(directory: Path) -> None:
    """A registry that was made before there were tables."""
    tables = TableRegistry(directory)
    assert tables.lineages() == []
    assert tables.champions() == {}
    with pytest.raises(InputError, match="holds no tuned table; publish one first"):
        tables.lineage()
    before = Registry(directory).list()
    lineage, version = tables.publish(table(1))
    lineage.promote(version.number)
    assert Registry(directory).list() == before
    assert Registry(directory).champion_number() == "2"
    assert tables.champions() == {lineage._backend.name: "1"}


def test_a_registry_that_is_not_there_has_no_tables(tmp_path: Path) -> None:
    tables = TableRegistry(tmp_path / "none")
    assert (tables.lineages(), tables.champions(), tables.shipped()) == ([], {}, [])
    assert not (tmp_path / "none").exists()


def test_a_publish_that_was_killed_leaves_nothing(tables: TableRegistry, tmp_path: Path) -> None:
    """MLflow's registered model is made before its first version."""
    uri = f"sqlite:///{tmp_path / 'workspace' / 'registry' / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model(f"{PREFIX}NVIDIA-B200-time-00000000")
    assert len(tables.lineages()) == 2
    assert len(tables.shipped()) == 1


def test_a_tracking_server_keeps_tables(server: Server) -> None:
    tables = TableRegistry(server.uri)
    lineage, version = tables.publish(table(1, 16))
    assert tables.champions() == {}
    lineage.promote(version.number)
    lineage.promote(tables.publish(table(2))[1].number)
    assert TableRegistry(server.uri).lineage().load(CHAMPION).table == table(2)
    assert list(tables.champions().values()) == ["2"]
    assert lineage.rollback().number == "1"
    assert tables.shipped()[0].data == table(1, 16).to_json().encode()
    # Nobody has published a model there.
    assert Registry(server.uri).champion() is None


def test_a_server_that_is_down_is_a_workspace_error(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(WorkspaceError, match=r"^registry http://127.0.0.1"):
        TableRegistry(f"http://127.0.0.1:{free_port()}").champions()


# the command line


def test_list_and_show(ask: Callable[..., str]) -> None:
    lines = [line.split() for line in ask("list").splitlines() if line.strip()]
    assert lines[0] == ["NVIDIA", "H100", "80GB", "HBM3", "(132", "units,", "700", "W),", "time"]
    assert [line[:2] for line in lines[3:6]] == [
        ["3", "candidate"],
        ["2", "champion"],
        ["1", "retired"],
    ]
    assert max(len(line) for line in ask("list").splitlines()) <= 80
    values = json.loads(ask("list", "--json"))["tables"]
    assert [(one["device"][:11], one["version"]["number"]) for one in values] == [
        ("NVIDIA H100", "3"),
        ("NVIDIA H100", "2"),
        ("NVIDIA H100", "1"),
        ("NVIDIA H200", "1"),
    ]
    shown = ask("show", "--device", "h100").splitlines()
    assert shown[0].startswith("version 2 champion of NVIDIA H100 80GB HBM3")
    assert "driver         580.1" in shown
    gain = "gain 1.500 measured (1.400 to 1.600), 9 of 200 measured"
    assert shown[-2] == f"2x1024x4096 fp8_e4m3 nt: {gain}"
    values = json.loads(ask("show", "1", "--device", "h200", "--json"))
    assert TunedTable.from_json(json.dumps(values["table"])) == table(4, 5, key=H200)


def test_publish_merges_and_promotes_where_that_is_wanted(
    ask: Callable[..., str], tables: TableRegistry, tmp_path: Path
) -> None:
    table(1, 16).write(tmp_path / "one.json")
    write_parquet(table(16, 64, measured=30), tmp_path / "two.parquet")
    said = ask("publish", tmp_path / "one.json", tmp_path / "two.parquet")
    assert said.startswith("version 4 of NVIDIA H100 80GB HBM3 (132 units, 700 W), time: 3 entries")
    assert "python -m registry tables promote 4 makes it the champion" in said
    lineage = tables.lineage("h100")
    assert lineage.champion_number() == "2"
    merged = table(1, 16).merged_with(table(16, 64, measured=30))
    assert lineage.load("4").table == merged
    assert "it is the champion" in ask("publish", tmp_path / "one.json", "--promote")
    assert lineage.champion_number() == "5"
    table(1, key=ENERGY).write(tmp_path / "energy.json")
    err = ask("publish", tmp_path / "one.json", tmp_path / "energy.json", code=2)
    assert err.startswith("error: objective = 'time': the other table has 'energy'")
    assert len(lineage.list()) == 5


def test_promote_and_rollback_reach_a_node(
    ask: Callable[..., str], tables: TableRegistry, tmp_path: Path
) -> None:
    node = tmp_path / "node"
    assert "a run in progress pushes it" in ask("promote", 3, "--device", "h100")
    said = ask("rollback", "--device", "h100", "--push", node)
    assert said.endswith(f"is the champion again; the model directory {node} has it\n")
    (placed,) = tabledir.read_current(node).tables
    assert placed.version == "2"
    assert tabledir.read_table(node, placed) == table(2).to_json().encode()
    tables.lineage("h200").promote("1")
    assert f"{node} has 2 tuned tables" in ask("push", node)
    assert len(tabledir.read_current(node).tables) == 2


def test_a_directory_that_takes_no_table_is_refused_before_the_champion_changes(
    ask: Callable[..., str], tables: TableRegistry, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    err = ask("promote", 3, "--device", "h100", "--push", tmp_path / "file" / "node", code=2)
    assert "no model can be written there" in err
    assert tables.lineage("h100").champion_number() == "2"


def test_export_and_verify(ask: Callable[..., str], tmp_path: Path) -> None:
    ask("export", "champion", tmp_path / "t.json", "--device", "h100")
    assert TunedTable.read(tmp_path / "t.json") == table(2)
    ask("export", 1, tmp_path / "t.parquet", "--device", "h100")
    assert read_parquet(tmp_path / "t.parquet") == table(1)
    err = ask("export", 1, tmp_path / "t.csv", "--device", "h100", code=2)
    assert "says no format; name a file that ends in .json or .parquet" in err
    err = ask("export", 1, tmp_path / "none" / "t" / "x.json" / "t", "--device", "h100", code=2)
    assert "says no format" in err
    assert json.loads(ask("verify", "--device", "h100", "--json"))["verified"] is True


def test_a_registry_without_tables_says_how_to_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--workspace", str(tmp_path)]
    assert main(["tables", "list", *place]) == 0
    assert capsys.readouterr().out.startswith("no tuned table yet: python -m registry tables pub")
    for command in (["show"], ["promote", "1"], ["push", str(tmp_path / "node")]):
        assert main(["tables", *command, *place]) == 2
    err = capsys.readouterr().err
    assert err.count("publish one first") == 2
    assert err.count("no table is champion") == 1
    assert not (tmp_path / "registry").exists()
