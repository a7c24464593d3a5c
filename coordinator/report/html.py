"""The report: one HTML file with what was measured, how good the model is, and what tuning gains.

Everything is computed from the samples and the champion's ONNX file. Held out are shapes that the
model was never trained on, and shapes that were first measured after it was made. What the samples
do not allow is replaced by a sentence that says why.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coordinator.report import tile_figures
from coordinator.report.analysis import (
    ErrorSummary,
    HeldOutRows,
    held_out_rows,
    interval_coverage,
    predictor_of,
)
from coordinator.report.drawing import TARGET_NAMES
from coordinator.report.language_model import LanguageModelCase, language_model_sections
from coordinator.report.model_sections import (
    SHOWN_TARGETS,
    error_sections,
    importance_section,
    tile_section,
    tradeoff_section,
)
from coordinator.report.page import Headline, PageTable, Picture, Section, render_page
from coordinator.report.tile_study import (
    BASE_TILE,
    TileGroup,
    group_rows,
    tuned_by_tile,
)
from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.ranking import PROBLEM
from gemmcast.card import ModelCard, Scores
from gemmcast.modeldir import write_atomically
from gemmcast.query import CONTRACT
from gemmcast.rows import Row
from gemmcast.score_table import (
    SCORE_COLUMNS,
    SPLITS,
    SUMMARY_TARGETS,
    score_rows,
    split_rows,
    summary_rows,
)
from registry.registry import PublishedModel, Version

PAPER = "arXiv 2411.16954"
WORKSPACE = "this workspace"
"""The name of the samples in the figures of the tile study."""


def write_report(
    path: Path,
    table: pa.Table,
    champion: PublishedModel | None,
    case: LanguageModelCase | None = None,
) -> None:
    """Write the report of a table of samples, and of the champion if there is one.

    Args:
        path: the HTML file.
        table: the samples.
        champion: the model.
        case: a language model that the report is to price.
    """
    contract = champion.card.contract if champion else CONTRACT
    usable = training_set(table, contract)
    headlines = _sample_headlines(usable)
    sections = [_measured(usable, table)]
    footer = ""
    if champion:
        card = champion.card
        predict = predictor_of(champion.model)
        held = held_out_rows(usable, predict, card)
        headlines += _model_headlines(held, card)
        sections += [
            _model(card, champion.version),
            *error_sections(held, card),
            importance_section(held, predict),
            tile_section(usable, held, predict),
            tradeoff_section(usable, held, predict),
            *_generalisation(card),
        ]
        footer = (
            f"SHA-256 {card.sha256} · contract {card.contract} · gemmcast {card.program_version}"
        )
    else:
        text = "No model yet. Its errors and what it has learned are shown here once it exists."
        sections.append(Section(title="The model", texts=[text]))
    if case:
        sections += language_model_sections(case, champion.model if champion else None)
    sections.append(_tile_study(usable))
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_atomically(path, render_page(created, headlines, sections, footer).encode())


def _sample_headlines(data: TrainingSet) -> list[Headline]:
    devices = list(set(data.column("device").tolist()))
    if not devices:
        return []
    shapes = len(set(data.shapes))
    where = devices[0] if len(devices) == 1 else f"{len(devices)} types of device"
    text = f"GEMMs measured, {shapes:,} shapes, {where}"
    return [Headline(number=f"{len(data):,}", text=text)]


def _model_headlines(held: HeldOutRows, card: ModelCard) -> list[Headline]:
    headlines = [_error_headline(held, target) for target in SHOWN_TARGETS]
    nearest = card.scores.get("runtime_us", {}).get("lookup")
    if nearest:
        text = "for comparison: the runtime of the nearest measured shape"
        headlines.append(Headline(number=f"{nearest['median_ape']:.1f} %", text=text))
    within = _tested_coverage(held, card)
    if within is not None:
        text = "of runtimes within 90 % intervals that were calibrated without them"
        headlines.append(Headline(number=f"{within:.0f} %", text=text))
    if card.latency_p50_us is not None:
        headlines.append(Headline(number=f"{card.latency_p50_us:.0f} µs", text="for one query"))
    return [headline for headline in headlines if headline]


def _error_headline(held: HeldOutRows, target: str) -> Headline | None:
    if target not in held.targets:
        return None
    error = ErrorSummary.of(held.errors(target))
    if not error:
        return None
    text = (
        f"median error of predicted {TARGET_NAMES[target]}, held-out shapes ({error.rows:,} GEMMs)"
    )
    return Headline(number=f"{error.median:.1f} %", text=text)


def _tested_coverage(held: HeldOutRows, card: ModelCard) -> float | None:
    """Of runtime, on rows measured later; without such rows, the card's."""
    coverage = interval_coverage(held).get("runtime_us")
    if coverage and coverage.later_within is not None:
        return coverage.later_within
    return card.coverage.get("runtime_us")


