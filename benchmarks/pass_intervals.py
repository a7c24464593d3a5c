"""How often the interval of a sum of GEMMs holds, as `gemmcast llm` makes it.

    .venv/bin/python benchmarks/pass_intervals.py [datasets/*.parquet] [--gemms 5] [--json]

Needs no GPU; takes a few seconds on two cores.

Sums of measured GEMMs that the model in the wheel was not trained on (its held-out shapes), drawn
at random from one board's cuBLAS rows in 16 bits, each with the same share of the predicted sum.
Held is the share of sums within the sum of the ends, which `gemmcast llm` prints, and beside it
within the interval that independent errors would have (the root of the summed squares of both
halves). The layers of held-out shapes are often known at another m, and a model's are not: its
errors are less independent than these.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from costmodel.dataset import TrainingSet, held_out, training_set
from gemmcast import Predictor, models
from gemmcast.arrow import read_samples
from gemmcast.cli_parser import Parser
from gemmcast.program import json_line, run_script
from gemmcast.query import INTERVALS

FOLDER = Path(__file__).resolve().parent.parent / "datasets"
FILES = ("h100_sxm.parquet", "h200_holes.parquet")
TARGETS = ("runtime_us", "energy_mj")
DTYPES = ("bf16", "fp16")
SUMS = 1000
"""Sums drawn of each board."""
MIN_ROWS = 20
"""Rows of a board or a target that has fewer are left out."""
SEED = 0

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Shares within 90 % intervals. [0..1]"""

    rows: int
    single: float
    """Of the GEMMs themselves."""
    summed_ends: float
    """Of sums, within the sum of the ends."""
    independent: float
    """Of sums, within what independent errors would give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """Arrays [n_rows] over the predicted value."""

    measured: Values
    low: Values
    high: Values
    boards: npt.NDArray[np.object_]


def main() -> None:
    """Print the coverage of each file and target."""
    args = _arguments()
    predictor = Predictor()
    results: dict[str, dict[str, Coverage]] = {}
    for path in args.files:
        data = _held_out_rows(path)
        results[path.stem] = _by_target(data, predictor, args.gemms)
    if args.json:
        values = {}
        for name, by_target in results.items():
            values[name] = {target: asdict(one) for target, one in by_target.items()}
        print(json_line(values))
        return
    for name, by_target in results.items():
        for target, one in by_target.items():
            rows = f"{name:12} {target:11} {one.rows:5} rows"
            single = f"one GEMM {one.single:.3f}"
            ends = f"ends {one.summed_ends:.3f}"
            independent = f"independent {one.independent:.3f}"
            print(f"{rows}: {single}, sums of {args.gemms}: {ends}, {independent}")


def _arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = [FOLDER / name for name in FILES]
    parser.add_argument("files", nargs="*", type=Path, default=files)
    parser.add_argument("--gemms", type=int, default=5, help="of one sum")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _held_out_rows(path: Path) -> TrainingSet:
    table = read_samples(path)
    wanted = (pc.field("family") == "cublas") & pc.field("dtype").isin(DTYPES)
    card = models.card()
    data = training_set(table.filter(wanted), card.contract)
    return data.take(held_out(data.shapes, card.holdout))


def _by_target(data: TrainingSet, predictor: Predictor, gemms: int) -> dict[str, Coverage]:
    answers = predictor.predict_rows(data.queries)
    low, high = (answers[name] for name in INTERVALS)
    boards = data.column("device_uuid")
    by_target: dict[str, Coverage] = {}
    for target in TARGETS:
        column = predictor.outputs.index(target)
        predicted = answers[target].astype(np.float64)
        measured = data.measured[target]
        is_known = ~np.isnan(measured) & ~np.isnan(predicted)
        known = np.flatnonzero(is_known)
        if len(known) < MIN_ROWS:
            continue
        of_known = predicted[known]
        rows = Relative(
            measured=measured[known] / of_known,
            low=low[known, column] / of_known,
            high=high[known, column] / of_known,
            boards=boards[known],
        )
        by_target[target] = _coverage(rows, gemms)
    return by_target


def _coverage(rows: Relative, gemms: int) -> Coverage:
    chosen = _sums(rows.boards, gemms)
    total = rows.measured[chosen].sum(axis=1)
    above = rows.high[chosen] - 1
    below = 1 - rows.low[chosen]
    inside = (rows.low <= rows.measured) & (rows.measured <= rows.high)
    return Coverage(
        rows=len(rows.measured),
        single=float(inside.mean()),
        summed_ends=_share(total, gemms, below.sum(axis=1), above.sum(axis=1)),
        independent=_share(total, gemms, _root(below), _root(above)),
    )


def _sums(boards: npt.NDArray[np.object_], gemms: int) -> npt.NDArray[np.intp]:
    """[n_sums, gemms] of rows of one board each."""
    generator = np.random.default_rng(SEED)
    chosen = []
    for board in sorted(set(boards.tolist())):
        members = np.flatnonzero(boards == board)
        if len(members) < MIN_ROWS:
            continue
        for _ in range(SUMS):
            chosen.append(generator.choice(members, gemms, replace=False))
    return np.array(chosen, dtype=np.intp).reshape(-1, gemms)


def _share(total: Values, predicted: int, below: Values, above: Values) -> float:
    inside = (predicted - below <= total) & (total <= predicted + above)
    return float(inside.mean())


def _root(halves: Values) -> Values:
    root: Values = np.sqrt(np.square(halves).sum(axis=1))
    return root


if __name__ == "__main__":
    run_script(main)
