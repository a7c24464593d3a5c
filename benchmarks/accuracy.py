"""How well the model predicts new GEMMs, beside the lookup, the roofline and the paper's forest.

    .venv/bin/python benchmarks/accuracy.py [--table FILE] [--by shape|layer|member|device] [--json]
    .venv/bin/python benchmarks/accuracy.py --table FILE --holdout FILE [--json]

The first form is 5-fold cross-validation in which a fold holds whole shapes, whole (n, k) or whole
kernels; --by device leaves out each type of device in turn. The second is fitted on the first table
and tested with the second.

A table is a file of our own columns (Parquet or CSV) or one that `python -m coordinator import`
reads (docs/importing.md); the default is the recorded H100. Errors are in per cent: 3.1 is 3.1 %.
A second table without a description of its device takes that of the first table's only device.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa

from coordinator.samples.importer import read_table
from costmodel.dataset import Names, TrainingSet, training_set
from costmodel.evaluate.crossval import (
    Predictions,
    coverage,
    cross_validated,
    predictions,
    scores,
    scores_by,
)
from costmodel.evaluate.groups import FOLDS, GROUPS, sizes
from costmodel.evaluate.metrics import to_json
from costmodel.evaluate.ranking import ranking
from costmodel.model import CostModel
from gemmcast.card import Scores
from gemmcast.cli_parser import Parser
from gemmcast.descriptions import Descriptions
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.program import json_line, run_command, run_script
from gemmcast.score_table import RANKING_METRICS, ranking_rows, score_rows, summary_rows

DEFAULT = Path(__file__).resolve().parent.parent / "datasets" / "h100_demo.parquet"
SCORE_HEADS = ("median", "mean", "p90", "R2", "rows")
SUMMARY_HEADS = ("runtime", "sustained", "power", "energy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What is printed; errors and shares are in per cent."""

    protocol: str
    """How the rows were predicted, in words."""
    rows: int
    shapes: int
    targets: Scores
    """Of all rows."""
    coverage: Mapping[str, float]
    """Per target, how many measurements lie within the model's 90 % interval."""
    families: Mapping[str, Scores]
    dtypes: Mapping[str, Scores]
    sizes: Mapping[str, Scores]
    """By decade of flops."""
    ranking: Scores
    """How well configurations of one problem are ordered."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    args = _parser().parse_args(arguments)
    accuracy = measure(args.table, args.holdout, args.by)
    if args.json:
        print(json_line(asdict(accuracy)))
    else:
        _show(accuracy)
    return 0


def measure(table: Path, holdout: Path | None, by: str) -> Accuracy:
    """Cross-validate over a table, or fit on it and test with another.

    Args:
        table: measured GEMMs to train on.
        holdout: measured GEMMs to test with.
        by: what a fold of the cross-validation keeps together, a name of GROUPS.

    Raises:
        InputError: a file that cannot be used.
    """
    samples = read_table(table).table
    data = _usable(samples, table)
    if holdout is None:
        test, predicted, protocol = _cross_validated(data, by, table)
    else:
        test = _usable(read_table(holdout, known=_devices(samples)).table, holdout)
        predicted = predictions(fit(data), data, test)
        protocol = f"trained on {table.name}, tested with {holdout.name}"
    return Accuracy(
        protocol=protocol,
        rows=len(test),
        shapes=len(set(test.shapes)),
        targets=to_json(scores(test, predicted)),
        coverage=coverage(test, predicted),
        families=_by_name(test, predicted, test.column("family")),
        dtypes=_by_name(test, predicted, test.column("dtype")),
        sizes=_by_name(test, predicted, sizes(test)),
        ranking=ranking(test, predicted),
    )


def fit(training: TrainingSet) -> CostModel:
    """The model that `train` publishes."""
    return CostModel().fit_dataset(training)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=DEFAULT, help="measured GEMMs to train on")
    parser.add_argument(
        "--holdout",
        type=Path,
        help="measured GEMMs to test with; without it, cross-validation over --table",
    )
    parser.add_argument(
        "--by", choices=tuple(GROUPS), default="shape", help="what a fold keeps together"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser


def _cross_validated(
    data: TrainingSet, by: str, table: Path
) -> tuple[TrainingSet, Predictions, str]:
    """The rows that have a group, their predictions, and the protocol in words."""
    names = GROUPS[by](data)
    count = len(set(names) - {None})
    if count < 2:
        rule = f"{table} has usable rows of {count} {by}, which can't be left out"
        raise InputError("--by", by, rule, "choose another --by, or measure another")
    folds = count if by == "device" else min(FOLDS, count)
    within = data.column("family") if by == "member" else None
    predicted = cross_validated(data, names, fit, folds, within=within, on_fold=_show_progress)
    has_prediction = ~np.isnan(predicted["runtime_us"]["model"])
    of_rows: Predictions = {}
    for target, methods in predicted.items():
        of_rows[target] = {name: values[has_prediction] for name, values in methods.items()}
    return data.take(has_prediction), of_rows, f"{folds}-fold, grouped by {by}"


def _usable(table: pa.Table, path: Path) -> TrainingSet:
    data = training_set(table)
    shapes = len(set(data.shapes))
    if shapes < FOLDS:
        rule = f"only {len(data)} of {len(table)} rows are usable, over {shapes} shapes"
        way_out = f"measure at least {FOLDS} shapes on a described device, with status ok"
        raise InputError("table", str(path), rule, way_out)
    return data


def _devices(table: pa.Table) -> list[Device]:
    """What the table says of its devices."""
    return Descriptions.of_rows(table.to_pylist()).devices


def _by_name(test: TrainingSet, predicted: Predictions, names: Names) -> dict[str, Scores]:
    tables = scores_by(test, predicted, names)
    return {name: to_json(table) for name, table in tables.items()}


def _show_progress(done: int, folds: int) -> None:
    end = "\n" if done == folds else ""
    print(f"\rfold {done} of {folds}", end=end, file=sys.stderr, flush=True)


def _show(accuracy: Accuracy) -> None:
    print(
        f"{accuracy.protocol}: {accuracy.rows:,} rows, {accuracy.shapes:,} shapes; "
        "absolute errors in per cent"
    )
    shares = [f"{target} {share:.1f}" for target, share in accuracy.coverage.items()]
    print(f"measurements within the model's 90 % interval, per cent: {', '.join(shares)}")
    _show_scores("pooled", accuracy.targets)
    if len(accuracy.families) > 1:
        for family, of_family in accuracy.families.items():
            _show_scores(family, of_family)
    _show_summary(accuracy)
    if accuracy.ranking:
        _show_ranking(accuracy.ranking)


def _show_scores(title: str, table: Scores) -> None:
    print(f"\n{title}")
    print(f"{'target':22}{'method':14}{_cells(SCORE_HEADS, 9)}")
    for target, method, *values in score_rows(table):
        print(f"{target:22}{method:14}{_cells(values, 9)}")


def _show_summary(accuracy: Accuracy) -> None:
    print("\nthe model, median / mean")
    print(f"{'':14}{_cells(SUMMARY_HEADS, 15)}{'rows':>9}")
    by_size = {f"{size} flops": of_size for size, of_size in accuracy.sizes.items()}
    for name, *errors, rows in summary_rows({**accuracy.dtypes, **by_size}):
        print(f"{name:14}{_cells(errors, 15)}{rows:>9}")


def _show_ranking(table: Scores) -> None:
    print("\nconfigurations of one problem in order (costmodel/evaluate/ranking.py)")
    print(f"{'target':14}{'method':14}{_cells(RANKING_METRICS, 16)}{'groups':>9}")
    for target, method, *values, groups in ranking_rows(table):
        print(f"{target:14}{method:14}{_cells(values, 16)}{groups:>9}")


def _cells(values: Sequence[str], width: int) -> str:
    """The values right-aligned in columns of a width."""
    return "".join(value.rjust(width) for value in values)


if __name__ == "__main__":
    run_script(main)
