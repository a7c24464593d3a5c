"""How many cells a model needs, by how they are chosen: the learning curve on a recorded table.

    .venv/bin/python benchmarks/sample_efficiency.py [--table FILE] [--json] [--plot FILE]

Needs no GPU; how long it takes is a matter of --model.

A fifth of the shapes is the test, another one for each seed. Of the other cells each method chooses
so many, in rounds: those of the smallest share first, then, with the model that was fitted on them,
those up to the next share (coordinator/plan/acquire.py). Every method has the same model and test:

    published   what `train` publishes: minutes a fit, for the figure that counts
    networks    the same with fewer and shorter fitted networks and no trees: seconds
    adapted     a base (--base FILE.onnx) and the chosen cells, as a run publishes it

`all` is the model of all cells. `cells_for_same_error` compares a method with random cells: 0.5 is
half the cells that random needs for the same error, between its points in logarithms; an error
beyond its curve has none. One cell that is off by a factor of 20 decides a mean, so medians are
there too. Errors are in per cent, means over the seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from coordinator.plan.acquire import METHODS, Indices, Values, choose, doubt_of
from coordinator.samples.importer import read_table
from costmodel.adapted import AdaptedModel
from costmodel.base import Base
from costmodel.dataset import Mask, TrainingSet, training_set
from costmodel.evaluate.crossval import Fit
from costmodel.evaluate.learning_curve import (
    Curve,
    Errors,
    Points,
    cells_for_same_error,
    mean_errors,
    over_all,
)
from costmodel.evaluate.metrics import score
from costmodel.model import CostModel
from costmodel.outputs import OUTPUT_OF_TARGET
from gemmcast.cli_parser import Parser
from gemmcast.draw import fraction
from gemmcast.errors import InputError
from gemmcast.program import json_line, run_command, run_script

DEFAULT: Final = Path(__file__).resolve().parent.parent / "datasets" / "h200_sxm.parquet"
SHARES: Final = (0.05, 0.1, 0.2, 0.4)
"""Of the cells, besides all of them."""
TEST: Final = 0.2
"""Share of the shapes that a seed tests with."""
COMPARED: Final = ("planner", "random", "grid", "doubt", "logdet")
TARGETS: Final = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")
MIN_ROWS: Final = 20
"""Of a target, to be scored."""
ADAPTED: Final = "adapted"
MIN_CELLS: Final = 10
"""That a model is fitted on, about."""
REFERENCE: Final = "random"
ALL: Final = "all"
METRICS: Final = ("median_ape", "mape")
ERROR: Final = "{:.1f}"
RATIO: Final = "{:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """What is printed; the keys of --json."""

    table: str
    model: str
    seeds: int
    rows: int
    cells: int
    """That may be chosen, in the mean over the seeds."""
    all: Errors
    """Of the model of all of them."""
    curve: Curve
    over_all: Curve
    """The same over the errors of all cells."""
    cells_for_same_error: Curve
    """The cells over those that random needs for the same error."""


FITS: Final[dict[str, Fit]] = {
    "published": lambda data: CostModel().fit_dataset(data),
    "networks": lambda data: CostModel(
        members=2, steps=3_000, tree_weight=dict.fromkeys(OUTPUT_OF_TARGET, 0.0)
    ).fit_dataset(data),
}


def fit_of(model: str, base: Path | None) -> Fit:
    """How a model is fitted.

    Raises:
        InputError: a base without a model that starts from it, or the other way round.
    """
    if (base is None) == (model == ADAPTED):
        rule = f"goes with --model {ADAPTED}, and that with it"
        raise InputError("--base", str(base), rule, "give both or neither")
    if base is None:
        return FITS[model]
    read = Base.read(base)
    return lambda data: AdaptedModel(read).fit_dataset(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    args = _parser().parse_args(arguments)
    data = usable(args.table, args.rows)
    _check(args.shares, args.seeds, data)
    fit = fit_of(args.model, args.base)
    measured = measure(
        data, args.table.stem, (args.model, fit), args.methods, args.shares, args.seeds
    )
    if args.plot is not None:
        plot(measured, args.plot)
    if args.json:
        print(json_line(asdict(measured)))
    else:
        _show(measured)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=DEFAULT, help="a recorded sweep")
    parser.add_argument("--rows", type=int, help="only about so many of its rows, by whole shapes")
    parser.add_argument("--model", choices=(*FITS, ADAPTED), default="networks")
    parser.add_argument("--base", type=Path, help="a model file, for --model adapted")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(COMPARED))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--plot", type=Path, help="an image file, such as curve.svg")
    return parser


def usable(table: Path, rows: int | None) -> TrainingSet:
    """The usable rows of a table, thinned by whole shapes.

    Raises:
        InputError: a file that cannot be used, or with too few shapes.
    """
    data = training_set(read_table(table).table)
    if rows is not None and rows < len(data):
        data = data.take(_drawn(data, "thinned", 0.0, rows / len(data)))
    shapes = len(set(data.shapes))
    if shapes < 1 / TEST:
        rule = f"only {len(data)} usable rows over {shapes} shapes"
        raise InputError("table", str(table), rule, f"give one of at least {1 / TEST:.0f} shapes")
    return data


def _check(shares: Sequence[float], seeds: int, data: TrainingSet) -> None:
    if seeds < 1:
        raise InputError("--seeds", seeds, "must be at least 1", "give 5")
    least = MIN_CELLS / ((1 - TEST) * len(data))
    for share in shares:
        if not least <= share <= 1:
            rule = f"must be from {least:.3g} to 1 with {len(data)} rows"
            raise InputError("--shares", share, rule, "give larger shares, or a larger table")


def measure(
    data: TrainingSet,
    table: str,
    model: tuple[str, Fit],
    methods: Sequence[str],
    shares: Sequence[float],
    seeds: int,
) -> Efficiency:
    """The learning curves over some seeds, and what follows from them."""
    runs: list[_Run] = []
    for seed in range(seeds):
        run = _Run(data, model[1], seed)
        run.fit_all()
        for method in methods:
            run.follow(method, sorted(shares))
        runs.append(run)
    cells = round(float(np.mean([len(run.pool) for run in runs])))
    of_all = mean_errors([run.errors[ALL, 1.0] for run in runs])
    curve = _curve(runs, methods, sorted(shares), cells)
    same_error: Curve = {}
    if REFERENCE in curve:
        reference = {**curve[REFERENCE], cells: of_all}
        same_error = {name: cells_for_same_error(curve[name], reference) for name in curve}
    return Efficiency(
        table=table,
        model=model[0],
        seeds=seeds,
        rows=len(data),
        cells=cells,
        all=of_all,
        curve=curve,
        over_all={name: over_all(curve[name], of_all) for name in curve},
        cells_for_same_error=same_error,
    )


class _Run:
    """One seed."""

    def __init__(self, data: TrainingSet, fit: Fit, seed: int) -> None:
        is_test = _drawn(data, "test", (TEST * seed) % 1, TEST)
        self.test = data.take(is_test)
        self.pool = data.take(~is_test)
        self.errors: dict[tuple[str, float], Errors] = {}
        self._fit = fit
        self._seed = seed

    def fit_all(self) -> None:
        """The model of all cells."""
        self._learn(ALL, 1.0, np.arange(len(self.pool)))

    def follow(self, method: str, shares: Sequence[float]) -> None:
        """One method from the smallest share to the largest."""
        known = np.empty(0, dtype=np.int64)
        doubt: Values | None = None
        for share in shares:
            count = round(share * len(self.pool)) - len(known)
            open_cells = np.setdiff1d(np.arange(len(self.pool)), known)
            chosen = choose(
                self.pool.queries[open_cells],
                self.pool.queries[known],
                count,
                method,
                doubt=None if doubt is None else doubt[open_cells],
                seed=self._seed,
            )
            known = np.concatenate([known, open_cells[chosen]])
            doubt = self._learn(method, share, known)

    def _learn(self, method: str, share: float, chosen: Indices) -> Values:
        """Fit on the chosen cells, score on the test; the doubt at every cell."""
        model = self._fit(self.pool.take(chosen))
        answers = model.predict(self.test.queries)
        errors: Errors = {}
        for target in TARGETS:
            measured = self.test.measured[target]
            rows = ~np.isnan(measured)
            if target not in answers or rows.sum() < MIN_ROWS:
                continue
            predicted = np.asarray(answers[target], dtype=np.float64)
            both = score(measured[rows], predicted[rows])
            assert both.mape is not None and both.median_ape is not None
            errors[target] = {"mape": both.mape, "median_ape": both.median_ape}
        self.errors[method, share] = errors
        line = f"seed {self._seed}: {method}, {len(chosen)} cells"
        mape = errors["runtime_us"]["mape"]
        print(f"{line}: runtime {mape:.1f} %", file=sys.stderr, flush=True)
        return doubt_of(model.predict(self.pool.queries))


def _drawn(data: TrainingSet, name: str, first: float, share: float) -> Mask:
    """[n_rows] True for the shapes whose hash lies in a part of the unit interval."""
    places = {shape: fraction(f"{name} {shape}") for shape in set(data.shapes)}
    at = np.array([places[shape] for shape in data.shapes])
    is_drawn: Mask = (first <= at) & (at < first + share)
    return is_drawn


def _curve(
    runs: Sequence[_Run], methods: Sequence[str], shares: Sequence[float], cells: int
) -> Curve:
    curve: Curve = {}
    for method in methods:
        curve[method] = {}
        for share in shares:
            of_seeds = [run.errors[method, share] for run in runs]
            curve[method][round(share * cells)] = mean_errors(of_seeds)
    return curve


def plot(measured: Efficiency, path: Path) -> None:
    """Mean error of the runtime over the cells, both in logarithms."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for method, points in measured.curve.items():
        cells = list(points)
        errors = [points[count]["runtime_us"]["mape"] for count in cells]
        axes.loglog(cells, errors, marker="o", label=method)
    axes.axhline(measured.all["runtime_us"]["mape"], color="grey", linestyle=":", label="all cells")
    axes.set(xlabel="measured cells", ylabel="mean error of the runtime in %", title=measured.table)
    axes.legend()
    figure.savefig(path)


