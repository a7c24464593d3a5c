"""Does `runtime_uncertainty` hold? How many pairs of readings of one cell agree within it.

    .venv/bin/python benchmarks/uncertainty.py [--fit] [--json]

    deviation = |ln(second / first)| / sqrt(u1^2 + u2^2)

Needs no GPU; takes a few seconds on two cores.

A good standard uncertainty has 95 % of the pairs within 2. The pairs are those of NAME.parquet and
NAME_again.parquet in datasets/, measured on other boards, and the repeated cells of
h100_repeatability, on the same. They are shown by dataset, by decade of runtime, by family, and by
whether a power window came before the burst.

--fit fits the constants of gemmcast/uncertainty.py anew to FITTED: the largest likelihood of
Student's t with four degrees of freedom, which outliers do not move, scaled so that 95 % of the
pairs are within 2. Each dataset has the same weight. The other datasets show whether that holds.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from costmodel.evaluate.noise import Pair, coverage, pairs_between, pairs_within
from gemmcast.arrow import read_samples
from gemmcast.cli_parser import Parser
from gemmcast.program import json_line, run_script
from gemmcast.rows import ReadRow, Row
from gemmcast.uncertainty import runtime_uncertainty

FOLDER = Path(__file__).resolve().parent.parent / "datasets"
AGAIN = "_again"
REPEATED = "h100_repeatability"
FITTED = ("h100_sxm", REPEATED)
DEGREES = 4
"""Of freedom: heavier tails than normal."""
GRID = np.geomspace(0.0005, 0.02, 75)
"""Of both constants: steps of 5 %."""
HEAD = f"{'pairs':32}{'within 1u %':>12}{'within 2u %':>12}{'cells':>8}"

Floats = NDArray[np.float64]
Groups = dict[str, list[Pair]]


def main() -> None:
    """The command."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the constants anew")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    pairs = recorded_pairs()
    printed: dict[str, Mapping[str, float]] = {}
    for name, group in {**pairs, **by_kind(pairs)}.items():
        printed[name] = coverage(group)
    if args.fit:
        printed["fit"] = fit([pairs[name] for name in FITTED])
    if args.json:
        print(json_line(printed))
        return
    _show(printed)


def _show(printed: Mapping[str, Mapping[str, float]]) -> None:
    print(HEAD)
    for name, values in printed.items():
        if name == "fit":
            continue
        within = f"{values['within_1u']:12.1f}{values['within_2u']:12.1f}"
        print(f"{name:32}{within}{values['cells']:8.0f}")
    fitted = " and ".join(FITTED)
    for name, value in printed.get("fit", {}).items():
        print(f"fit to {fitted}: {name} {value:.4f}")


def recorded_pairs() -> Groups:
    """Dataset -> pairs of readings of one cell."""
    pairs: Groups = {}
    for path in sorted(FOLDER.glob(f"*{AGAIN}.parquet")):
        name = path.stem.removesuffix(AGAIN)
        pairs[name] = pairs_between(_rows(name), _rows(path.stem))
    pairs[REPEATED] = pairs_within(_rows(REPEATED))
    return pairs


def by_kind(pairs: Groups) -> Groups:
    """The pairs of all datasets: by family, by decade of runtime, and by window."""
    kinds: Groups = defaultdict(list)
    for group in pairs.values():
        for pair in group:
            row = pair[0]
            decade = int(np.floor(np.log10(row["runtime_us"])))
            kinds[f"family {row['family']}"].append(pair)
            kinds[f"runtime from 1e{decade} us"].append(pair)
            window = "after" if _after_window(row) else "without"
            kinds[f"{window} a power window"].append(pair)
    return dict(sorted(kinds.items()))


def fit(datasets: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """The constants that these pairs speak for, by their names in gemmcast/uncertainty.py."""
    arrays = [_Arrays.of(pairs) for pairs in datasets]
    best_loss = np.inf
    between_boards = state_of_board = 0.0
    for between in GRID:
        for state in GRID:
            loss = sum(one.loss(between, state) for one in arrays)
            if loss < best_loss:
                best_loss = loss
                between_boards, state_of_board = between, state
    deviations = [one.deviations(between_boards, state_of_board) for one in arrays]
    scale = _reached_by(0.95, deviations) / 2
    return {"BETWEEN_BOARDS": between_boards * scale, "STATE": state_of_board * scale}


@dataclass(frozen=True, slots=True)
class _Arrays:
    """The pairs of a dataset; of both readings, the sum."""

    differences: Floats
    """ln(second / first)."""
    without_window: Floats
    """Readings without a power window: 0, 1 or 2."""
    within_square: Floats
    """Squares of the standard errors within the bursts."""

    @staticmethod
    def of(pairs: Sequence[Pair]) -> _Arrays:
        """From the rows."""
        lines = []
        for first, second in pairs:
            difference = np.log(second["runtime_us"] / first["runtime_us"])
            windows = _after_window(first) + _after_window(second)
            within = _within_square(first) + _within_square(second)
            lines.append((difference, 2 - windows, within))
        return _Arrays(*np.array(lines, dtype=np.float64).T)

    def deviations(self, between: float, state: float) -> Floats:
        """In units of the uncertainty of a difference."""
        uncertainty = np.sqrt(self._variance(between, state))
        deviations: Floats = np.abs(self.differences) / uncertainty
        return deviations

    def loss(self, between: float, state: float) -> float:
        """The negative logarithm of the likelihood of a pair, in the mean."""
        square = self.deviations(between, state) ** 2
        tails = (DEGREES + 1) / 2 * np.log1p(square / DEGREES)
        width = np.log(self._variance(between, state)) / 2
        return float(np.mean(width + tails))

    def _variance(self, between: float, state: float) -> Floats:
        constant = 2 * between**2
        variance: Floats = constant + self.without_window * state**2 + self.within_square
        return variance


def _reached_by(share: float, datasets: Sequence[Floats]) -> float:
    """The value that so many of all pairs are below; each dataset has the same weight."""
    values = np.concatenate(datasets)
    weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in datasets])
    order = np.argsort(values)
    below = np.cumsum(weights[order]) / np.sum(weights)
    at = np.searchsorted(below, share)
    return float(values[order][at])


def _rows(name: str) -> list[Row]:
    rows: list[Row] = read_samples(FOLDER / f"{name}.parquet").to_pylist()
    return rows


def _after_window(row: ReadRow) -> bool:
    return row["sustained_runtime_us"] is not None


def _within_square(row: ReadRow) -> float:
    """Of the standard error within the burst, which is in the uncertainty."""
    after_window = _after_window(row)
    kind = row["device_kind"]
    constant = runtime_uncertainty(0.0, after_window=after_window, device_kind=kind)
    uncertainty: float = row["runtime_uncertainty"]
    return max(0.0, uncertainty**2 - constant**2)


if __name__ == "__main__":
    run_script(main)
