"""What a model's answers on unseen rows tell: where it errs, whether its intervals hold, and which parts of a question its answers hang on.

Unseen is what the model cannot have learned from: shapes held out from training, and shapes first measured after it was made. Arrays are
[n_rows] where nothing else is said, errors are in per cent (3.1 is 3.1 %). Knows nothing of pictures: coordinator/report/figures.py draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from costmodel.dataset import TARGETS, Dataset, held_out
from costmodel.evaluate.crossval import sizes
from costmodel.train import open_session
from gemmcast.card import ModelCard
from gemmcast.query import AT, EXTRAPOLATING, INPUT, INTERVALS, KNOB_FIELDS, Rows

Values = npt.NDArray[np.float64]
# [n_rows]
Answers = Mapping[str, npt.NDArray[Any]]
# target -> [n_rows]; low and high -> [n_rows, n_targets]; extrapolating -> [n_rows]
Ask = Callable[[Rows], Answers]
# questions[n_rows, len(FIELDS)] -> answers
LARGEST = 2000
# rows to shuffle: more change nothing that could be seen
SHUFFLES = 5
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Unseen rows with what the model says of them."""

    data: Dataset
    answers: Answers
    later: npt.NDArray[np.bool_]
    # measured after the model was made: its intervals were calibrated without them
    targets: tuple[str, ...]
    # in the order of low's and high's columns

    def known(self, target: str) -> npt.NDArray[np.bool_]:
        """Where the target was read."""
        found: npt.NDArray[np.bool_] = ~np.isnan(self.data.measured[target])
        return found

    def errors(self, target: str) -> Values:
        """Signed, in per cent; NaN where the target was not read."""
        found: Values = 100 * (self.answers[target] / self.data.measured[target] - 1)
        return found


def asker(model: bytes) -> Ask:
    """The function that an ONNX model is; outputs that an older contract lacks are not there."""
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]
    return lambda queries: dict(zip(names, session.run(names, {INPUT: queries}), strict=True))


def unseen(data: Dataset, ask: Ask, card: ModelCard) -> Unseen:
    later = np.array([moment > card.created_at for moment in data.table["measured_at"].to_pylist()], dtype=bool)
    never = held_out(data.shapes, card.holdout)
    new = later & ~np.isin(data.shapes, data.shapes[~later])
    rows = data.take(never | new)
    return Unseen(data=rows, answers=ask(rows.queries), later=later[never | new], targets=tuple(name for name in card.targets if name in TARGETS))


# Where it errs


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Of one group of rows, absolute, in per cent."""

    rows: int
    median: float
    p90: float

    @staticmethod
    def of(errors: Values) -> Error | None:
        """None of no rows."""
        known = np.abs(errors[~np.isnan(errors)])
        return Error(rows=len(known), median=float(np.median(known)), p90=float(np.percentile(known, 90))) if len(known) else None


def error_by_size(seen: Unseen, target: str = "runtime_us") -> dict[int, dict[str, Error]]:
    """Decade of flops (9 is 1e9 to just below 1e10) -> family -> error; `all` is every family."""
    decades = np.array([int(name[2:]) for name in sizes(seen.data)], dtype=int)
    families, errors = seen.data.column("family"), seen.errors(target)
    groups = {"all": np.ones(len(decades), dtype=bool), **{str(name): families == name for name in sorted(set(families))}}
    found = {int(decade): {name: Error.of(errors[here & (decades == decade)]) for name, here in groups.items()} for decade in sorted(set(decades))}
    return {decade: {name: error for name, error in of.items() if error} for decade, of in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """How one target's intervals hold on unseen rows; shares in per cent."""

    rows: int
    within: float
    later_rows: int
    later_within: float | None
    # of those measured after the model was made; None where there are none
    factor: float
    # typical interval: from predicted / factor to predicted * factor
    flagged: int
    flagged_within: float | None
    # of the rows that the model calls outside of what it was taught


def covered(seen: Unseen) -> dict[str, Covered]:
    """target -> how often measurements lie within; empty for a model without intervals."""
    found = {}
    for i, target in enumerate(seen.targets if set(INTERVALS) <= set(seen.answers) else ()):
        low, high = (seen.answers[side][:, i] for side in INTERVALS)
        measured, known = seen.data.measured[target], seen.known(target)
        inside = (low <= measured) & (measured <= high)
        outlying = known & (np.asarray(seen.answers.get(EXTRAPOLATING, np.zeros(len(known)))) > 0)
        if known.any():
            found[target] = Covered(
                rows=int(known.sum()),
                within=_share(inside[known]) or 0.0,
                later_rows=int((known & seen.later).sum()),
                later_within=_share(inside[known & seen.later]),
                factor=float(np.median(np.sqrt(high[known] / low[known]))),
                flagged=int(outlying.sum()),
                flagged_within=_share(inside[outlying]),
            )
    return found


def _share(true: npt.NDArray[np.bool_]) -> float | None:
    return float(100 * true.mean()) if len(true) else None


# What its answers hang on

