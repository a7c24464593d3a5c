"""Score tables as rows of text: orders, rounds and names the numbers of a model card.

Every program that shows scores uses these rows: the coordinator's terminal and HTML report, the
registry's command line, the demo and the benchmarks. Each puts them into a table of its own kind.
The model comes first, "-" stands for a number that the card lacks, percentages are numbers (3.1 is
3.1 %).
Knows nothing of terminals or HTML, nor of how scores are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gemmcast.card import ModelCard, Scores

Metrics = Mapping[str, float]

ERROR_METRICS = {"median_ape": "median %", "mape": "mean %", "p90_ape": "p90 %", "r2": "R²"}
"""Metric of a score -> title of its column."""
SCORE_COLUMNS = ("target", "method", *ERROR_METRICS.values(), "rows")

SUMMARY_TARGETS = {
    "runtime_us": "runtime",
    "sustained_runtime_us": "sustained",
    "power_w": "power",
    "energy_mj": "energy",
}
"""Target of a summary -> title of its column."""

KIND_METRICS = {
    "median_ape": "median %",
    "mape": "mean %",
    "within": "within %",
    "width": "width %",
}
"""Metric of a kind of kernel -> title of its column."""
SPLITS = {"shape": "new shape", "layer": "new layer", "layer-algorithm": "new layer, algorithm"}
"""What a GEMM has new, as in a card -> title of its column."""
ALL_KINDS = "all"

RANKING_METRICS = (
    "tau_mean",
    "tau_median",
    "regret_mean",
    "regret_median",
    "regret_8_mean",
    "regret_8_median",
)
"""Metrics of a ranking (costmodel/evaluate/ranking.py), in the order of the columns."""


def score_rows(scores: Scores) -> list[list[str]]:
    """One row per target and method, with the columns SCORE_COLUMNS."""
    return _rows_by_method(scores, ERROR_METRICS, count="rows")


def ranking_rows(ranking: Scores) -> list[list[str]]:
    """One row per target and method: target, method, RANKING_METRICS, number of groups."""
    return _rows_by_method(ranking, RANKING_METRICS, count="groups")


def summary_rows(scores_by_name: Mapping[str, Scores]) -> list[list[str]]:
    """One row per name: name, the model's "median / mean" of each of SUMMARY_TARGETS, rows."""
    rows = []
    for name, scores in scores_by_name.items():
        errors = [_median_and_mean(scores.get(target)) for target in SUMMARY_TARGETS]
        count = int(scores["runtime_us"]["model"]["rows"])
        rows.append([name, *errors, str(count)])
    return rows


def kind_rows(scores_by_kind: Mapping[str, Scores], target: str) -> list[list[str]]:
    """One row per kind of kernel with the target: kind, the model's KIND_METRICS, rows."""
    rows = []
    for kind, scores in scores_by_kind.items():
        if target not in scores:
            continue
        errors = scores[target]["model"]
        numbers = [_number(metric, errors.get(metric)) for metric in KIND_METRICS]
        rows.append([kind, *numbers, str(int(errors["rows"]))])
    return rows


def split_rows(card: ModelCard, target: str) -> list[list[str]]:
    """One row per kind of kernel: kind, then "median / mean (within)" of each of SPLITS.

    Of the model, in per cent; `within` is the share of measurements in its 90 % intervals. No row
    for a card that has no kinds.
    """
    if not card.scores_by_kind:
        return []
    by_split = {"shape": {ALL_KINDS: card.scores, **card.scores_by_kind}}
    for name in SPLITS:
        part = card.generalisation.get(name, {})
        if "kinds" in part:
            by_split[name] = {ALL_KINDS: part["scores"], **part["kinds"]}
    rows = []
    for kind in by_split["shape"]:
        cells = []
        for name in SPLITS:
            scores = by_split.get(name, {}).get(kind, {})
            cells.append(_with_coverage(scores.get(target)))
        if set(cells) != {"-"}:
            rows.append([kind, *cells])
    return rows


def _with_coverage(methods: Mapping[str, Metrics] | None) -> str:
    if not methods:
        return "-"
    within = _number("within", methods["model"].get("within"))
    return f"{_median_and_mean(methods)} ({within})"


def _rows_by_method(scores: Scores, metrics: Iterable[str], count: str) -> list[list[str]]:
    rows = []
    for target, methods in scores.items():
        for method in sorted(methods, key=_model_first):
            values = methods[method]
            numbers = [_number(metric, values.get(metric)) for metric in metrics]
            rows.append([target, method, *numbers, str(int(values[count]))])
    return rows


def _model_first(method: str) -> bool:
    return method != "model"


def _median_and_mean(methods: Mapping[str, Metrics] | None) -> str:
    if not methods:
        return "-"
    errors = methods["model"]
    return f"{errors['median_ape']:.1f} / {errors['mape']:.1f}"


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    decimals = 3 if metric == "r2" or metric.startswith("tau") else 1
    return f"{value:.{decimals}f}"
