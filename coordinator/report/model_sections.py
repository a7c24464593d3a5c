"""Sections of the report about a model: where it is wrong, what it has learned, what tuning gains.

Each function computes one result on the held-out rows and returns its section. Where the samples do
not allow the result, the section says why in a sentence.
"""

from __future__ import annotations

import numpy as np

from coordinator.report import figures
from coordinator.report.analysis import (
    ALL_FAMILIES,
    ErrorSummary,
    HeldOutRows,
    IntervalCoverage,
    Predict,
    error_by_size,
    families_of,
    interval_coverage,
)
from coordinator.report.drawing import TARGET_NAMES
from coordinator.report.importance import MAX_ROWS, importances
from coordinator.report.page import PageTable, Picture, Section
from coordinator.report.partial_dependence import dependence_on_tile
from coordinator.report.tradeoffs import (
    MIN_CONFIGS,
    Tradeoff,
    energy_saving,
    tradeoff,
)
from costmodel.dataset import TrainingSet
from gemmcast.card import ModelCard

SHOWN_TARGETS = ("runtime_us", "power_w", "energy_mj")
ABSENT = "–"
INTERVAL_COLUMNS = (
    "target",
    "rows",
    "within, %",
    "by the card, %",
    "later rows, % (rows)",
    "factor",
    "flagged, % (rows)",
)
TRADEOFF_COLUMNS = (
    "front",
    "configuration",
    "runtime, µs",
    "energy, mJ",
    "power, W",
    "predicted, µs",
    "predicted, mJ",
    "on the model's front",
)


def error_sections(held: HeldOutRows, card: ModelCard) -> list[Section]:
    """Predicted against measured, errors by size, and the intervals."""
    if not len(held.data):
        text = "The model was trained on the shape of every row here."
        return [Section(title="Errors on held-out shapes", texts=[text])]
    return [_predicted_and_measured(held), _by_size(held), _intervals(held, card)]


def _predicted_and_measured(held: HeldOutRows) -> Section:
    shapes = len(set(held.data.shapes))
    later = int(held.measured_later.sum())
    text = (
        f"{len(held.data):,} rows of {shapes:,} shapes, {later:,} of them measured after the model "
        "was made."
    )
    figure = figures.predicted_and_measured(held)
    return Section(
        title="Predicted and measured on held-out shapes",
        texts=[text],
        pictures=[Picture.of("Predicted against measured", figure)],
    )


def _by_size(held: HeldOutRows) -> Section:
    errors = error_by_size(held)
    families = families_of(errors)
    columns = [ALL_FAMILIES, *families] if len(families) > 1 else families
    rows = []
    for decade, by_family in errors.items():
        cells = [_median_and_p90(by_family.get(family)) for family in columns]
        rows.append([figures.decade_name(decade), *cells])
    text = (
        "Median / 90th percentile of the absolute error in per cent; the number of rows is in "
        "brackets."
    )
    return Section(
        title="Error of runtime by size on held-out shapes",
        texts=[text],
        tables=[PageTable(header=["size", *columns], rows=rows)],
        pictures=[Picture.of("Error of runtime by size", figures.error_by_size(held, errors))],
    )


def _median_and_p90(error: ErrorSummary | None) -> str:
    if error is None:
        return ABSENT
    return f"{error.median:.1f} / {error.p90:.1f} ({error.rows:,})"


def _intervals(held: HeldOutRows, card: ModelCard) -> Section:
    title = "Do the 90 % intervals hold?"
    coverage = interval_coverage(held)
    if not coverage:
        return Section(title=title, texts=["This model gives no intervals."])
    rows = [
        _interval_row(target, one, card.coverage.get(target)) for target, one in coverage.items()
    ]
    text = (
        "The share of measurements within the interval, in per cent: of all rows on held-out "
        "shapes, of those that the model's card was made with, and of those measured after the "
        "model was made. No held-out shape was used for the intervals. A typical interval goes "
        "from predicted ÷ factor to predicted × factor. The last column counts the rows that the "
        "model flags as outside its training range; intervals are not reliable there."
    )
    table = PageTable(header=INTERVAL_COLUMNS, rows=rows)
    return Section(title=title, texts=[text], tables=[table])


def _interval_row(target: str, one: IntervalCoverage, by_card: float | None) -> list[str]:
    return [
        TARGET_NAMES[target],
        f"{one.rows:,}",
        _percent(one.within),
        _percent(by_card),
        f"{_percent(one.later_within)} ({one.later_rows:,})",
        f"{one.factor:.2f}",
        f"{_percent(one.flagged_within)} ({one.flagged:,})",
    ]


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}"


