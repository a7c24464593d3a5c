"""How a tile changes what a GEMM costs: rows beside each other in groups, as arXiv 2411.16954 compares its tiled kernel.

Rows are compared within a group: the same GEMM on the same board, one thing different; a ratio is that of two rows of a group. Knows nothing of
models, nor of how findings are shown: coordinator/report/html.py and benchmarks/paper.py do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Row = dict[str, Any]
Group = dict[Any, Row]
# what differs -> the row
Tiled = Mapping[str, list[Group]]
# where the rows are from -> shapes on one board, by tile
SIZES = {
    "< 0.01": (0.0, 0.01),
    "0.01 to 0.1": (0.01, 0.1),
    "0.1 to 1": (0.1, 1.0),
    "1 to 10": (1.0, 10.0),
    "10 to 100": (10.0, 100.0),
    "> 100": (100.0, np.inf),
}
# in GFLOP
BASE_TILE = 16
TIE = 1.02
# bursts without a power window repeat to 0.94 % (docs/measuring.md): nearer than two of these is no order
TIME, POWER, ENERGY = "runtime_us", "power_w", "energy_mj"


def where(rows: Iterable[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def groups(rows: Iterable[Row], same: Sequence[str], axis: Callable[[Row], Any]) -> list[Group]:
    """Rows of one board that are alike in `same`, by what `axis` says; groups of one are left out."""
    found: dict[tuple[Any, ...], Group] = defaultdict(dict)
    for row in rows:
        found[tuple(row[name] for name in (*same, "device_uuid"))][axis(row)] = row
    return [group for group in found.values() if len(group) > 1]


def ratios(found: Iterable[Group], reading: str, value: Any, base: Any) -> Values:
    """reading of `value` / reading of `base`, of each group where both were read."""
    pairs = [(group[value][reading], group[base][reading]) for group in found if value in group and base in group]
    return np.array([one / two for one, two in pairs if one and two], dtype=np.float64)


def whole(found: Sequence[Group]) -> tuple[list[Any], list[Group]]:
    """The values that most groups have, and the groups that have them all."""
    values = Counter(tuple(sorted(group)) for group in found).most_common(1)[0][0] if found else ()
    return list(values), [group for group in found if set(values) <= set(group)]


def geomean(values: Values) -> float:
    return float(np.exp(np.mean(np.log(values))))


def gflop(group: Group) -> float:
    row = next(iter(group.values()))
    return 2e-9 * float(row["m"] * row["n"] * row["k"] * row["batch"])


def least_us(group: Group) -> float:
    return min(float(row[TIME]) for row in group.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeClass:
    """Shapes of one dataset and size."""

    dataset: str
    size: str
    found: list[Group]
    complete: list[Group]
    # with every tile that most of them have


def size_classes(tiled: Tiled) -> list[SizeClass]:
    """By dataset and size, and at its end each dataset as a whole."""
    classes = []
    for name, found in tiled.items():
        sized = {size: [group for group in found if low <= gflop(group) < high] for size, (low, high) in SIZES.items()}
        of = [SizeClass(dataset=name, size=size, found=here, complete=whole(here)[1]) for size, here in sized.items() if here]
        complete = [group for one in of for group in one.complete]
        classes += [*of, SizeClass(dataset=name, size="all", found=found, complete=complete)]
    return classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Groups of configurations of one GEMM, and the one that a user would take without measuring."""

    name: str
    found: list[Group]
    baseline: str
    base: Callable[[Group], Row | None]


def tuned_by_tile(tiled: Tiled) -> dict[str, list[Tuned]]:
    """By dataset: its tiles against the smallest. Where shapes begin at different tiles, each of these is a baseline on all shapes that have it,
    beside the tiles from it on; at last BASE_TILE, beside the tiles that every shape has."""
    found: dict[str, list[Tuned]] = {}
    for name, of in ((one.dataset, one.complete) for one in size_classes(tiled) if one.size == "all" and one.complete):
        smallest = sorted({min(group) for group in of})
        for tile in (*smallest, BASE_TILE):
            least = min(tile, smallest[-1])
            among = [{at: row for at, row in group.items() if at >= least} for group in of if least in group]
            span = f"{least} to {max(max(group) for group in among)}"
            found.setdefault(name, []).append(Tuned(name=f"tiled {span}, {name}", found=among, baseline=f"tile {tile}", base=_of_tile(tile)))
    return found


def _of_tile(tile: int) -> Callable[[Group], Row | None]:
    return lambda group: group.get(tile)


def metered_pairs(one: Tuned) -> Values:
    """[pairs, 2] Baseline's time over a configuration's, and the configuration's power over the baseline's; both metered, sustained."""
    found = []
    for group in one.found:
        base = one.base(group)
        metered = [row for row in group.values() if row is not base and row[POWER] and row["sustained_runtime_us"]]
        if base and base[POWER] and base["sustained_runtime_us"]:
            found += [(base["sustained_runtime_us"] / row["sustained_runtime_us"], row[POWER] / base[POWER]) for row in metered]
    return np.array(found, dtype=np.float64).reshape(-1, 2)
