"""The accuracy benchmark as a command: tables in, one JSON object out."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from costmodel.dataset import TARGETS
from costmodel.evaluate.baselines import BASELINES
from costmodel.model import CostModel
from gemmcast.arrow import SCHEMA
from tests.costmodel.fake_model import MedianModel

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"
METRICS = {"mape", "median_ape", "p90_ape", "bias", "r2", "rows"}
OF_INTERVALS = {"within", "width"}
METHODS = {"model", "lookup", "roofline", "paper_forest"}
Printed = dict[str, Any]
"""The program's JSON object."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, power_samples: pa.Table) -> Path:
    """A folder of tables.

    whole.parquet; two.parquet, the same on a second device too; large.csv, the rows of the larger
    shapes; small.parquet, the others.
    """
    folder = tmp_path_factory.mktemp("tables")
    samples = power_samples.slice(0, 120)
    pq.write_table(samples, folder / "whole.parquet")
    limit = pc.quantile(samples["m"], 0.8)[0]
    is_large = pc.greater(samples["m"], limit)
    pacsv.write_csv(samples.filter(is_large), folder / "large.csv")
    pq.write_table(samples.filter(pc.invert(is_large)), folder / "small.parquet")
    rows = samples.to_pylist()
    for row in rows:
        row["device"] = "Paper GPU 40GB"
        row["cell_id"] = row["cell_id"][::-1]
    other = pa.Table.from_pylist(rows, schema=samples.schema)
    pq.write_table(pa.concat_tables([samples, other]), folder / "two.parquet")
    return folder


@pytest.fixture(autouse=True)
def _one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """More, and longer fits, would only take longer."""
    brief = partial(CostModel, members=1, steps=400, iterations=20)
    monkeypatch.setattr(_program(), "CostModel", brief)


@pytest.fixture
def _no_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's forest takes longer than all the rest, and is not looked at."""
    monkeypatch.setitem(BASELINES, "paper_forest", BASELINES["roofline"])


@cache
def _program() -> ModuleType:
    spec = spec_from_file_location("accuracy", PROGRAM)
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In this process, which has imported all that takes seconds."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = _program().main(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def _json(*arguments: object) -> Printed:
    done = _run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    printed: Printed = json.loads(done.stdout.splitlines()[-1])
    return printed


def _runtime_rows(by_name: dict[str, Printed]) -> int:
    return sum(scores["runtime_us"]["model"]["rows"] for scores in by_name.values())


@pytest.mark.parametrize("by", ["shape", "layer"])
def test_cross_validation_scores_every_row_of_every_method(tables: Path, by: str) -> None:
    printed = _json("--table", tables / "whole.parquet", "--group", by)
    assert printed["protocol"] == f"5-fold, grouped by {by}"
    assert printed["rows"] == 120
    targets = printed["targets"]
    assert set(targets) == set(TARGETS)
    for methods in targets.values():
        assert set(methods) == METHODS
        for method, metrics in methods.items():
            assert set(metrics) == METRICS | (OF_INTERVALS if method == "model" else set())
    runtime = targets["runtime_us"]
    assert runtime["model"]["rows"] == 120
    assert runtime["model"]["mape"] < runtime["roofline"]["mape"]
    assert set(printed["coverage"]) == set(TARGETS)
    for target, share in printed["coverage"].items():
        assert 50 < share <= 100
        assert targets[target]["model"]["within"] == share
    for part in ("families", "kinds", "dtypes", "sizes"):
        assert _runtime_rows(printed[part]) == 120
    assert list(printed["sizes"]) == sorted(printed["sizes"], key=float)
    assert printed["ranking"] == {}


@pytest.mark.usefixtures("_no_forest")
def test_a_device_is_predicted_from_the_others(tables: Path) -> None:
    printed = _json("--table", tables / "two.parquet", "--group", "device")
    assert printed["protocol"] == "2-fold, grouped by device"
    assert printed["rows"] == 240

    # the second device differs in its name alone, so the lookup has every cell
    assert printed["targets"]["runtime_us"]["lookup"]["mape"] == 0


