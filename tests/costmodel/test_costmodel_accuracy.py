"""The accuracy benchmark as it is called: tables in, one JSON object out."""

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

from costmodel.model import CostModel

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"
METRICS = {"mape", "median_ape", "p90_ape", "r2", "rows"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, power_samples: pa.Table) -> Path:
    """whole.parquet; two.parquet, the same on a second device too; large.csv, the rows of the larger shapes, and small.parquet, the others."""
    folder = tmp_path_factory.mktemp("tables")
    power_samples = power_samples.slice(0, 120)
    pq.write_table(power_samples, folder / "whole.parquet")
    large = pc.greater(power_samples["m"], pc.quantile(power_samples["m"], 0.8)[0])
    pacsv.write_csv(power_samples.filter(large), folder / "large.csv")
    pq.write_table(power_samples.filter(pc.invert(large)), folder / "small.parquet")
    other = [{**row, "device": "Paper GPU 40GB", "cell_id": row["cell_id"][::-1]} for row in power_samples.to_pylist()]
    pq.write_table(pa.concat_tables([power_samples, pa.Table.from_pylist(other, schema=power_samples.schema)]), folder / "two.parquet")
    return folder


@pytest.fixture(autouse=True)
def _one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would only take longer."""
    monkeypatch.setattr("costmodel.evaluate.crossval.CostModel", partial(CostModel, members=1))


@cache
def _program() -> ModuleType:
    spec = spec_from_file_location("accuracy", PROGRAM)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In this process, which has imported all that takes seconds; the last test starts it as its own."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = _program().main(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def _json(*arguments: object) -> dict[str, Any]:
    done = _run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("by", ["shape", "layer"])
def test_cross_validation_scores_every_row_of_every_method(tables: Path, by: str) -> None:
    found = _json("--table", tables / "whole.parquet", "--by", by)
    assert set(found["targets"]) == {"runtime_us", "sustained_runtime_us", "power_w", "energy_mj", "tflops"}
    for methods in found["targets"].values():
        assert set(methods) == {"model", "lookup", "roofline", "paper_forest"}
        assert all(set(metrics) == METRICS for metrics in methods.values())
    assert found["targets"]["runtime_us"]["model"]["rows"] == found["rows"] == len(pq.read_table(tables / "whole.parquet"))
    assert sum(scores["runtime_us"]["model"]["rows"] for scores in found["families"].values()) == found["rows"]
    assert set(found["coverage"]) == set(found["targets"]) and all(50 < share <= 100 for share in found["coverage"].values())
    assert found["protocol"] == f"5-fold, grouped by {by}"
    for parted in (found["dtypes"], found["sizes"]):
        assert sum(scores["runtime_us"]["model"]["rows"] for scores in parted.values()) == found["rows"]
    assert list(found["sizes"]) == sorted(found["sizes"], key=float) and found["ranking"] == {}
    assert found["targets"]["runtime_us"]["model"]["mape"] < found["targets"]["runtime_us"]["roofline"]["mape"]


def test_a_device_is_asked_of_the_others(tables: Path) -> None:
    found = _json("--table", tables / "two.parquet", "--by", "device")
    assert (found["protocol"], found["rows"]) == ("2-fold, grouped by device", 240)
    # the same cells on a device that is the same but for its name: the lookup knows them all
    assert found["targets"]["runtime_us"]["lookup"]["mape"] == 0
    done = _run("--table", tables / "whole.parquet", "--by", "device")
    assert (done.returncode, done.stdout) == (2, "") and "1 device" in done.stderr


def test_members_of_families_of_one_are_not_asked(tables: Path) -> None:
    found = _json("--table", tables / "whole.parquet", "--by", "member")
    families = pq.read_table(tables / "whole.parquet")["family"].to_pylist()
    assert set(found["families"]) == {"tiled"} and found["rows"] == families.count("tiled")
    assert found["protocol"] == "3-fold, grouped by member"


def test_a_holdout_is_asked_of_a_model_of_the_table_alone(tables: Path) -> None:
    found = _json("--table", tables / "small.parquet", "--holdout", tables / "large.csv")
    assert found["rows"] == len(pacsv.read_csv(tables / "large.csv"))
    easy = _json("--table", tables / "whole.parquet", "--holdout", tables / "large.csv")
    seen, unseen = (of["targets"]["runtime_us"]["model"]["mape"] for of in (easy, found))
    assert seen < unseen


def test_the_text_has_a_line_for_each_method_by_family_and_pooled(tables: Path) -> None:
    done = _run("--table", tables / "small.parquet", "--holdout", tables / "large.csv")
    assert done.returncode == 0 and "fitted on small.parquet, asked large.csv" in done.stdout
    assert sum(line.startswith("power_w") for line in done.stdout.splitlines()) % 4 == 0
    assert "pooled" in done.stdout and "\nfp32 " in done.stdout and "\n1e09 flops " in done.stdout


def test_what_can_not_be_used_is_refused_in_a_line(tables: Path, tmp_path: Path) -> None:
    whole = pq.read_table(tables / "whole.parquet")
    few, odd = tmp_path / "few.parquet", tmp_path / "odd.parquet"
    pq.write_table(whole.slice(0, 2), few)
    pq.write_table(whole.append_column("colour", pa.array(["red"] * len(whole))), odd)
    for arguments, said in (((few,), "usable"), ((odd,), "colour"), ((tmp_path / "none.parquet",), "none.parquet")):
        done = _run("--table", *arguments)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1 and said in done.stderr


def test_it_is_a_program_of_its_own(tables: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.parquet"
    pq.write_table(pq.read_table(tables / "whole.parquet").slice(0, 2), few)
    done = subprocess.run([sys.executable, str(PROGRAM), "--table", str(few)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("accuracy: ") and done.stderr.count("\n") == 1