TILE = ("tile_m", "tile_n", "tile_k")
DTYPE = ("dtype", "in_bytes", "out_bytes", "peak_tflops")
OTHER_KNOBS = tuple(name for name in KNOB_FIELDS if name != "threads")
DEVICE = ("active_units", "peak_tflops", "dram_gbps", "l2_bytes", "clock_max_mhz", "empty_launch_us", "power_limit_w", "idle_power_w", "l2_gbps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Fields of a question that say one thing together."""

    name: str
    fields: tuple[str, ...]
    among: tuple[str, ...] = ("device", "family")
    # columns of the sample: fields are exchanged among rows alike in these, so that no question is asked that could not be
    kind: str = "cpu cuda"
    # of devices where it is shuffled


PARTS = (
    Part(name="m", fields=("m",), among=("device",)),
    Part(name="n", fields=("n",), among=("device",)),
    Part(name="k", fields=("k",), among=("device",)),
    Part(name="batch", fields=("batch",), among=("device",)),
    Part(name="dtype", fields=DTYPE),
    Part(name="layout", fields=("trans_a", "trans_b")),
    Part(name="beta", fields=("beta",)),
    Part(name="cache state", fields=("warm",)),
    Part(name="whole kernel (family, tile, knobs)", fields=("family", "algorithm", *TILE, *KNOB_FIELDS), among=("device", "dtype"), kind="cuda"),
    Part(name="tile", fields=(*TILE, "threads"), kind="cuda"),  # the threads of a block follow from its tile
    Part(name="cache block", fields=TILE, kind="cpu"),
    Part(name="threads", fields=("threads", "active_units"), kind="cpu"),
    Part(name="other knobs", fields=OTHER_KNOBS),
    Part(name="algorithm", fields=("algorithm",)),
    Part(name="device", fields=DEVICE, among=("device_kind", "family", "dtype"), kind="cuda"),
    Part(name="CPU", fields=DEVICE[1:], among=("device_kind", "family", "dtype"), kind="cpu"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """By how many points the mean absolute percentage error rises when a part of the question is shuffled."""

    name: str
    rises: dict[str, float]
    # target -> mean over the shuffles


def importances(seen: Unseen, ask: Ask, parts: Sequence[Part] = PARTS) -> list[Importance]:
    """Permutation importance (Breiman, Random Forests, 2001, section 10) of each part that varies, largest rise of runtime first.

    A shuffled question stays one that could be asked: a tile that is not known is the whole of the new dimension, and a CPU's peak is that of
    its new threads. Every shuffle is one run of the model.
    """
    few = np.random.default_rng(SEED).permutation(len(seen.data))[:LARGEST]
    data = seen.data.take(np.sort(few))
    targets = [name for name in seen.targets if not np.isnan(data.measured[name]).all()]
    before = _mape(ask(data.queries), data, targets)
    found: dict[str, dict[str, float]] = {}
    for part in parts:
        shuffled = list(_shuffled(data, part))
        after = [_mape(ask(queries), data, targets) for queries in shuffled]
        if after:
            found[part.name] = {target: float(np.mean([one[target] for one in after]) - before[target]) for target in targets}
    return sorted(
        (Importance(name=name, rises=rises) for name, rises in found.items()), key=lambda one: one.rises.get("runtime_us", 0.0), reverse=True
    )


def _mape(answers: Answers, data: Dataset, targets: Sequence[str]) -> dict[str, float]:
    return {target: float(np.nanmean(100 * np.abs(answers[target] / data.measured[target] - 1))) for target in targets}


def _shuffled(data: Dataset, part: Part) -> list[Rows]:
    """SHUFFLES times the questions with the part's fields exchanged; none where that changes nothing."""
    keys = data.keys(*part.among)
    codes = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    group = np.array([codes[key] for key in keys], dtype=int)
    here = np.isin(data.column("device_kind"), part.kind.split())
    columns, free = np.array([AT[name] for name in part.fields]), _freed(data)
    if not any(len(np.unique(free[here & (group == i)][:, columns], axis=0)) > 1 for i in set(group[here])):
        return []
    found, rng = [], np.random.default_rng(SEED)
    for _ in range(SHUFFLES):
        source = np.arange(len(group))
        source[np.argsort(group, kind="stable")] = np.lexsort((rng.random(len(group)), group))
        asked = free.copy()
        asked[np.ix_(np.flatnonzero(here), columns)] = free[source[here]][:, columns]
        found.append(_bound(asked))
    return found


def _freed(data: Dataset) -> Values:
    """The questions without what follows from other fields: 0 for a tile that is not known, the peak of one worker."""
    free: Values = data.queries.astype(np.float64)
    for tile in TILE:
        free[:, AT[tile]] = data.column(tile)
    free[:, AT["peak_tflops"]] /= free[:, AT["active_units"]]
    return free


def _bound(free: Values) -> Rows:
    whole = free.copy()
    for size, tile in zip("mnk", TILE, strict=True):
        whole[:, AT[tile]] = np.where(free[:, AT[tile]] > 0, free[:, AT[tile]], free[:, AT[size]])
    whole[:, AT["peak_tflops"]] *= free[:, AT["active_units"]]
    return whole.astype(np.float32)
