"""What a choice of configuration costs: the tile's partial dependence, and time against energy of one problem.

A problem is one GEMM under one condition on one type of device; boards of a type count as one. Knows nothing of pictures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.report.analysis import TILE, Ask
from costmodel.dataset import Dataset
from costmodel.evaluate.ranking import CONFIG, PROBLEM
from gemmcast.config import KernelConfig
from gemmcast.query import AT, KNOB_FIELDS
from gemmcast.rows import config_of, gemm_of

Values = npt.NDArray[np.float64]
BY_TILE = ("tiled", "blas", "custom", "cutlass", "cublaslt")
# families by how purely their configurations differ in the tile
MAX_TILES = 12
ENOUGH = 10
# unseen problems with two tiles measured
MIN_CONFIGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependence:
    """One target by tile, over the geometric mean of all tiles on the same problem."""

    target: str
    predicted: Values
    # [n_tiles] geometric mean over the problems
    low: Values
    high: Values
    # [n_tiles] 10th and 90th percentile of the problems' predictions
    measured: Values | None
    # [n_tiles]; None where no problem has two tiles measured
    problems: int
    unseen: bool
    # whether they are all unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTile:
    family: str
    device: str
    tiles: list[tuple[int, int, int]]
    # m, n, k, by area
    dependences: list[Dependence]


def by_tile(data: Dataset, unseen: Dataset, ask: Ask, targets: tuple[str, ...] = ("runtime_us", "power_w")) -> ByTile | None:
    """The partial dependence of the tile (Friedman, Greedy function approximation, 2001, section 8.2): the mean over problems of the prediction
    with the tile replaced, in logarithms and less each problem's own mean, so that large problems don't drown small ones.

    A tile comes with the knobs that it is measured with most often. Unseen problems where ENOUGH of them have two tiles measured, else all.
    None where no family has two tiles.
    """
    for family in BY_TILE:
        known = _of_family(data, family)
        tiles = sorted((tile for tile, _ in Counter(known.keys(*TILE)).most_common(MAX_TILES)), key=lambda tile: (tile[0] * tile[1], tile))
        if len(tiles) > 1:
            device = Counter(known.column("device").tolist()).most_common(1)[0][0]
            here, new = (rows.take(rows.column("device") == device) for rows in (known, _of_family(unseen, family)))
            found = [_dependence(new, here, tiles, ask, target) or _dependence(here, here, tiles, ask, target, enough=0) for target in targets]
            return ByTile(family=family, device=device, tiles=tiles, dependences=[one for one in found if one])
    return None


def _of_family(data: Dataset, family: str) -> Dataset:
    """The family's rows with a known tile."""
    return data.take((data.column("family") == family) & (data.column("tile_m").astype(int) > 0))


def _dependence(rows: Dataset, known: Dataset, tiles: list[Any], ask: Ask, target: str, enough: int = ENOUGH) -> Dependence | None:
    """None for a target that the model does not have, or where fewer problems than enough have it measured with two tiles.

    Args:
        known: the rows that say which knobs a tile has; all of `rows` and more.
    """
    problems, places = _codes(rows.keys(*PROBLEM)), {tile: i for i, tile in enumerate(tiles)}
    at = np.array([places.get(tile, -1) for tile in rows.keys(*TILE)], dtype=np.intp)
    read = (at >= 0) & ~np.isnan(rows.measured[target])
    effects, used = tile_effects(problems[read], at[read], np.log(rows.measured[target][read]), len(tiles))
    answered = ask(_replaced(rows, problems, known, tiles)) if len(used) >= enough else {}
    if target not in answered:
        return None
    logs = np.log(np.asarray(answered[target], dtype=np.float64)).reshape(-1, len(tiles))[used if len(used) else slice(None)]
    relative = logs - logs.mean(axis=1, keepdims=True)
    low, high = np.exp(np.percentile(relative, [10, 90], axis=0))
    return Dependence(
        target=target, predicted=np.exp(relative.mean(axis=0)), low=low, high=high, measured=np.exp(effects) if len(used) else None,
        problems=len(relative), unseen=rows is not known,
    )  # fmt: skip


def _replaced(rows: Dataset, problems: npt.NDArray[np.intp], known: Dataset, tiles: list[Any]) -> npt.NDArray[np.float32]:
    """[n_problems * n_tiles, n_fields] The first row of each problem with every tile, and that tile's usual knobs."""
    on_cpu = known.column("device_kind")[0] == "cpu"  # where threads don't follow from the tile
    columns = [AT[name] for name in (*TILE, *KNOB_FIELDS) if not (on_cpu and name == "threads")]
    knobs: dict[Any, Counter[tuple[float, ...]]] = defaultdict(Counter)
    for tile, knob in zip(known.keys(*TILE), known.queries[:, columns].tolist(), strict=True):
        knobs[tile][tuple(knob)] += 1
    usual = np.array([knobs[tile].most_common(1)[0][0] for tile in tiles], dtype=np.float32)
    first = np.unique(problems, return_index=True)[1]
    asked = np.repeat(rows.queries[first], len(tiles), axis=0)
    asked[:, columns] = np.tile(usual, (len(first), 1))
    return asked


