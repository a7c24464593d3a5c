"""How many own samples a model needs that starts from a base: error over samples of a new device.

    .venv/bin/python benchmarks/adaptation.py --base datasets/h100_sxm.parquet \\
        --target datasets/h200_sxm.parquet [--seeds 5] [--json]

Needs no GPU.

The base is fitted on a table (minutes), or is a model file (.onnx). A third of the target's shapes
is tested with; from the others 0, 10, 50, 200 and 1,000 rows are drawn as own samples, half of them
among those that were metered for power (as a plan with power_share = 0.5 measures them). Every seed
draws other shapes and other rows. The ways to use them:

    base             the base and the samples, drawn at random        `curve` of the JSON
    base, planner    the same, drawn by coordinator/plan/acquire.py
    own samples      the model of the samples alone, without a base
    boosting         plain boosted trees on them (costmodel/model_kinds.py)

A table is a file of our own columns or one that `python -m coordinator import` reads. A target
without a description of its device takes that of the base's only device. Errors are in per cent.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt

from coordinator.samples.importer import read_table
from costmodel.adapted import AdaptedModel
from costmodel.base import Base
from costmodel.dataset import TrainingSet, devices_of, training_set
from costmodel.evaluate.metrics import score
from costmodel.model import CostModel
from costmodel.model_kinds import MODEL_KINDS
from costmodel.onnx_export import export
from gemmcast.cli_parser import Parser
from gemmcast.errors import InputError
from gemmcast.program import json_line, run_command, run_script

SAMPLES = (0, 10, 50, 200, 1000)
TARGETS = ("runtime_us", "sustained_runtime_us", "power_w", "energy_mj")
METRICS = ("mape", "median_ape")
TESTED = 1 / 3
"""Of the target's shapes."""
PLANNER = "coordinator.plan.acquire"
MIN_SHAPES = 6

