"""What choosing a kernel's configuration by prediction loses against the best that was measured.

    .venv/bin/python benchmarks/tuning_regret.py [--table FILE...] [--json]
    .venv/bin/python benchmarks/tuning_regret.py --table FILE... --holdout FILE [--json]

The first form is cross-validation in five folds of layers: all shapes of an (n, k) are in one fold,
and its configurations are ranked by a model that never saw the layer. Rows of layers without a
group to rank are trained on in every fold. The second form is fitted on the tables and tested with
the one held out; a line says how many of its layers the tables had.

Printed are, by kernel family and objective, the mean and the worst regret of choices: the model's
first, the best of its first eight, of eight at random, the default, and gemmcast's own cautious
choice. A regret of 0.05 is 5 %. costmodel/evaluate/regret.py says what a group and each choice is,
and how noise enters: the best of a group is the luckiest reading too, so no choice reaches 0.

With the package nvidia-matmul-heuristics installed (it needs no GPU), its first eight stand beside
CUTLASS 3 kernels, as `nvidia8`: of each group the configurations that its first eight name.

A table is a file of our own columns or one that `python -m coordinator import` reads; the default
is every table that the shipped model is made from: ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa

from coordinator.samples.importer import read_table
from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.groups import FOLDS, split
from costmodel.evaluate.nvidia_heuristics import NvidiaHeuristics
from costmodel.evaluate.overlap import overlap
from costmodel.evaluate.ranking import MIN_CONFIGS, TOP
from costmodel.evaluate.regret import Chooser, Loss, RegretTable, layers_with_groups, losses, pooled
from costmodel.model import CostModel
from costmodel.shipped import DATASETS, training_files
from gemmcast.cli_parser import Parser
from gemmcast.descriptions import Descriptions
from gemmcast.errors import InputError
from gemmcast.program import json_line, run_command, run_script

COLUMNS = ("mean_regret", "worst_regret", "groups")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    args = _parser().parse_args(arguments)
    table = measure(args.table, args.holdout)
    if args.json:
        print(json_line(table))
    else:
        _show(table)
    return 0


def measure(tables: Sequence[Path], holdout: Path | None) -> RegretTable:
    """Cross-validate over layers of the tables, or fit on them and test with another.

    Raises:
        InputError: a file that cannot be used, or no group to rank.
    """
    samples = pa.concat_tables([read_table(path).table for path in tables])
    data = training_set(samples)
    if holdout is None:
        names = ", ".join(path.name for path in tables)
        return pooled(_cross_validated(data, names))
    known = Descriptions.of_rows(samples.to_pylist()).devices
    test = training_set(read_table(holdout, known=known).table)
    if not any(layers_with_groups(test)):
        raise _nothing_to_rank("--holdout", holdout.name)
    _say(f"of the tested rows, training had {overlap(data, test)['layer']:.1f} % of the layers")
    return pooled(losses(test, fit(data), other_choosers()))


def other_choosers() -> dict[str, Chooser]:
    """nvMatmulHeuristics' first eight, where it is installed."""
    if find_spec("nvMatmulHeuristics") is None:
        return {}
    return {"nvidia8": NvidiaHeuristics(TOP)}


def fit(training: TrainingSet) -> CostModel:
    """The model that `train` publishes."""
    return CostModel().fit_dataset(training)


def _cross_validated(data: TrainingSet, names: str) -> Iterator[Loss]:
    layers = layers_with_groups(data)
    count = len(set(layers) - {None})
    if count < FOLDS:
        raise _nothing_to_rank("--table", names)
    others = other_choosers()
    for i, (is_training, is_test) in enumerate(split(layers, FOLDS)):
        model = fit(data.take(is_training))
        yield from losses(data.take(is_test), model, others)
        _say(f"fold {i + 1} of {FOLDS}")


def _nothing_to_rank(field: str, value: str) -> InputError:
    rule = f"has too few problems with {MIN_CONFIGS} configurations of a family on one board"
    way_out = f"measure such problems of {FOLDS} layers, (n, k), at least"
    return InputError(field, value, rule, way_out)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table",
        type=Path,
        nargs="+",
        default=training_files(DATASETS),
        help="measured GEMMs to train on",
    )
    parser.add_argument(
        "--holdout",
        type=Path,
        help="measured GEMMs to test with; without it, cross-validation over --table",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(table: RegretTable) -> None:
    print(f"{'':10}{'':10}{'':14}{'mean':>9}{'worst':>9}{'groups':>9}")
    for family, objectives in table.items():
        for objective, choices in objectives.items():
            for choice, values in choices.items():
                mean, worst, groups = (values[name] for name in COLUMNS)
                place = f"{family:10}{objective:10}{choice:14}"
                print(f"{place}{mean:9.4f}{worst:9.4f}{groups:9.0f}")


if __name__ == "__main__":
    run_script(main)
