"""The report: one HTML file with what was measured, how good the model is, and what tuning gains.

Everything is computed from the samples and the champion's ONNX file. Held out are shapes that the
model was never trained on, and shapes that were first measured after it was made. What the samples
do not allow is replaced by a sentence that says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coordinator.report import tile_figures
from coordinator.report.advice import Around
from coordinator.report.analysis import HeldOutRows, held_out_rows, predictor_of
from coordinator.report.drawing import MAX_POINTS, TARGET_NAMES
from coordinator.report.first_screen import first_screen
from coordinator.report.language_model import LanguageModelCase, language_model_sections
from coordinator.report.model_sections import (
    error_sections,
    importance_section,
    tile_section,
    tradeoff_section,
)
from coordinator.report.page import Page, PageTable, Picture, Section, render_page
from coordinator.report.scores import methods_text, score_table
from coordinator.report.svg import readable
from coordinator.report.tile_study import (
    BASE_TILE,
    TileGroup,
    group_rows,
    tuned_by_tile,
)
from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.ranking import PROBLEM
from costmodel.progress import Step, no_step
from gemmcast.card import ModelCard
from gemmcast.modeldir import write_atomically
from gemmcast.query import CONTRACT
from gemmcast.rows import Row
from gemmcast.score_table import (
    SPLITS,
    SUMMARY_TARGETS,
    split_rows,
    summary_rows,
)
from registry.registry import PublishedModel, Version

NOTHING_AROUND = Around()
PARTS = 8
"""That are reported as they begin; the language model's is often absent."""
PAPER = "arXiv 2411.16954"
WORKSPACE = "this workspace"
"""The name of the samples in the figures of the tile study."""


def write_report(
    path: Path,
    table: pa.Table,
    champion: PublishedModel | None,
    case: LanguageModelCase | None = None,
    *,
    around: Around = NOTHING_AROUND,
    first_sections: Sequence[Section] = (),
    step: Step = no_step,
) -> None:
    """Write the report of a table of samples, and of the champion if there is one.

    Args:
        path: the HTML file.
        table: the samples.
        champion: the model.
        case: a language model that the report is to price.
        around: what the workspace says besides its samples.
        first_sections: come before all others.
        step: takes each part as it begins, and how many are done of how many.
    """
    with readable():
        write_atomically(path, _page(table, champion, case, around, first_sections, step).encode())


def _page(
    table: pa.Table,
    champion: PublishedModel | None,
    case: LanguageModelCase | None,
    around: Around,
    first_sections: Sequence[Section],
    step: Step,
) -> str:
    parts = _Parts(step)
    parts.begin("samples as queries")
    card = champion.card if champion else None
    usable = training_set(table, card.contract if card else CONTRACT)
    sections = [*first_sections, _measured(usable, table)]
    held = None
    if champion:
        held, of_model = _model_sections(usable, champion, parts)
        sections += of_model
    else:
        text = "No model yet. Its errors and what it has learned are shown here once it exists."
        sections.append(Section(title="The model", texts=[text]))
    if case:
        parts.begin("the language model")
        sections += language_model_sections(case, champion.model if champion else None)
    parts.begin("the paper's figures")
    sections.append(_tile_study(usable))
    failed = len(table) - _count_ok(table)
    page = Page(
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        groups=first_screen(usable, failed, held, card, around),
        sections=sections,
        footer=_footer(card) if card else "",
    )
    parts.begin("writing")
    return render_page(page)


class _Parts:
    """Reports each part of the report as it begins."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._begun = 0

    def begin(self, name: str) -> None:
        """The part before it is over."""
        self._step(name, self._begun, PARTS)
        self._begun += 1


def _model_sections(
    usable: TrainingSet, champion: PublishedModel, parts: _Parts
) -> tuple[HeldOutRows, list[Section]]:
    """The held-out rows, and everything about the model."""
    card = champion.card
    predict = predictor_of(champion.model)
    parts.begin("errors on held-out shapes")
    held = held_out_rows(usable, predict, card)
    sections = [_model(card, champion.version, held), *error_sections(held, card)]
    parts.begin("what the predictions depend on")
    sections.append(importance_section(held, predict))
    parts.begin("effect of the tile")
    sections.append(tile_section(usable, held, predict))
    parts.begin("time against energy")
    sections += [tradeoff_section(usable, held, predict), *_generalisation(card)]
    return held, sections


def _footer(card: ModelCard) -> str:
    return f"SHA-256 {card.sha256} · contract {card.contract} · gemmcast {card.program_version}"


def _count_ok(table: pa.Table) -> int:
    return Counter(table["status"].to_pylist())["ok"]


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


def _model(card: ModelCard, version: Version, held: HeldOutRows) -> Section:
    texts = [
        f"Trained on {card.train_rows:,} rows of {card.train_shapes:,} shapes, tested on "
        f"{card.test_rows:,} rows of {card.test_shapes:,} held-out shapes ({card.split})."
    ]
    if len(held.data) != card.test_rows:
        texts.append(
            f"This table is of the {card.test_rows:,} rows that the model was tested on when it "
            f"was made. The figures above and below are of the {len(held.data):,} held-out rows "
            "in this workspace, and so differ from it."
        )
    latencies = (card.latency_p50_us, card.sklearn_latency_p50_us)
    if None not in latencies and card.parity_max_rel is not None:
        texts.append(
            f"One query took {card.latency_p50_us:.0f} µs in ONNX Runtime and "
            f"{card.sklearn_latency_p50_us:.0f} µs in scikit-learn (median, one thread), on the "
            "machine that trained the model and while it was at work; a quiet one answers faster. "
            f"Their results agree within {card.parity_max_rel:.1e}."
        )
    texts.append(methods_text(card.scores))
    tables = [score_table(card.scores)]
    if card.exam:
        texts.insert(0, f"The first table is of the exam, {card.exam['split']}.")
        tables.insert(0, score_table(card.exam["scores"]))
    return Section(title=f"Model version {version.number}", texts=texts, tables=tables)


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
        "gain of tuning over a baseline; how much of a multiprocessor each tile fills. "
        f"Clouds show at most {MAX_POINTS} points, the same ones each time."
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