Predicted = Mapping[str, npt.NDArray[np.floating]]
"""Output -> [n_rows]."""
Way = Callable[[TrainingSet, TrainingSet], Predicted]
"""From own samples and the rows to test with to predictions of these."""
Draw = Callable[[TrainingSet, int, np.random.Generator], npt.NDArray[np.int64]]
"""From rows, how many and a generator to the rows that are measured."""
Errors = dict[str, dict[str, float]]
"""Target -> metric -> per cent."""
Curve = dict[str, Errors]
"""Number of samples -> errors."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    args = _parser().parse_args(arguments)
    base = base_of(args.base)
    target = _rows_of(args.target, base)
    curves = measure(base, target, args.samples, args.seeds)
    result: dict[str, object] = {
        "base": base.title,
        "target": args.target.name,
        "rows": len(target),
        "shapes": len(set(target.shapes)),
        "seeds": args.seeds,
        "curve": curves["base"],
        "curves": curves,
    }
    if args.json:
        print(json_line(result))
    else:
        _show(result, curves)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="a table, or a model file (.onnx)")
    parser.add_argument("--target", type=Path, required=True, help="a table of another device")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES, help="own samples")
    parser.add_argument("--seeds", type=int, default=5, help="draws that are averaged")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser


def base_of(path: Path) -> Base:
    """A model file, or the model of a table. Raises InputError where it is neither."""
    if path.suffix == ".onnx":
        return Base.read(path)
    data = training_set(read_table(path).table)
    shapes = len(set(data.shapes))
    if shapes < MIN_SHAPES:
        rule = f"has {len(data)} usable rows over {shapes} shapes"
        raise InputError("--base", str(path), rule, "name a table with more shapes, or a model")
    print(f"fitting the base on {len(data)} rows", file=sys.stderr, flush=True)
    model = CostModel().fit_dataset(data)
    return Base.of(export(model, devices_of(data)), path.name)


def _rows_of(path: Path, base: Base) -> TrainingSet:
    data = training_set(read_table(path, known=base.devices).table)
    shapes = len(set(data.shapes))
    if shapes < MIN_SHAPES:
        rule = f"has {len(data)} usable rows over {shapes} shapes"
        way_out = f"name a table with {MIN_SHAPES} shapes of a described device, with status ok"
        raise InputError("--target", str(path), rule, way_out)
    return data


def measure(
    base: Base, target: TrainingSet, samples: Sequence[int], seeds: int
) -> dict[str, Curve]:
    """Way -> number of samples -> target -> mean over the seeds of `mape` and `median_ape`."""
    ways = _ways(base)
    errors_of: dict[str, dict[str, list[Errors]]] = {}
    for name in ways:
        errors_of[name] = defaultdict(list)
    for seed in range(seeds):
        pool, test = _parted(target, seed)
        for name, (way, draw) in ways.items():
            for count in _possible(samples, pool, name):
                rng = np.random.default_rng(seed)
                own = pool.take(draw(pool, count, rng))
                errors = _errors(test, way(own, test))
                errors_of[name][str(count)].append(errors)
        print(f"seed {seed + 1} of {seeds}", file=sys.stderr, flush=True)
    return {name: _averaged(by_count) for name, by_count in errors_of.items()}


def _ways(base: Base) -> dict[str, tuple[Way, Draw]]:
    """Name -> how a model is made, and how its rows are drawn."""
    from_base = _from(base)
    ways: dict[str, tuple[Way, Draw]] = {"base": (from_base, at_random)}
    if find_spec(PLANNER) is not None:
        ways["base, planner"] = (from_base, _by_planner(base))
    ways["own samples"] = (_alone, at_random)
    ways["boosting"] = (_boosted, at_random)
    return ways


def _possible(samples: Sequence[int], pool: TrainingSet, way: str) -> Iterator[int]:
    """Numbers of samples that are there; nothing is fitted on none without a base."""
    for count in samples:
        if count <= len(pool) and (count or way == "base"):
            yield count


def _parted(data: TrainingSet, seed: int) -> tuple[TrainingSet, TrainingSet]:
    """Rows to draw from, and rows to test with."""
    shapes = np.array(sorted(set(data.shapes)))
    order = np.random.default_rng(seed).permutation(len(shapes))
    count = max(1, round(TESTED * len(shapes)))
    tested = set(shapes[order[:count]])
    is_test = np.array([shape in tested for shape in data.shapes])
    return data.take(~is_test), data.take(is_test)


def at_random(pool: TrainingSet, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Any rows, of which at least half have power, as long as there are so many."""
    order = rng.permutation(len(pool))
    has_power = np.isfinite(pool.measured["power_w"][order])
    metered = order[has_power][: (count + 1) // 2]
    others = order[~np.isin(order, metered)]
    rows: npt.NDArray[np.int64] = np.concatenate([metered, others])[:count]
    return rows


def _by_planner(base: Base) -> Draw:
    """Those that the planner would measure: first what the base is least sure of."""
    acquire: Any = import_module(PLANNER)

    def draw(pool: TrainingSet, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The planner's choice among the rows with power, where there are enough."""
        has_power = np.flatnonzero(np.isfinite(pool.measured["power_w"]))
        rows = has_power if len(has_power) >= count else np.arange(len(pool))
        candidates = pool.queries[rows]
        doubt = acquire.doubt_of(base.answered(candidates))
        seed = int(rng.integers(2**31))
        chosen = acquire.choose(candidates, candidates[:0], count, doubt=doubt, seed=seed)
        return np.asarray(rows[chosen])

    return draw


def _from(base: Base) -> Way:
    def predict(own: TrainingSet, test: TrainingSet) -> Predicted:
        """By the base, corrected by the samples."""
        if not len(own):
            return base.predict(test.queries)
        return AdaptedModel(base).fit_dataset(own).predict(test.queries)

    return predict


def _alone(own: TrainingSet, test: TrainingSet) -> Predicted:
    return CostModel().fit_dataset(own).predict(test.queries)


def _boosted(own: TrainingSet, test: TrainingSet) -> Predicted:
    boosting = MODEL_KINDS["boosting"]()
    boosting.fit(own)
    return boosting.predict(test.queries)


def _errors(test: TrainingSet, predicted: Predicted) -> Errors:
    errors: Errors = {}
    for target in TARGETS:
        if target not in predicted:
            continue
        measured = test.measured[target]
        known = ~(np.isnan(measured) | np.isnan(predicted[target]))
        if not known.any():
            continue
        answers = predicted[target].astype(np.float64)
        of_target = score(measured[known], answers[known]).to_json()
        errors[target] = {name: of_target[name] for name in METRICS}
    return errors


def _averaged(by_count: Mapping[str, Sequence[Errors]]) -> Curve:
    """The mean over the seeds that have a value."""
    curve: Curve = {}
    for count, of_seeds in by_count.items():
        curve[count] = {}
        for target in TARGETS:
            values = [errors[target] for errors in of_seeds if target in errors]
            if values:
                curve[count][target] = _means(values)
    return curve


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metric -> its mean."""
    means: dict[str, float] = {}
    for name in METRICS:
        means[name] = float(np.mean([value[name] for value in values]))
    return means


def _show(result: Mapping[str, object], curves: Mapping[str, Curve]) -> None:
    devices = f"from {result['base']} to {result['target']}"
    counts = f"{result['rows']:,} rows, {result['shapes']:,} shapes"
    errors = f"mean over {result['seeds']} seeds of the absolute error in per cent, mean / median"
    print(f"{devices}: {counts}; {errors}")
    heads = "".join(target.rjust(22) for target in TARGETS)
    print(f"{'samples':>8}  {'way':16}{heads}")
    samples = dict.fromkeys(count for curve in curves.values() for count in curve)
    for count in samples:
        for way, curve in curves.items():
            if count in curve:
                print(f"{count:>8}  {way:16}{_line(curve[count])}")


def _line(errors: Errors) -> str:
    cells = [_cell(errors.get(target)) for target in TARGETS]
    return "".join(cell.rjust(22) for cell in cells)


def _cell(errors: Mapping[str, float] | None) -> str:
    return f"{errors['mape']:.1f} / {errors['median_ape']:.1f}" if errors else "-"


if __name__ == "__main__":
    run_script(main)