def _measured(data: TrainingSet, table: pa.Table) -> Section:
    groups = data.keys("device", "family")
    metered = ~np.isnan(data.measured["power_w"])
    rows = []
    for device, family in sorted(set(groups)):
        members = np.array([group == (device, family) for group in groups])
        shapes = len(set(data.shapes[members]))
        with_power = int(metered[members].sum())
        power = f"{with_power:,}" if with_power else "none"
        rows.append([device, family, f"{members.sum():,}", f"{shapes:,}", power])
    header = ("device", "family", "rows ok", "shapes", "with power")
    return Section(
        title="What was measured",
        texts=[f"Rows that failed: {_failures(table)}."],
        tables=[PageTable(header=header, rows=rows, text_columns=2)],
    )


def _failures(table: pa.Table) -> str:
    """ "3 timeout, 1 crashed", the most frequent first."""
    counts = Counter(table["status"].to_pylist())
    del counts["ok"]
    if not counts:
        return "none"
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def _model(card: ModelCard, version: Version) -> Section:
    texts = [
        f"Trained on {card.train_rows} rows of {card.train_shapes} shapes, tested on "
        f"{card.test_rows} rows of {card.test_shapes} held-out shapes ({card.split})."
    ]
    latencies = (card.latency_p50_us, card.sklearn_latency_p50_us)
    if None not in latencies and card.parity_max_rel is not None:
        texts.append(
            f"One query takes {card.latency_p50_us:.0f} µs in ONNX Runtime and "
            f"{card.sklearn_latency_p50_us:.0f} µs in scikit-learn; their results agree within "
            f"{card.parity_max_rel:.1e}."
        )
    tables = [_score_table(card.scores)]
    if card.exam:
        texts.insert(0, f"The first table is of the exam, {card.exam['split']}.")
        tables.insert(0, _score_table(card.exam["scores"]))
    return Section(title=f"Model version {version.number}", texts=texts, tables=tables)


def _score_table(scores: Scores) -> PageTable:
    return PageTable(header=SCORE_COLUMNS, rows=score_rows(scores), text_columns=2)


def _generalisation(card: ModelCard) -> list[Section]:
    """One section, or none for a card without these scores."""
    if not card.generalisation:
        return []
    scores = {}
    for name, split in card.generalisation.items():
        if split.get("scores", {}).get("runtime_us"):
            scores[name] = split["scores"]
    errors = [f"{TARGET_NAMES[target]}, %" for target in SUMMARY_TARGETS]
    header = ["left out", *errors, "rows"]
    text = (
        "Median / mean error in per cent if more than the shape is new. Each row is scored by a "
        "smaller model that was trained without it."
    )
    table = PageTable(header=header, rows=summary_rows(scores))
    generalisation = Section(title="Generalisation", texts=[text], tables=[table])
    return [generalisation, *_by_what_is_new(card)]


def _by_what_is_new(card: ModelCard) -> list[Section]:
    """Kinds of kernel on new shapes, layers and algorithms; none for an older card."""
    tables: list[PageTable] = []
    for target in SUMMARY_TARGETS:
        rows = split_rows(card, target)
        header = [TARGET_NAMES[target], *SPLITS.values()]
        if rows:
            tables.append(PageTable(header=header, rows=rows))
    if not tables:
        return []
    text = (
        "Median / mean error in per cent, and in brackets how many measurements lie within the "
        "90 % interval. A layer is an (n, k) at any m. New shapes are predicted by the model "
        "itself, new layers and their algorithms by smaller models."
    )
    return [Section(title="By what is new", texts=[text], tables=tables)]


def _tile_study(data: TrainingSet) -> Section:
    title = f"The paper's figures ({PAPER}) on these samples"
    tiled = data.table.filter(pc.equal(data.table["family"], "tiled"))
    rows = tiled.to_pylist()

    # without the device: groups are of one board anyway
    groups = group_rows(rows, PROBLEM[:-1], _tile_of)
    if not groups:
        text = "The paper's tiled kernel was not measured here with two tiles on one shape."
        return Section(title=title, texts=[text])
    text = (
        f"{len(groups):,} times the same GEMM on the same board with two or more tiles. Time is "
        "that of a short burst, power and energy are of a window of seconds. The figures show: "
        f"each tile over tile {BASE_TILE}; the cost of always taking one tile over the best; the "
        "gain of tuning over a baseline; how much of a multiprocessor each tile fills."
    )
    has_occupancy = any(row["occupancy"] for row in rows)
    return Section(title=title, texts=[text], pictures=_tile_pictures(groups, has_occupancy))


def _tile_of(row: Row) -> int:
    return int(row["tile_m"])


def _tile_pictures(groups: list[TileGroup], has_occupancy: bool) -> list[Picture]:
    tile_groups = {WORKSPACE: groups}
    pictures = []
    if any(BASE_TILE in group for group in groups):
        figure = tile_figures.tiles_by_size(tile_groups)
        pictures.append(Picture.of("Time, power and energy by tile and size", figure))
    figure = tile_figures.balance_by_size(tile_groups)
    pictures.append(Picture.of("What one tile for all costs, by size", figure))
    tuned = tuned_by_tile(tile_groups).get(WORKSPACE, [])
    tuned = [one for one in tuned if one.with_baseline()]
    if tuned:
        figure = tile_figures.best_over_baseline(tuned)
        pictures.append(Picture.of("Best against baseline", figure))
    if has_occupancy:
        figure = tile_figures.occupancy_by_tile(tile_groups)
        pictures.append(Picture.of("Occupancy and shared memory by tile", figure))
    return pictures
