"""benchmarks/sample_efficiency.py on a small table, with a model that is fitted in no time."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import sample_efficiency
from benchmarks.sample_efficiency import main
from costmodel.dataset import TrainingSet
from costmodel.model import CostModel
from costmodel.outputs import OUTPUT_OF_TARGET

SHARES = ("0.1", "0.3")


@pytest.fixture
def table(cpu_samples: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def fit(data: TrainingSet) -> CostModel:
        weights = dict.fromkeys(OUTPUT_OF_TARGET, 0.0)
        return CostModel(members=1, steps=30, tree_weight=weights).fit_dataset(data)

    monkeypatch.setitem(sample_efficiency.FITS, "networks", fit)
    path = tmp_path / "paper.parquet"
    pq.write_table(cpu_samples, path)
    return path


def test_every_method_has_its_curve(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--table", str(table), "--seeds", "2", "--shares", *SHARES]
    assert main([*options, "--methods", "planner", "random", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (printed["rows"], printed["seeds"]) == (300, 2)
    cells = printed["cells"]
    assert 220 < cells < 260
    for method in ("planner", "random"):
        points = printed["curve"][method]
        assert list(points) == [str(round(0.1 * cells)), str(round(0.3 * cells))]
        for count, errors in points.items():
            assert errors["runtime_us"]["mape"] >= errors["runtime_us"]["median_ape"] / 2 > 0
            over = printed["over_all"][method][count]["runtime_us"]["mape"]
            of_all = printed["all"]["runtime_us"]["mape"]
            assert over == pytest.approx(errors["runtime_us"]["mape"] / of_all)
    assert printed["cells_for_same_error"].keys() == {"planner", "random"}


def test_the_text_names_methods_and_cells(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--table", str(table), "--seeds", "1", "--shares", *SHARES]
    assert main([*options, "--rows", "150", "--methods", "planner", "random"]) == 0
    printed = capsys.readouterr()
    assert "runtime_us: all cells" in printed.out
    assert "planner / random" in printed.out
    assert "seed 0: planner" in printed.err


def test_a_table_of_one_shape_is_refused(
    table: Path, cpu_samples: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(cpu_samples.slice(0, 1), table)
    assert main(["--table", str(table)]) == 2
    assert "give one of at least 5 shapes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--shares", "0.01"), "--shares = 0.01: must be from 0.0417 to 1"),
        (("--shares", "1.5"), "--shares = 1.5"),
        (("--seeds", "0"), "--seeds = 0: must be at least 1"),
        (("--model", "adapted"), "--base = 'None': goes with --model adapted"),
        (("--base", "base.onnx"), "--base = 'base.onnx': goes with --model adapted"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    options: tuple[str, str], rule: str, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--table", str(table), *options]) == 2
    assert rule in capsys.readouterr().err
