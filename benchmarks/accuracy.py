"""How right the model is about GEMMs that it never saw, beside the lookup, the roofline and the paper's own forest.

    .venv/bin/python benchmarks/accuracy.py [--table FILE] [--by shape|layer|member|device] [--json]     5-fold, grouped by shape, (n, k) or
                                                                                kernel; or each type of device left out in turn
    .venv/bin/python benchmarks/accuracy.py --table FILE --holdout FILE [--json]            fitted on the first, asked the second

A table is a file of our own columns (Parquet or CSV) or one that `python -m coordinator import` reads (docs/importing.md); the default
is the recorded H100. Per cent: 3.1 is 3.1 %. Where a second table has no descriptors and is of the first one's device, it is asked with that one's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa

from coordinator.samples.importer import read_outside
from costmodel.dataset import Dataset, dataset
from costmodel.evaluate import crossval as validation
from costmodel.evaluate.ranking import ranking
from gemmcast.errors import GemmcastError, InputError
from gemmcast.rows import device_of
from gemmcast.score_table import RANKING_METRICS, ranking_rows, score_rows, summary_rows

DEFAULT = Path(__file__).resolve().parent.parent / "datasets" / "h100_demo.parquet"
Scores = dict[str, dict[str, dict[str, float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=DEFAULT, help="measured GEMMs to learn from")
    parser.add_argument("--holdout", type=Path, help="measured GEMMs to be asked; without it, cross-validation over --table")
    parser.add_argument("--by", choices=tuple(validation.GROUPS), default="shape", help="what is kept together in a fold")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args(arguments)
    try:
        found = measure(args.table, args.holdout, args.by)
    except (GemmcastError, OSError) as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return 2
    _show(found) if not args.json else print(json.dumps(found))
    return 0


def measure(table: Path, holdout: Path | None, by: str) -> dict[str, Any]:
    first = read_outside(table)
    data = _usable(first, table)
    if holdout is None:
        predicted, protocol = _cross_validated(data, by, table)
        answered = ~np.isnan(predicted["runtime_us"]["model"])
        asked = data.take(answered)
        predicted = {target: {name: values[answered] for name, values in methods.items()} for target, methods in predicted.items()}
    else:
        asked = _usable(read_outside(holdout, known=_device(first)), holdout)
        predicted, protocol = validation.answers(data, asked), f"fitted on {table.name}, asked {holdout.name}"
    return {
        "protocol": protocol,
        "rows": len(asked),
        "shapes": len(set(asked.shapes)),
        "targets": validation.scores(asked, predicted),
        "coverage": validation.coverage(asked, predicted),
        "families": validation.scores_by(asked, predicted, asked.column("family")),
        "dtypes": validation.scores_by(asked, predicted, asked.column("dtype")),
        "sizes": validation.scores_by(asked, predicted, validation.sizes(asked)),
        "ranking": ranking(asked, predicted),
    }


def _cross_validated(data: Dataset, by: str, table: Path) -> tuple[validation.Predicted, str]:
    names = validation.GROUPS[by](data)
    count = len(set(names) - {None})
    if count < 2:
        raise InputError("--by", by, f"{table} has usable rows of {count} {by}, which can't be left out", "choose another --by, or measure another")
    folds = count if by == "device" else min(validation.FOLDS, count)
    within = data.column("family") if by == "member" else None
    predicted = validation.cross_validated(data, names, folds, _progress, within)
    return predicted, f"{folds}-fold, grouped by {by}"


def _usable(table: pa.Table, path: Path) -> Dataset:
    data = dataset(table)
    if len(set(data.shapes)) < validation.FOLDS:
        rule = f"only {len(data)} of {len(table)} rows are usable, over {len(set(data.shapes))} shapes"
        raise InputError("table", str(path), rule, f"measure at least {validation.FOLDS} shapes on a described device, with status ok")
    return data


def _device(table: pa.Table) -> Any:
    """The first table's, where it is of one device; a table without descriptors is taken to be of the same."""
    rows = table.to_pylist()
    return device_of(rows) if len({row["device"] for row in rows}) == 1 else None


def _progress(done: int, folds: int) -> None:
    print(f"\rfold {done} of {folds}", end="\n" if done == folds else "", file=sys.stderr, flush=True)


def _show(found: dict[str, Any]) -> None:
    print(f"{found['protocol']}: {found['rows']:,} rows, {found['shapes']:,} shapes; absolute errors in per cent")
    within = ", ".join(f"{target} {share:.1f}" for target, share in found["coverage"].items())
    print(f"measurements within the model's 90 % interval, per cent: {within}")
    lines = [("pooled", found["targets"]), *((name, scores) for name, scores in found["families"].items() if len(found["families"]) > 1)]
    for name, scores in lines:
        print(f"\n{name}\n{'target':22}{'method':14}{'median':>9}{'mean':>9}{'p90':>9}{'R2':>9}{'rows':>9}")
        for target, method, *values in score_rows(scores):
            print(f"{target:22}{method:14}" + "".join(f"{value:>9}" for value in values))
    print(f"\nthe model, median / mean\n{'':14}{'runtime':>15}{'sustained':>15}{'power':>15}{'energy':>15}{'rows':>9}")
    for name, *values, rows in summary_rows({**found["dtypes"], **{f"{size} flops": scores for size, scores in found["sizes"].items()}}):
        print(f"{name:14}" + "".join(f"{value:>15}" for value in values) + f"{rows:>9}")
    if found["ranking"]:
        print("\nconfigurations of one problem in order (costmodel/evaluate/ranking.py)")
        print(f"{'target':14}{'method':14}" + "".join(f"{name:>16}" for name in RANKING_METRICS) + f"{'groups':>9}")
        for target, method, *values, groups in ranking_rows(found["ranking"]):
            print(f"{target:14}{method:14}" + "".join(f"{value:>16}" for value in values) + f"{groups:>9}")


if __name__ == "__main__":
    sys.exit(main())