def tile_effects(problems: npt.NDArray[np.intp], tiles: npt.NDArray[np.intp], logs: Values, n_tiles: int) -> tuple[Values, npt.NDArray[np.intp]]:
    """(effects[n_tiles], problems that told), by least squares: log = problem's own + tile's, for not every problem has every tile.

    Where every problem has every tile this is the mean of log over the problem's geometric mean. NaN for a tile that no problem tells of.
    """
    sums, counts = np.zeros((2, int(problems.max(initial=-1)) + 1, n_tiles))
    np.add.at(sums, (problems, tiles), logs)
    np.add.at(counts, (problems, tiles), 1)
    there = counts > 0
    used = np.flatnonzero(there.sum(axis=1) > 1)
    there, means = there[used], np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)[used]
    each = there.sum(axis=1, keepdims=True)
    within = np.where(there, means - means.sum(axis=1, keepdims=True) / each, 0.0)
    normal = np.diag(there.sum(axis=0).astype(np.float64)) - there.T.astype(np.float64) @ (there / each)
    effects = np.linalg.pinv(normal) @ within.sum(axis=0)
    seen = there.any(axis=0)
    effects = np.where(seen, effects - (effects[seen].mean() if seen.any() else 0.0), np.nan)
    return effects, used


# Time against energy


@dataclass(frozen=True, slots=True, kw_only=True)
class Tradeoff:
    """Every metered configuration of one problem; what was measured several times with its mean."""

    problem: str
    unseen: bool
    families: list[str]
    names: list[str]
    time_us: Values
    energy_mj: Values
    # [n_configurations] measured, sustained
    predicted_time_us: Values
    predicted_energy_mj: Values
    front: npt.NDArray[np.intp]
    predicted_front: npt.NDArray[np.intp]
    # configurations that no other beats in both, fastest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Over all problems with MIN_CONFIGS or more metered configurations: the cheapest in energy against the fastest."""

    problems: int
    differ: int
    # where they are two
    saved: float
    slower: float
    # of those, medians in per cent


def pareto(time: Values, energy: Values) -> npt.NDArray[np.intp]:
    """Indices of what nothing beats in both, fastest first."""
    order = np.lexsort((energy, time))
    least = np.minimum.accumulate(energy[order])
    return order[energy[order] < np.concatenate([[np.inf], least[:-1]])]


def tradeoff(data: Dataset, unseen: Dataset, ask: Ask) -> Tradeoff | None:
    """Of the problem with the most metered configurations, an unseen one where there is one with MIN_CONFIGS; None where no problem has them."""
    for rows, new in ((unseen, True), (data, False)):
        found = metered(rows)
        if found:
            configs = max(found, key=lambda configs: (len(configs), -min(of[0] for of in configs)))
            return _tradeoff(rows, configs, ask, new)
    return None


def metered(data: Dataset) -> list[list[list[int]]]:
    """Of each problem with MIN_CONFIGS or more metered configurations, the rows of each configuration."""
    known = ~(np.isnan(data.measured["energy_mj"]) | np.isnan(data.measured["sustained_runtime_us"]))
    problems: dict[Any, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    rows = np.flatnonzero(known)
    picked = data.take(rows)
    for row, problem, config in zip(rows.tolist(), picked.keys(*PROBLEM), picked.keys(*CONFIG), strict=True):
        problems[problem][config].append(row)
    return [list(configs.values()) for configs in problems.values() if len(configs) >= MIN_CONFIGS]


def saving(data: Dataset) -> Saving | None:
    """None where no problem has MIN_CONFIGS metered configurations."""
    pairs = []
    for configs in metered(data):
        time, energy = (_means(data, name, configs) for name in ("sustained_runtime_us", "energy_mj"))
        fastest, cheapest = int(np.argmin(time)), int(np.argmin(energy))
        pairs.append((1 - energy[cheapest] / energy[fastest], time[cheapest] / time[fastest] - 1))
    two = np.array([pair for pair in pairs if pair[0] > 0]).reshape(-1, 2)
    saved, slower = 100 * np.median(two, axis=0) if len(two) else (0.0, 0.0)
    return Saving(problems=len(pairs), differ=len(two), saved=float(saved), slower=float(slower)) if pairs else None


def _tradeoff(rows: Dataset, configs: list[list[int]], ask: Ask, new: bool) -> Tradeoff | None:
    first = np.array([of[0] for of in configs])
    samples = rows.take(first).table.to_pylist()
    answered = ask(rows.queries[first])
    if "energy_mj" not in answered:
        return None
    time, energy = (_means(rows, name, configs) for name in ("sustained_runtime_us", "energy_mj"))
    said_time, said_energy = (np.asarray(answered[name], dtype=np.float64) for name in ("sustained_runtime_us", "energy_mj"))
    named = [config_of(sample) for sample in samples]
    return Tradeoff(
        problem=f"{gemm_of(samples[0])} on {samples[0]['device']}",
        unseen=new,
        families=[config.family for config in named],
        names=_names(named),
        time_us=time,
        energy_mj=energy,
        predicted_time_us=said_time,
        predicted_energy_mj=said_energy,
        front=pareto(time, energy),
        predicted_front=pareto(said_time, said_energy),
    )


def _names(configs: list[KernelConfig]) -> list[str]:
    """Family and kernel where they tell the configurations apart, else every knob."""
    short = [f"{config.family} {config.kernel}".strip() for config in configs]
    return short if len(set(short)) == len(short) else [str(config) for config in configs]


def _means(data: Dataset, target: str, configs: list[list[int]]) -> Values:
    return np.array([data.measured[target][of].mean() for of in configs], dtype=np.float64)


def _codes(keys: list[Any]) -> npt.NDArray[np.intp]:
    """[n_rows] The place of each key among the different ones."""
    places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([places[key] for key in keys], dtype=np.intp)