def _show(measured: Efficiency) -> None:
    print(
        f"{measured.table}: {measured.rows:,} rows, {measured.cells:,} cells to choose from; "
        f"model {measured.model}, {measured.seeds} seeds; errors in per cent, median / mean"
    )
    for target, errors in measured.all.items():
        print(f"\n{target}: all cells{_pair(errors, ERROR)}")
        _show_target(measured, target)


def _show_target(measured: Efficiency, target: str) -> None:
    first = next(iter(measured.curve.values()))
    heads = "".join(f"{cells:,}".rjust(15) for cells in first)
    print(f"{'cells':20}{heads}")
    for method, points in measured.curve.items():
        _show_line(method, points, target, ERROR)
    for method, ratios in measured.cells_for_same_error.items():
        if method != REFERENCE:
            _show_line(f"{method} / random", ratios, target, RATIO)


def _show_line(title: str, points: Points, target: str, form: str) -> None:
    """One target of a curve, a column for each number of cells."""
    pairs = [_pair(errors.get(target, {}), form) for errors in points.values()]
    print(f"{title:20}{''.join(pairs)}")


def _pair(errors: Mapping[str, float], form: str) -> str:
    """Median and mean, in a column."""
    values = [form.format(errors[name]) if name in errors else "-" for name in METRICS]
    return " / ".join(values).rjust(15)


if __name__ == "__main__":
    run_script(main)
