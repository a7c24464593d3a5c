"""Which parts of a query the predictions depend on: permutation importance.

One part of every query is exchanged with that of another row; the mean absolute error then rises by
the importance of the part (Breiman, Random Forests, 2001, section 10). Exchanges stay within groups
of rows in which the result is a possible query: a tile goes to a kernel of the same family.
Knows nothing of figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.report.analysis import HeldOutRows, Predict, Predictions
from costmodel.dataset import Indices, Mask, TrainingSet, Values
from gemmcast.query import AT, KNOB_FIELDS, Rows

MAX_ROWS = 2000
"""Rows that are shuffled: more rows do not change the figure."""
SHUFFLES = 5
SEED = 0

TILE_FIELDS = ("tile_m", "tile_n", "tile_k")
DTYPE_FIELDS = ("dtype", "in_bytes", "out_bytes", "peak_tflops")
CPU_FIELDS = (
    "peak_tflops",
    "dram_gbps",
    "l2_bytes",
    "clock_max_mhz",
    "empty_kernel_us",
    "power_limit_w",
    "idle_power_w",
    "l2_gbps",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryPart:
    """Fields of a query that are exchanged together, because they describe one thing."""

    name: str
    fields: tuple[str, ...]
    among: tuple[str, ...] = ("device", "family")
    """Columns of a sample: fields are exchanged among rows that are equal in these."""
    device_kinds: tuple[str, ...] = ("cpu", "cuda")
    """Kinds of device on whose rows the part is shuffled."""


QUERY_PARTS = (
    QueryPart(name="m", fields=("m",), among=("device",)),
    QueryPart(name="n", fields=("n",), among=("device",)),
    QueryPart(name="k", fields=("k",), among=("device",)),
    QueryPart(name="batch", fields=("batch",), among=("device",)),
    QueryPart(name="dtype", fields=DTYPE_FIELDS),
    QueryPart(name="layout", fields=("trans_a", "trans_b")),
    QueryPart(name="beta", fields=("beta",)),
    QueryPart(name="cache state", fields=("warm",)),
    QueryPart(
        name="whole kernel (family, tile, knobs)",
        fields=("family", "algorithm", *TILE_FIELDS, *KNOB_FIELDS),
        among=("device", "dtype"),
        device_kinds=("cuda",),
    ),
    # on a GPU the threads of a block follow from its tile
    QueryPart(name="tile", fields=(*TILE_FIELDS, "threads"), device_kinds=("cuda",)),
    QueryPart(name="cache block", fields=TILE_FIELDS, device_kinds=("cpu",)),
    QueryPart(name="threads", fields=("threads", "active_units"), device_kinds=("cpu",)),
    QueryPart(name="other knobs", fields=tuple(name for name in KNOB_FIELDS if name != "threads")),
    QueryPart(name="algorithm", fields=("algorithm",)),
    QueryPart(
        name="device",
        fields=("active_units", *CPU_FIELDS),
        among=("device_kind", "family", "dtype"),
        device_kinds=("cuda",),
    ),
    QueryPart(
        name="CPU",
        fields=CPU_FIELDS,
        among=("device_kind", "family", "dtype"),
        device_kinds=("cpu",),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartImportance:
    """How much the error rises when one part of the query is shuffled."""

    name: str
    rises: dict[str, float]
    """Target -> rise of the mean absolute error in percentage points, mean over the shuffles."""


def importances(
    held: HeldOutRows, predict: Predict, parts: Sequence[QueryPart] = QUERY_PARTS
) -> list[PartImportance]:
    """The importance of each part that varies, largest rise of runtime first.

    Every shuffle is one run of the model.
    """
    sample = np.random.default_rng(SEED).permutation(len(held.data))[:MAX_ROWS]
    data = held.data.take(np.sort(sample))
    targets = [name for name in held.targets if not np.isnan(data.measured[name]).all()]
    before = _mean_errors(predict(data.queries), data, targets)
    results = []
    for part in parts:
        shuffled = _shuffled_queries(data, part)
        if not shuffled:
            continue
        errors = [_mean_errors(predict(queries), data, targets) for queries in shuffled]
        rises = np.mean(errors, axis=0) - before
        by_target = dict(zip(targets, rises.tolist(), strict=True))
        results.append(PartImportance(name=part.name, rises=by_target))
    return sorted(results, key=lambda one: one.rises.get("runtime_us", 0.0), reverse=True)


def _mean_errors(predictions: Predictions, data: TrainingSet, targets: Sequence[str]) -> Values:
    """[n_targets] Mean absolute errors, in per cent."""
    errors = []
    for target in targets:
        ratios = predictions[target] / data.measured[target]
        absolute = 100 * np.abs(ratios - 1)
        errors.append(np.nanmean(absolute))
    return np.array(errors)


def _shuffled_queries(data: TrainingSet, part: QueryPart) -> list[Rows]:
    """SHUFFLES times all queries with the part's fields exchanged; none if nothing changes."""
    groups = key_codes(data.keys(*part.among))
    shuffled = np.isin(data.column("device_kind"), part.device_kinds)
    columns = np.array([AT[name] for name in part.fields])
    independent = _independent_fields(data)
    if not _varies(independent[:, columns], groups, shuffled):
        return []
    rng = np.random.default_rng(SEED)
    results = []
    for _ in range(SHUFFLES):
        source = _shuffle_within(groups, rng)[shuffled]
        queries = independent.copy()
        queries[np.ix_(np.flatnonzero(shuffled), columns)] = independent[source][:, columns]
        results.append(_complete_queries(queries))
    return results


def key_codes(keys: Sequence[tuple[object, ...]]) -> Indices:
    """[n_rows] The place of each row's key among the different keys, in order of appearance."""
    places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([places[key] for key in keys], dtype=np.int64)


def _varies(fields: Values, groups: Indices, chosen: Mask) -> bool:
    """Whether the chosen rows of some group differ. fields[n_rows, n_fields]"""
    for group in np.unique(groups[chosen]):
        members = fields[chosen & (groups == group)]
        if (members != members[0]).any():
            return True
    return False


def _shuffle_within(groups: Indices, rng: np.random.Generator) -> Indices:
    """[n_rows] A permutation of the rows that keeps every row in its group."""
    by_group = np.argsort(groups, kind="stable")
    by_group_shuffled = np.lexsort((rng.random(len(groups)), groups))
    source = np.empty_like(by_group)
    source[by_group] = by_group_shuffled
    return source


def _independent_fields(data: TrainingSet) -> Values:
    """[n_rows, n_fields] The queries without what follows from other fields.

    An unknown tile is 0 instead of the whole dimension; the peak is that of one unit.
    """
    queries: Values = data.queries.astype(np.float64)
    for tile in TILE_FIELDS:
        queries[:, AT[tile]] = data.column(tile)
    queries[:, AT["peak_tflops"]] /= queries[:, AT["active_units"]]
    return queries


def _complete_queries(independent: Values) -> Rows:
    """The inverse of `_independent_fields`, with the tile's whole dimension and all units."""
    queries = independent.copy()
    for size, tile in zip("mnk", TILE_FIELDS, strict=True):
        tiles = independent[:, AT[tile]]
        dimensions = independent[:, AT[size]]
        queries[:, AT[tile]] = np.where(tiles > 0, tiles, dimensions)
    queries[:, AT["peak_tflops"]] *= independent[:, AT["active_units"]]
    return queries.astype(np.float32)
