"""Commands answer at once: what each has imported when it has answered.

MLflow, SQLAlchemy, Ray, scikit-learn, SciPy and matplotlib take from half a second to several of
CPU each. Modules are counted and no time is, so that no test depends on how busy the machine is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "alembic",
    "cupy",
    "matplotlib",
    "mlflow",
    "ndonnx",
    "onnx",
    "pandas",
    "ray",
    "scipy",
    "skl2onnx",
    "sklearn",
    "spox",
    "sqlalchemy",
    "triton",
}
NEEDS_NO_ARROW = {"numpy", "pyarrow", "deltalake", "onnxruntime"}
PREDICTOR_ONLY = {"pyarrow", "deltalake", "pydantic", "rich", "typer"}
ANSWERED = """
import json, runpy, sys
program, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(program, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(loaded)))
"""
FIRST_MESSAGE = """
import json, sys
from coordinator import cli, progress

def show(text):
    loaded = {name.partition(".")[0] for name in sys.modules}
    print(text, json.dumps(sorted(loaded)), sep="\\n", flush=True)
    raise KeyboardInterrupt

progress.log_line = show
assert cli.main(sys.argv[1:]) == 130
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With samples and a champion."""
    place = tmp_path_factory.mktemp("startup")
    with tarfile.open(ROOT / "tests" / "before" / "workspace.tar.xz") as archive:
        archive.extractall(place, filter="data")
    return place / "workspace"


def lines_of(code: str, *arguments: str | Path) -> list[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("command", "unneeded", "answer"),
    [
        ("coordinator status", HEAVY, "champion"),
        ("registry list", HEAVY | NEEDS_NO_ARROW, "champion"),
        ("registry tables list", HEAVY | NEEDS_NO_ARROW, "no tuned table yet"),
    ],
)
def test_a_look_at_a_workspace_imports_nothing_heavy(
    workspace: Path, command: str, unneeded: set[str], answer: str
) -> None:
    *answered, loaded = lines_of(ANSWERED, *command.split(), "--workspace", workspace)
    assert answer in "\n".join(answered)
    assert not unneeded & set(json.loads(loaded))


@pytest.mark.parametrize(
    ("command", "unneeded", "answer"),
    [
        ("coordinator plan examples/demo.toml --device h100", HEAVY, "cells"),
        ("gemmcast predict 64 64 64 --device h100", HEAVY | PREDICTOR_ONLY, "runtime_us"),
        ("gemmcast models", HEAVY | PREDICTOR_ONLY | NEEDS_NO_ARROW, "H100"),
    ],
)
def test_a_question_imports_nothing_heavy(command: str, unneeded: set[str], answer: str) -> None:
    *answered, loaded = lines_of(ANSWERED, *command.split())
    assert answer in "\n".join(answered)
    assert not unneeded & set(json.loads(loaded))


def test_the_report_says_what_it_does_before_its_imports(workspace: Path) -> None:
    message, loaded = lines_of(FIRST_MESSAGE, "report", "--workspace", workspace)
    assert message == "report: computing, from 48 samples"
    assert not HEAVY & set(json.loads(loaded))
    assert not (workspace / "report.html").exists()
