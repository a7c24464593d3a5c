"""How well the model predicts new GEMMs, beside the lookup, the roofline and the paper's forest.

    .venv/bin/python benchmarks/accuracy.py [--table FILE...] [--group GROUP] [--json]
    .venv/bin/python benchmarks/accuracy.py --table FILE... --holdout FILE [--json]

Needs no GPU; fits a model for each fold, on all cores.

The first form is cross-validation in at most five folds. --group is what a fold holds whole:

    shape    the default
    layer    all shapes of one (n, k)
    layer-algorithm    all shapes of one (n, k) with one algorithm
    member   a kernel with its tile or algorithm
    device   a type of device: each is left out in turn, also where there are more than five
    board    single boards of a type that has several: a board of many rows is left out alone, those
             of few rows several at once, dealt by rows and by rows with power

In every fold all other rows are trained on; a line says how many of the tested boards, (n, k),
shapes and cells they had. Beside the errors of each kind of kernel stands how many measurements
lie within the model's 90 % intervals, and how wide those are. The second form is fitted on the
tables and tested with the one held out: datasets/h200_exam.parquet is for that
(docs/decisions/0018-exam.md).

A table is a file of our own columns (Parquet or CSV) or one that `python -m coordinator import`
reads (docs/importing.md); the default is the recorded H100. Errors are in per cent: 3.1 is 3.1 %.
A held-out table without a description of its device takes that of the tables' only device.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa

from coordinator.samples.importer import read_table
from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.accuracy import Accuracy, Tested, accuracy, cross_validation
from costmodel.evaluate.crossval import BY_NAME, predictions
from costmodel.evaluate.groups import FOLDS, GROUPS
from costmodel.evaluate.overlap import overlap
from costmodel.model import CostModel
from gemmcast.card import Scores
from gemmcast.cli_parser import Parser
from gemmcast.descriptions import Descriptions
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.program import json_line, run_command, run_script
from gemmcast.score_table import (
    KIND_METRICS,
    RANKING_METRICS,
    SUMMARY_TARGETS,
    kind_rows,
    ranking_rows,
    score_rows,
    summary_rows,
)

DEFAULT = Path(__file__).resolve().parent.parent / "datasets" / "h100_demo.parquet"
SCORE_HEADS = ("median", "mean", "p90", "R2", "rows")
SUMMARY_HEADS = ("runtime", "sustained", "power", "energy")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    args = _parser().parse_args(arguments)
    measured = measure(args.table, args.holdout, args.group)
    if args.json:
        print(json_line(asdict(measured)))
    else:
        _show(measured)
    return 0


def measure(tables: Sequence[Path], holdout: Path | None, group: str) -> Accuracy:
    """Cross-validate over tables, or fit on them and test with another.

    Args:
        tables: measured GEMMs to train on.
        holdout: measured GEMMs to test with.
        group: what a fold of the cross-validation keeps together, a name of GROUPS.

    Raises:
        InputError: a file that cannot be used.
    """
    samples = pa.concat_tables([read_table(path).table for path in tables])
    names = ", ".join(path.name for path in tables)
    data = _usable(samples, names)
    if holdout is None:
        return accuracy(cross_validation(data, group, fit, _show_progress))
    test = _usable(read_table(holdout, known=_devices(samples)).table, holdout.name)
    tested = Tested(
        protocol=f"trained on {names}, tested with {holdout.name}",
        data=test,
        predicted=predictions(fit(data), data, test),
        overlap=overlap(data, test),
    )
    return accuracy(tested)


def fit(training: TrainingSet) -> CostModel:
    """The model that `train` publishes."""
    return CostModel().fit_dataset(training)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table", type=Path, nargs="+", default=[DEFAULT], help="measured GEMMs to train on"
    )
    parser.add_argument(
        "--holdout",
        type=Path,
        help="measured GEMMs to test with; without it, cross-validation over --table",
    )
    parser.add_argument(
        "--group", choices=tuple(GROUPS), default="shape", help="what a fold keeps together"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser


def _usable(table: pa.Table, name: str) -> TrainingSet:
    data = training_set(table)
    shapes = len(set(data.shapes))
    if shapes < FOLDS:
        rule = f"only {len(data)} of {len(table)} rows are usable, over {shapes} shapes"
        way_out = f"measure at least {FOLDS} shapes on a described device, with status ok"
        raise InputError("table", name, rule, way_out)
    return data


def _devices(table: pa.Table) -> list[Device]:
    """What the table says of its devices."""
    return Descriptions.of_rows(table.to_pylist()).devices


def _show_progress(done: int, folds: int) -> None:
    end = "\n" if done == folds else ""
    print(f"\rfold {done} of {folds}", end=end, file=sys.stderr, flush=True)


def _show(measured: Accuracy) -> None:
    print(
        f"{measured.protocol}; {measured.rows:,} rows, {measured.shapes:,} shapes; "
        "absolute errors in per cent"
    )
    print(f"of the rows, training had {_shares(measured.overlap, 'the {} of {:.1f} %')}")
    shares = _shares(measured.coverage, "{} {:.1f}")
    print(f"measurements within the model's 90 % interval, per cent: {shares}")
    _show_scores("pooled", measured.targets)
    if len(measured.families) > 1:
        for family, of_family in measured.families.items():
            _show_scores(family, of_family)
    _show_kinds({"all": measured.targets, **measured.kinds})
    _show_by_name(measured.by_name)
    by_size = {f"{size} flops": of_size for size, of_size in measured.sizes.items()}
    _show_summary("the model", {**measured.dtypes, **by_size})
    _show_boards(measured.boards)
    if measured.ranking:
        _show_ranking(measured.ranking)


def _show_scores(title: str, table: Scores) -> None:
    print(f"\n{title}")
    print(f"{'target':22}{'method':14}{_cells(SCORE_HEADS, 9)}")
    for target, method, *values in score_rows(table):
        print(f"{target:22}{method:14}{_cells(values, 9)}")


def _show_kinds(kinds: Mapping[str, Scores]) -> None:
    """Errors beside the intervals' coverage and width, target after target."""
    for target, title in SUMMARY_TARGETS.items():
        rows = kind_rows(kinds, target)
        if rows:
            print(f"\nthe model's {title} and its 90 % intervals")
            print(f"{'':22}{_cells([*KIND_METRICS.values(), 'rows'], 10)}")
        for kind, *values in rows:
            print(f"{kind:22}{_cells(values, 10)}")