def importance_section(held: HeldOutRows, predict: Predict) -> Section:
    """What the predictions depend on."""
    title = "What the predictions depend on"
    parts = importances(held, predict) if len(held.data) else []
    if not parts:
        text = "There are no held-out rows that differ in any part of the query."
        return Section(title=title, texts=[text])
    targets = [target for target in SHOWN_TARGETS if target in parts[0].rises]
    text = (
        "One part of every held-out query is exchanged with that of another row; the bar shows by "
        "how many percentage points the mean absolute error rises. Kernel settings are exchanged "
        f"within a family only, of {MAX_ROWS:,} rows where there are more. The axis is logarithmic "
        "above 1. Parts that depend on each other "
        "(a GEMM's size and its tile) share their importance."
    )
    figure = figures.importance(parts, targets)
    picture = Picture.whole("Rise of the error by shuffled part", figure)
    return Section(title=title, texts=[text], pictures=[picture])


def tile_section(data: TrainingSet, held: HeldOutRows, predict: Predict) -> Section:
    """The partial dependence on the tile."""
    title = "Effect of the tile"
    family = dependence_on_tile(data, held.data, predict)
    if not family or not family.dependences:
        text = "No kernel family here was measured with two tiles."
        return Section(title=title, texts=[text])
    text = (
        f"Partial dependence for the {family.family} kernel on {family.device}: every problem is "
        "predicted with every tile, relative to the problem's geometric mean, and averaged. Below "
        "1 is less than the average tile. Measured values are averaged in the same way over the "
        "tiles that were measured. If fewer than ten problems are held out, the figure shows all "
        "problems, those of the training included."
    )
    picture = Picture.of("Runtime and power by tile", figures.by_tile(family))
    return Section(title=title, texts=[text], pictures=[picture])


def tradeoff_section(data: TrainingSet, held: HeldOutRows, predict: Predict) -> Section:
    """Time against energy of one problem, and the saving over all."""
    title = "Time against energy"
    if np.isnan(data.measured["energy_mj"]).all():
        text = "No power was measured here, so energy cannot be compared with time."
        return Section(title=title, texts=[text])
    result = tradeoff(data, held.data, predict)
    if not result:
        text = (
            f"No problem has {MIN_CONFIGS} configurations with energy (power_share in a plan sets "
            "how many are metered), or the model predicts no energy."
        )
        return Section(title=title, texts=[text])
    figure = figures.time_and_energy(result)
    return Section(
        title=title,
        texts=[_fastest_and_cheapest(result), *_saving_texts(data)],
        tables=[_tradeoff_table(result)],
        pictures=[Picture.of("Measured runtime against energy of every configuration", figure)],
    )


def _fastest_and_cheapest(result: Tradeoff) -> str:
    fastest = result.names[result.front[0]]
    cheapest = result.names[result.front[-1]]
    if result.held_out:
        how = "held out from training"
    else:
        how = "part of the training data: no held-out problem has enough configurations"
    problem = f"{result.problem}, the problem with the most metered configurations ({how})."
    if fastest == cheapest:
        return f"{problem} {fastest} is the fastest and needs the least energy."
    return f"{problem} {fastest} is the fastest, {cheapest} needs the least energy."


def _saving_texts(data: TrainingSet) -> list[str]:
    saving = energy_saving(data)
    if not saving:
        return []
    text = (
        f"Of {saving.problems:,} problems with {MIN_CONFIGS} or more metered configurations, "
        f"{saving.differ:,} have a configuration that needs less energy than the fastest"
    )
    if saving.differ:
        text += (
            f"; it then saves {saving.saved:.1f} % of the energy and takes {saving.slower:.1f} % "
            "longer (medians)"
        )
    return [f"{text}."]


def _tradeoff_table(result: Tradeoff) -> PageTable:
    front = result.front.tolist()
    on_model_front = set(result.predicted_front.tolist())
    power_w = 1e3 * result.energy_mj / result.time_us
    rows = []
    for at in np.argsort(result.time_us).tolist():
        values = [
            result.time_us[at],
            result.energy_mj[at],
            power_w[at],
            result.predicted_time_us[at],
            result.predicted_energy_mj[at],
        ]
        rows.append(
            [
                str(front.index(at) + 1) if at in front else "",
                result.names[at],
                *(f"{value:.4g}" for value in values),
                "yes" if at in on_model_front else "",
            ]
        )
    return PageTable(header=TRADEOFF_COLUMNS, rows=rows, text_columns=2)
