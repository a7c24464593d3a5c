"""One self-contained HTML file: what was measured, how good the model is, where it errs, what it has learned, what tuning is worth.

Everything is reckoned from the samples and the champion's ONNX file; pictures are inside the file. A section that the data don't allow says why
in a sentence. Unseen means held out from training, or of shapes first measured after the model was made.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jinja2 import Environment
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from coordinator.report import figures
from coordinator.report import tile_study as tiles
from coordinator.report.analysis import (
    Ask,
    Error,
    Unseen,
    asker,
    covered,
    error_by_size,
    importances,
    unseen,
)
from coordinator.report.figures import WORDS
from coordinator.report.tradeoffs import MIN_CONFIGS, by_tile, saving, tradeoff
from costmodel.dataset import Dataset, dataset
from costmodel.evaluate.ranking import PROBLEM
from gemmcast.card import ModelCard
from gemmcast.modeldir import write_atomically
from gemmcast.score_table import SCORE_COLUMNS, SUMMARY_TARGETS, score_rows, summary_rows
from registry.registry import Version

TEMPLATE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>gemmcast report</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1040px; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #dde3ea }
th:first-child, td:first-child, .two th:nth-child(2), .two td:nth-child(2) { text-align: left }
tr.strong { font-weight: 600; background: #eef5ff }
img { max-width: 100%; height: auto } h1, h2 { line-height: 1.2 } h2 { margin-top: 2.4rem } .small { color: #5b6b7b; font-size: 13px }
.heads { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0 }
.heads div { flex: 1 1 140px; background: #eef5ff; border-radius: 8px; padding: .7rem 1rem }
.heads b { display: block; font-size: 26px; line-height: 1.25 } .wide { overflow-x: auto }
</style></head><body>
<h1>gemmcast report</h1><p class="small">{{ made }}</p>
<div class="heads">{% for number, word in heads %}<div><b>{{ number }}</b>{{ word }}</div>
{% endfor %}</div>
{% for section in sections %}<h2>{{ section.title }}</h2>
{% for text in section.texts %}<p>{{ text }}</p>
{% endfor %}{% for table in section.tables %}<div class="wide"><table{% if table.left == 2 %} class="two"{% endif %}><tr>
{%- for name in table.header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr{% if "model" in row[:2] %} class="strong"{% endif %}>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% endfor %}{% for alt, picture in section.pictures %}<p><img alt="{{ alt }}" src="data:image/png;base64,{{ picture }}"></p>
{% endfor %}{% endfor %}
{% if card %}<p class="small">SHA-256 {{ card.sha256 }} · contract {{ card.contract }} · gemmcast {{ card.program_version }}</p>{% endif %}
</body></html>
"""
PAPER = "arXiv 2411.16954"
HERE = "this workspace"
DPI = 110
WORDS_OF_BRIEF = tuple(f"{WORDS[target]}, %" for target in SUMMARY_TARGETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    left: int = 1
    # columns of words, 1 or 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    title: str
    texts: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: list[tuple[str, str]] = field(default_factory=list)
    # words for who can't see it, PNG in base64


def write_report(path: Path, table: pa.Table, champion: tuple[bytes, ModelCard, Version] | None) -> None:
    """Args: table of samples; the champion's model, card and version, if there is one."""
    usable = dataset(table)
    heads, sections = _measured_heads(usable), [_measured(usable, table)]
    if champion:
        model, card, version = champion
        ask = asker(model)
        seen = unseen(usable, ask, card)
        heads += _model_heads(seen, card)
        sections += [_model(card, version), *_errors(seen, card), _importance(seen, ask), _tile(usable, seen, ask), _tradeoff(usable, seen, ask)]
        sections += [_beyond(card)] if card.generalisation else []
    else:
        sections.append(
            Section(title="The model", texts=["No model yet. What a model errs by, and what it has learned, stands here once there is one."])
        )
    sections.append(_paper(usable))
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    values = {"made": made, "heads": heads, "sections": sections, "card": champion[1] if champion else None}
    write_atomically(path, Environment(autoescape=True).from_string(TEMPLATE).render(values).encode())


# The first screen


def _measured_heads(data: Dataset) -> list[tuple[str, str]]:
    devices = sorted(set(data.column("device").tolist()))
    on = devices[0] if len(devices) == 1 else f"{len(devices)} types of device"
    return [(f"{len(data):,}", f"GEMMs measured, {len(set(data.shapes)):,} shapes, {on}")] if devices else []


def _model_heads(seen: Unseen, card: ModelCard) -> list[tuple[str, str]]:
    heads = []
    for target in ("runtime_us", "power_w", "energy_mj"):
        error = Error.of(seen.errors(target)) if target in seen.targets else None
        if error:
            of = "shapes never seen" if target == "runtime_us" else "the same"
            heads.append((f"{error.median:.1f} %", f"median error of predicted {WORDS[target]}, {of} ({error.rows:,} GEMMs)"))
    nearest = card.scores.get("runtime_us", {}).get("lookup")
    if nearest:
        heads.append((f"{nearest['median_ape']:.1f} %", "for comparison: the runtime of the nearest measured shape"))
    here = covered(seen).get("runtime_us")
    within = here.later_within if here and here.later_within is not None else card.coverage.get("runtime_us")
    if within is not None:
        heads.append((f"{within:.0f} %", "of runtimes within the model's 90 % intervals, which knew nothing of them"))
    if card.latency_p50_us is not None:
        heads.append((f"{card.latency_p50_us:.0f} µs", "for one prediction"))
    return heads


# What was measured, and the model's card


def _measured(data: Dataset, table: pa.Table) -> Section:
    groups = list(zip(data.column("device"), data.column("family"), strict=True))
    power = ~np.isnan(data.measured["power_w"])
    rows = []
    for group in sorted(set(groups)):
        here = np.array([other == group for other in groups])
        rows.append((*group, f"{here.sum():,}", f"{len(set(data.shapes[here])):,}", f"{power[here].sum():,}" if power[here].any() else "none"))
    failed = Counter(status for status in table["status"].to_pylist() if status != "ok")
    text = "Rows that failed: " + (", ".join(f"{count} {status}" for status, count in failed.most_common()) or "none") + "."
    return Section(
        title="What was measured",
        texts=[text],
        tables=[Table(header=("device", "family", "rows ok", "shapes", "with power"), rows=rows, left=2)],
    )


def _model(card: ModelCard, version: Version) -> Section:
    trained = (
        f"Trained on {card.train_rows} rows of {card.train_shapes} shapes, tested on {card.test_rows} rows of {card.test_shapes} shapes "
        f"that it never saw ({card.split})."
    )
    texts = [trained]
    if card.latency_p50_us is not None and card.sklearn_latency_p50_us is not None and card.parity_max_rel is not None:
        texts.append(
            f"One question: {card.latency_p50_us:.0f} µs through ONNX Runtime, {card.sklearn_latency_p50_us:.0f} µs through scikit-learn; "
            f"they agree within {card.parity_max_rel:.1e}."
        )
    header = SCORE_COLUMNS
    return Section(title=f"Model version {version.number}", texts=texts, tables=[Table(header=header, rows=score_rows(card.scores), left=2)])


def _beyond(card: ModelCard) -> Section:
    header = ("never seen", *WORDS_OF_BRIEF, "rows")
    named = {name: of["scores"] for name, of in card.generalisation.items() if of.get("scores", {}).get("runtime_us")}
    text = "Median / mean error in per cent where more than the shape is new, by a stand-in of the model that was taught without it."
    return Section(title="Beyond new shapes", texts=[text], tables=[Table(header=header, rows=summary_rows(named))])


# Where it errs


def _errors(seen: Unseen, card: ModelCard) -> list[Section]:
    if not len(seen.data):
        return [Section(title="Errors on shapes never seen", texts=["Every row here is of a shape that the model was trained on."])]
    shapes = f"{len(seen.data):,} rows of {len(set(seen.data.shapes)):,} shapes, {int(seen.later.sum()):,} of them measured after the model was made."
    scatter = Section(
        title="Predicted and measured, shapes never seen",
        texts=[shapes],
        pictures=[_picture("Predicted against measured, one panel a target", figures.predicted_and_measured(seen))],
    )
    return [scatter, _by_size(seen), _intervals(seen, card)]


def _by_size(seen: Unseen) -> Section:
    found = error_by_size(seen)
    families = ["all", *sorted({family for of in found.values() for family in of} - {"all"})]
    families = families[1:] if len(families) == 2 else families
    rows = [(figures.decade_name(decade), *(_error(of.get(family)) for family in families)) for decade, of in found.items()]
    return Section(
        title="Error of runtime by size, shapes never seen",
        texts=["Median / 90th percentile of the absolute error in per cent; in brackets the rows."],
        tables=[Table(header=("size", *families), rows=rows)],
        pictures=[_picture("Error of runtime by size", figures.error_by_size(seen, found))],
    )


def _error(error: Error | None) -> str:
    return f"{error.median:.1f} / {error.p90:.1f} ({error.rows:,})" if error else "–"


def _intervals(seen: Unseen, card: ModelCard) -> Section:
    found, title = covered(seen), "Do the 90 % intervals hold?"
    if not found:
        return Section(title=title, texts=["This model gives no intervals."])
    rows = [
        (WORDS[target], f"{one.rows:,}", _share(one.within), _share(card.coverage.get(target)), f"{_share(one.later_within)} ({one.later_rows:,})",
         f"{one.factor:.2f}", f"{_share(one.flagged_within)} ({one.flagged:,})")
        for target, one in found.items()
    ]  # fmt: skip
    texts = [
        "How many measurements lie within, in per cent. The intervals are calibrated on the held-out shapes, so those fit by construction. "
        "Two columns are tests: the model's card, where one half of the held-out shapes was calibrated on the other, and rows measured after "
        "the model was made. A typical interval goes from predicted ÷ factor to predicted × factor. At the end are the rows that the model "
        "flags as outside of what it was taught: there the intervals promise nothing."
    ]
    header = ("target", "rows", "within, %", "by the card, %", "later rows, % (rows)", "factor", "flagged, % (rows)")
    return Section(title=title, texts=texts, tables=[Table(header=header, rows=rows)])


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


# What it has learned


def _importance(seen: Unseen, ask: Ask) -> Section:
    title = "What the predictions hang on"
    found = importances(seen, ask) if len(seen.data) else []
    if not found:
        return Section(title=title, texts=["There are no unseen rows that differ in any part of the question."])
    targets = [target for target in ("runtime_us", "power_w", "energy_mj") if target in found[0].rises]
    text = (
        "One part of every unseen question is exchanged with that of another row; the bar says by how many percentage points the mean absolute "
        "error rises. Kernel settings are exchanged within a family only. The axis is logarithmic above 1. Parts that go together (a GEMM's size "
        "and its tile) share what they tell."
    )
    return Section(title=title, texts=[text], pictures=[_picture("Rise of the error by shuffled part", figures.importance(found, targets))])


def _tile(data: Dataset, seen: Unseen, ask: Ask) -> Section:
    title = "What the tile does"
    found = by_tile(data, seen.data, ask)
    if not found or not found.dependences:
        return Section(title=title, texts=["No kernel family here was measured with two tiles."])
    text = (
        f"Partial dependence for the {found.family} kernel on {found.device}: every problem is asked with every tile, over its own geometric "
        "mean, and averaged. Below 1 is less than the average tile. Measured values are averaged the same way over the tiles that were "
        "measured. Where fewer than ten problems are unseen, all stand in the picture, those of the training too."
    )
    return Section(title=title, texts=[text], pictures=[_picture("Runtime and power by tile", figures.by_tile(found))])


def _tradeoff(data: Dataset, seen: Unseen, ask: Ask) -> Section:
    title = "Time against energy"
    if np.isnan(data.measured["energy_mj"]).all():
        return Section(title=title, texts=["No power was measured here, so there is no energy to set against time."])
    found = tradeoff(data, seen.data, ask)
    if not found:
        why = (
            f"No problem has {MIN_CONFIGS} configurations with energy (a plan's power_share says how many are metered), or the model knows no energy."
        )
        return Section(title=title, texts=[why])
    number = {at: str(i) for i, at in enumerate(found.front.tolist(), 1)}
    ours = set(found.predicted_front.tolist())
    power_w = 1e3 * found.energy_mj / found.time_us
    columns = [found.time_us, found.energy_mj, power_w, found.predicted_time_us, found.predicted_energy_mj]
    rows = [
        (number.get(at, ""), found.names[at], *(f"{column[at]:.4g}" for column in columns), "yes" if at in ours else "")
        for at in np.argsort(found.time_us).tolist()
    ]
    header = ("front", "configuration", "runtime, µs", "energy, mJ", "power, W", "predicted, µs", "predicted, mJ", "on the model's front")
    fastest, cheapest = found.front[0], found.front[-1]
    both = f"{found.names[fastest]} is the fastest" + (
        " and cheapest in energy." if fastest == cheapest else f", {found.names[cheapest]} the cheapest in energy."
    )
    how = "never seen by the model" if found.unseen else "in the training data as well: no unseen one has enough"
    texts = [f"{found.problem}, the problem with the most metered configurations ({how}). {both}", *_saved(data)]
    return Section(
        title=title,
        texts=texts,
        tables=[Table(header=header, rows=rows, left=2)],
        pictures=[_picture("Measured runtime against energy of every configuration", figures.time_and_energy(found))],
    )


def _saved(data: Dataset) -> list[str]:
    found = saving(data)
    if not found:
        return []
    gain = f"; the cheapest then saves {found.saved:.1f} % of the energy and takes {found.slower:.1f} % longer (medians)" if found.differ else ""
    return [
        f"Of {found.problems:,} problems with {MIN_CONFIGS} or more metered configurations, {found.differ:,} have a configuration that is cheaper in "
        f"energy than the fastest{gain}."
    ]


# The paper's figures


def _paper(data: Dataset) -> Section:
    title = f"The paper's figures ({PAPER}) on these samples"
    rows = tiles.where(data.table.to_pylist(), family="tiled")
    found = {HERE: tiles.groups(rows, PROBLEM[:-1], lambda row: row["tile_m"])}
    if not found[HERE]:
        return Section(title=title, texts=["The paper's tiled kernel was not measured here with two tiles on one shape."])
    tuned = [one for of in tiles.tuned_by_tile(found).values() for one in of if any(one.base(group) for group in one.found)]
    pictures = [_picture("Time, power and energy by tile and size", figures.tiles_by_size(found))] if _has_base(found) else []
    pictures.append(_picture("What one tile for all costs, by size", figures.balance_by_size(found)))
    pictures += [_picture("Best against baseline", figures.best_over_baseline(tuned))] if tuned else []
    if any(row["occupancy"] for row in rows):
        pictures.append(_picture("Occupancy and shared memory by tile", figures.occupancy_by_tile(found)))
    text = (
        f"{len(found[HERE]):,} times the same GEMM on the same board with two or more tiles. Time is that of a short burst, power and energy are of "
        f"a window of seconds. First, each tile over tile {tiles.BASE_TILE}; then what always taking one tile costs over the best; then what "
        "tuning gains over a baseline; last, how much of a multiprocessor each tile fills."
    )
    return Section(title=title, texts=[text], pictures=pictures)


def _has_base(found: tiles.Tiled) -> bool:
    return any(tiles.BASE_TILE in group for of in found.values() for group in of)


def _picture(alt: str, figure: Figure) -> tuple[str, str]:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    plt.close(figure)
    return alt, base64.b64encode(data.getvalue()).decode()