def test_one_device_cannot_be_left_out(tables: Path) -> None:
    done = _run("--table", tables / "whole.parquet", "--group", "device")
    assert (done.returncode, done.stdout) == (2, "")
    assert "1 device" in done.stderr


@pytest.mark.usefixtures("_no_forest")
def test_kernels_of_families_with_one_are_not_tested(tables: Path) -> None:
    printed = _json("--table", tables / "whole.parquet", "--group", "member")
    families = pq.read_table(tables / "whole.parquet")["family"].to_pylist()
    assert set(printed["families"]) == {"tiled"}
    assert printed["rows"] == families.count("tiled")
    assert printed["protocol"] == "3-fold, grouped by member"


@pytest.mark.usefixtures("_no_forest")
def test_a_holdout_is_predicted_by_a_model_of_the_table_alone(tables: Path) -> None:
    large = tables / "large.csv"
    from_small = _json("--table", tables / "small.parquet", "--holdout", large)
    from_whole = _json("--table", tables / "whole.parquet", "--holdout", large)
    assert from_small["rows"] == len(pacsv.read_csv(large))
    error = from_small["targets"]["runtime_us"]["model"]["mape"]
    error_if_trained_on = from_whole["targets"]["runtime_us"]["model"]["mape"]
    assert error_if_trained_on < error


def test_the_text_has_a_line_for_each_method_by_family_and_pooled(tables: Path) -> None:
    done = _run("--table", tables / "small.parquet", "--holdout", tables / "large.csv")
    assert done.returncode == 0
    assert "trained on small.parquet, tested with large.csv" in done.stdout
    lines = done.stdout.splitlines()
    power = [line for line in lines if line.startswith("power_w")]
    assert power and len(power) % 4 == 0
    for text in (
        "pooled",
        "\nthe model's power and its 90 % intervals\n",
        "\nfp32 ",
        "\n1e09 flops ",
    ):
        assert text in done.stdout


def test_boards_are_left_out_and_each_has_a_line(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_program(), "fit", MedianModel)
    monkeypatch.setitem(BASELINES, "paper_forest", BASELINES["roofline"])
    rows = pq.read_table(tables / "whole.parquet").to_pylist()
    for i, row in enumerate(rows):
        row["device_uuid"] = "ABC"[i % 3]
    table = tmp_path / "boards.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), table)
    done = _run("--table", table, "--group", "board")
    assert done.returncode == 0, done.stderr
    first, had, *_ = done.stdout.splitlines()
    assert first.startswith("3 boards in 3-fold, grouped by board: each row predicted by a model")
    assert had.startswith("of the rows, training had the board of 0.0 %, the layer of 100.0 %")
    by_board = done.stdout.partition("\nby board, median / mean\n")[2]
    counted = [line.split() for line in by_board.splitlines() if line[:2] in ("A ", "B ", "C ")]
    # the errors of every target, then the bias of power
    assert [words[0] for words in counted] == ["A", "B", "C", "A", "B", "C"]
    assert [words[-1] for words in counted[:3]] == ["40", "40", "40"]
    assert [words[1] for words in counted[3:]] == ["40", "40", "40"]


def test_an_unusable_table_is_refused_in_a_line(tables: Path, tmp_path: Path) -> None:
    whole = pq.read_table(tables / "whole.parquet")
    few = tmp_path / "few.parquet"
    pq.write_table(whole.slice(0, 2), few)
    coloured = tmp_path / "coloured.parquet"
    pq.write_table(whole.append_column("colour", pa.array(["red"] * len(whole))), coloured)
    missing = tmp_path / "none.parquet"
    for table, words in ((few, "usable"), (coloured, "colour"), (missing, "none.parquet")):
        done = _run("--table", table)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr


def test_it_is_a_program_of_its_own(tables: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.parquet"
    pq.write_table(pq.read_table(tables / "whole.parquet").slice(0, 2), few)
    command = [sys.executable, str(PROGRAM), "--table", str(few)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: table")
    assert done.stderr.count("\n") == 1