def _show_by_name(kinds: Mapping[str, Scores]) -> None:
    """Each kind in two lines: with its knobs, and by name alone."""
    lines: dict[str, Scores] = {}
    for kind, table in kinds.items():
        lines[kind] = table
        by_name = {target: {"model": methods[BY_NAME]} for target, methods in table.items()}
        lines[f"{kind}, by name"] = by_name
    if lines:
        _show_summary("kernels of libraries with their knobs, and by name alone", lines)


def _show_boards(boards: Mapping[str, Scores]) -> None:
    if len(boards) < 2:
        return
    _show_summary("by board", boards)
    print(f"\n{'of power':42}{'rows':>9}{'bias, median':>15}")
    for board, table in boards.items():
        if "power_w" in table:
            errors = table["power_w"]["model"]
            print(f"{board:42}{errors['rows']:9.0f}{errors['bias']:+15.1f}")


def _show_summary(title: str, tables: Mapping[str, Scores]) -> None:
    width = 2 + max(12, *map(len, tables))
    print(f"\n{title}, median / mean")
    print(f"{'':{width}}{_cells(SUMMARY_HEADS, 15)}{'rows':>9}")
    for name, *errors, rows in summary_rows(tables):
        print(f"{name:{width}}{_cells(errors, 15)}{rows:>9}")


def _show_ranking(table: Scores) -> None:
    print("\nconfigurations of one problem in order (costmodel/evaluate/ranking.py)")
    print(f"{'target':14}{'method':14}{_cells(RANKING_METRICS, 16)}{'groups':>9}")
    for target, method, *values, groups in ranking_rows(table):
        print(f"{target:14}{method:14}{_cells(values, 16)}{groups:>9}")


def _shares(shares: Mapping[str, float], form: str) -> str:
    return ", ".join(form.format(name, share) for name, share in shares.items())


def _cells(values: Sequence[str], width: int) -> str:
    """The values right-aligned in columns of a width."""
    return "".join(value.rjust(width) for value in values)


if __name__ == "__main__":
    run_script(main)
