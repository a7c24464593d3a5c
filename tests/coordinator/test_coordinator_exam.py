"""The exam of datasets/: no layer of it is in another table, no board in a table of a training."""

from __future__ import annotations

from pathlib import Path

from coordinator.plan.schema import read_plan
from coordinator.plan.shapes import shapes_of
from costmodel.exam import Exam, check_exam
from costmodel.shipped import training_files
from gemmcast.arrow import read_samples

DATASETS = Path(__file__).parents[2] / "datasets"
PLAN = DATASETS / "plans" / "exam.toml"
EXAM = ("_exam", "_exam_again")
"""What the names of an exam and of its second readings end with."""
COLUMNS = ("device_uuid", "n", "k")


def _layers(path: Path) -> set[tuple[int, int]]:
    """The (n, k) of a plan."""
    plan = read_plan(path)
    layers: set[tuple[int, int]] = set()
    for sweep in plan.sweep:
        layers |= {(n, k) for _, n, k in shapes_of(sweep.shapes, plan.seed)}
    return layers


def test_no_other_plan_and_no_table_has_a_layer_of_the_exam() -> None:
    layers = _layers(PLAN)
    assert len(layers) >= 80
    for path in sorted(PLAN.parent.glob("*.toml")):
        if path != PLAN:
            assert not layers & _layers(path), path.name
    for path in sorted(DATASETS.glob("*.parquet")):
        if not path.stem.endswith(EXAM):
            table = read_samples(path, COLUMNS)
            pairs = zip(table["n"].to_pylist(), table["k"].to_pylist(), strict=True)
            assert not layers & set(pairs), path.name


def test_a_recorded_exam_shares_nothing_with_the_tables_of_a_training() -> None:
    tables = {path: read_samples(path, COLUMNS) for path in DATASETS.glob("*.parquet")}
    trained = training_files(DATASETS)
    exams = {path.stem: table for path, table in tables.items() if path.stem.endswith(EXAM)}
    others = {path.stem: table for path, table in tables.items() if path in trained}
    assert exams
    assert len(others) > 1
    for name, table in exams.items():
        check_exam(Exam(name=name, table=table), others)
