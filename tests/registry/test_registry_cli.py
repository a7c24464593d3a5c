"""`python -m registry`: what it prints, as text and as JSON, and how it ends."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemmcast import modeldir
from gemmcast.card import ModelCard
from registry.cli import main
from registry.registry import Registry

MakeModel = Callable[..., bytes]
ROOT = Path(__file__).parents[2]
REACH = (
    "a run in progress pushes it within 5 s, else the next run does; --push NODE_DIR writes it now"
)
COLUMNS = 80
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # inside MLflow 3.17 with SQLAlchemy 2.1


@pytest.fixture
def ask(directory: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command on the copied registry and gives what it printed."""

    def run(*arguments: str) -> str:
        assert main([*arguments, "--workspace", str(directory.parent)]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


@pytest.fixture
def ask_json(ask: Callable[..., str]) -> Callable[..., Any]:
    return lambda *arguments: json.loads(ask(*arguments, "--json").splitlines()[-1])


def test_list(ask: Callable[..., str], ask_json: Callable[..., Any]) -> None:
    lines = [line.split()[:2] for line in ask("list").splitlines() if line.strip()]
    assert lines[0] == ["version", "status"]
    assert lines[2:] == [["3", "challenger"], ["2", "champion"], ["1", "retired"]]
    versions = ask_json("list")["versions"]
    assert [(version["number"], version["aliases"]) for version in versions] == [
        ("3", ["challenger"]),
        ("2", ["champion"]),
        ("1", []),
    ]


def test_show(ask: Callable[..., str], ask_json: Callable[..., Any]) -> None:
    lines = ask("show", "challenger").splitlines()
    assert lines[0].startswith("version 3 challenger: errors in per cent on 4683 held-out rows")
    assert ["runtime", "3.0", "4.7", "11.2", "0.980", "4683"] in [line.split() for line in lines]
    assert "NVIDIA H100 80GB HBM3 (22683)" in lines[-2]
    assert len(lines) < 10
    text = ask("show", "challenger", "--all")
    assert text.splitlines()[: len(lines)] == lines
    assert max(len(line.rstrip()) for line in text.splitlines()) <= COLUMNS
    for row in (
        ["lookup", "3.0", "31.0", "11.2", "0.980", "4683"],
        ["roofline", "3.0", "40.0", "11.2", "0.980", "4683"],
    ):
        assert row in [line.split() for line in text.splitlines()]
    assert "family cutlass" in text
    shown = ask_json("show")
    assert shown["version"]["number"] == "2"
    assert shown["card"]["scores"]["runtime_us"]["model"]["mape"] == 4.7
    assert shown["card"]["sha256"] == shown["version"]["sha256"]


def test_an_exam_is_shown_first(
    directory: Path, make_model: MakeModel, card: ModelCard, ask: Callable[..., str]
) -> None:
    metrics = {**card.scores["runtime_us"]["model"], "median_ape": 5.5, "rows": 3000.0}
    split = "exam.parquet: 3 boards and 100 (n, k) that no sample has"
    exam = {"split": split, "scores": {"runtime_us": {"model": metrics}}}
    published = Registry(directory).publish(make_model(9), replace(card, exam=exam))
    lines = ask("show", published.number).splitlines()
    assert lines[0].startswith("exam: errors in per cent on exam.parquet: 3 boards")
    rows = [line.split() for line in lines if line.split()[:1] == ["runtime"]]
    assert [row[-1] for row in rows] == ["3000", "4683"]
    assert max(len(line.rstrip()) for line in lines) <= COLUMNS


def test_promote_and_rollback(
    ask: Callable[..., str], ask_json: Callable[..., Any], directory: Path
) -> None:
    assert ask("promote", "challenger") == f"version 3 is the champion; {REACH}\n"
    assert Registry(directory).resolve("champion").number == "3"
    assert ask_json("rollback")["version"]["number"] == "2"
    assert ask("rollback") == f"version 1 is the champion again; {REACH}\n"
    promoted = ask_json("promote", "2")
    assert promoted["version"]["aliases"] == ["champion"]
    assert promoted["pushed"] is None


def test_each_rollback_goes_one_further_back_and_its_push_reaches_the_node(
    ask: Callable[..., str], ask_json: Callable[..., Any], tmp_path: Path, make_model: MakeModel
) -> None:
    node = tmp_path / "node"
    said = ask("promote", "3", "--push", str(node))
    assert said == f"version 3 is the champion; the model directory {node} has it\n"
    for seed in (2, 1):
        assert ask_json("rollback", "--push", str(node))["pushed"] == str(seed)
        current = modeldir.read_current(node)
        assert current.version == str(seed)
        assert modeldir.read_model(node, current) == make_model(seed)


@pytest.mark.parametrize("command", [["promote", "3"], ["rollback"]])
def test_a_directory_that_takes_no_model_is_refused_before_the_champion_changes(
    command: list[str], directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    node = tmp_path / "file" / "node"
    assert main([*command, "--registry", str(directory), "--push", str(node)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"model directory = '{node}': no model can be written there" in captured.err
    assert captured.err.count("\n") == 1
    assert Registry(directory).champion_number() == "2"


def test_verify(ask: Callable[..., str], ask_json: Callable[..., Any]) -> None:
    assert ask("verify").startswith("version 2 is whole (SHA-256 ")
    assert ask_json("verify", "1")["verified"] is True


def test_export(
    ask: Callable[..., str], ask_json: Callable[..., Any], tmp_path: Path, make_model: MakeModel
) -> None:
    target = tmp_path / "model.onnx"
    assert str(target) in ask("export", "champion", str(target))
    assert target.read_bytes() == make_model(2)
    assert ask_json("export", "1", str(target))["path"] == str(target)
    assert target.read_bytes() == make_model(1)


def test_registry_option_goes_before_workspace(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            ["list", "--workspace", str(tmp_path / "none"), "--registry", str(directory), "--json"]
        )
        == 0
    )
    assert len(json.loads(capsys.readouterr().out)["versions"]) == 3


WRONG = [
    (
        ["promote", "9"],
        "version = '9': no such version; name one of: champion, challenger, 3, 2, 1",
    ),
    (["promote"], "Missing argument 'REF'. (see python -m registry --help)"),
    (["export", "1"], "Missing argument 'FILE'. (see python -m registry --help)"),
    (["list", "--what"], "No such option: --what (see python -m registry --help)"),
    (["delete"], "No such command 'delete'. (see python -m registry --help)"),
    ([], "Missing command. (see python -m registry --help)"),
    (
        ["list", "--registry", "sqlite:///x"],
        "registry = 'sqlite:///x': neither a directory nor a tracking server; name a directory, or http(s)://HOST:PORT",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    WRONG,
    ids=[" ".join(arguments) or "nothing" for arguments, _ in WRONG],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(directory.parents[1])
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"error: {message}\n")


def test_damage_is_one_line_and_exit_code_2(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in directory.rglob("model.onnx"):
        path.write_bytes(path.read_bytes()[:-1])
    assert main(["verify", "--registry", str(directory), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and "damaged" in captured.err


def test_a_locked_registry_is_not_damaged(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("registry.database.BUSY_S", 0.1)
    with closing(sqlite3.connect(directory / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert main(["list", "--registry", str(directory)]) == 2
    line = capsys.readouterr().err
    assert "(database is locked): another program holds it: wait, or end that program" in line
    assert "restore" not in line


def run_module(*arguments: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "registry", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_does_not_import_what_is_heavy() -> None:
    ran = run_module("--help", flags=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert ran.returncode == 0
    assert "rollback" in ran.stdout
    assert "registry.registry" in imported
    assert not {"mlflow", "sqlalchemy", "onnx", "onnxruntime", "numpy"} & imported


def test_nothing_there_ends_with_2_and_creates_nothing(tmp_path: Path) -> None:
    ran = run_module("list", "--workspace", str(tmp_path / "none"), flags=("-X", "importtime"))
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("error: registry = ")
    assert list(tmp_path.iterdir()) == []
