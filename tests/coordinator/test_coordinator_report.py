"""The report is one file that needs no other, and what it says is what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from coordinator.report.analysis import (
    ErrorSummary,
    HeldOutRows,
    error_by_size,
    held_out_rows,
    interval_coverage,
)
from coordinator.report.html import write_report
from coordinator.report.importance import importances
from coordinator.report.partial_dependence import dependence_on_tile, tile_effects
from coordinator.report.scores import methods_text, score_table
from coordinator.report.tradeoffs import energy_saving, pareto, tradeoff
from costmodel.dataset import TrainingSet, Values, held_out, training_set
from costmodel.train import TrainedModel
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.query import AT, Rows
from gemmcast.rows import Row
from registry.registry import PublishedModel, Version

SECTIONS = (
    "What was measured",
    "Predicted and measured on held-out shapes",
    "Error of runtime by size on held-out shapes",
    "Do the 90 % intervals hold?",
    "What the predictions depend on",
    "Effect of the tile",
    "Time against energy",
    "The paper's figures",
)
LATER = "2099-01-01T00:00:00.000+00:00"
Predicted = Mapping[str, npt.NDArray[np.floating]]
Measure = Callable[..., Row]


def _champion(candidate: TrainedModel) -> PublishedModel:
    version = Version(
        number="4",
        sha256=candidate.card.sha256,
        created_at="2026-01-01T00:00:00+00:00",
        aliases=("champion",),
        status="champion",
        rows=300,
    )
    return PublishedModel(model=candidate.model, card=candidate.card, version=version)


class _Page(HTMLParser):
    """Tags that are open, what attributes point to, figures with their panels, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.pictures: list[list[str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag, its name, and what it points to."""
        values = {name: value or "" for name, value in attrs}
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)
        if tag == "figure":
            self.pictures.append([])
        if tag == "svg":
            self.pictures[-1].append(values["aria-label"])
        if "id" in values:
            self.ids.append(values["id"])
        self.links += [values[name] for name in ("src", "href") if name in values]
        self.links += re.findall(r"url\(([^)]+)\)", " ".join(values.values()))

    def handle_endtag(self, tag: str) -> None:
        """Tags are closed in the order in which they were opened."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        self.text += data + " "

    def leads_out(self) -> set[str]:
        """What points to neither a part of the page nor to its empty icon."""
        inside = {f"#{name}" for name in self.ids}
        return set(self.links) - inside - {"data:,"}


def _page(path: Path, table: pa.Table, champion: PublishedModel | None) -> _Page:
    """The report, once it is proven that it needs no other file."""
    write_report(path, table, champion)
    html = path.read_text()
    for forbidden in ("http://", "https://", "<script", "@import", "<img"):
        assert forbidden not in html
    page = _Page(html)
    assert page.open == []
    assert page.leads_out() == set()
    assert len(set(page.ids)) == len(page.ids)
    return page


def _missing(words: tuple[str, ...], page: _Page) -> list[str]:
    return [word for word in words if word not in page.text]


def test_scores_begin_with_the_runtime_and_say_what_their_methods_are(
    candidate: TrainedModel,
) -> None:
    scores = candidate.card.scores
    backwards = dict(reversed(scores.items()))
    for one in (scores, backwards):
        targets = [row[0] for row in score_table(one).rows]
        assert list(dict.fromkeys(targets)) == ["runtime", "throughput"]
    text = methods_text(scores)
    assert "lookup is the nearest measured shape" in text
    assert "by_name" not in text


def test_a_report_of_a_model_has_everything_inside(
    tmp_path: Path, cpu_samples: pa.Table, candidate: TrainedModel
) -> None:
    page = _page(tmp_path / "report.html", cpu_samples, _champion(candidate))

    # predicted and measured, the error by size, what the predictions depend on
    assert len(page.pictures) == 3
    predicted, by_size, _ = page.pictures
    assert predicted == [
        "Predicted against measured: runtime, µs",
        "Predicted against measured: throughput, TFLOP/s",
    ]
    assert len(by_size) == 2
    words = (
        "Paper CPU (2 cores)",
        "blas",
        "300",
        "100",
        "Model version 4",
        "model",
        "lookup",
        "roofline",
        "paper_forest",
        candidate.card.sha256,
        *SECTIONS,
        "By what is new",
        "new layer, algorithm",
        "No kernel family here was measured with two tiles.",
        "No power was measured here",
        "The paper's tiled kernel was not measured here",
        "Rows that failed: none.",
    )
    assert _missing(words, page) == []
    card = candidate.card
    trained = f"Trained on {card.train_rows} rows of {card.train_shapes} shapes"
    tested = f"tested on {card.test_rows} rows of {card.test_shapes}"
    assert f"{trained}, {tested}" in page.text


def test_power_has_pictures_where_it_was_measured(
    tmp_path: Path, power_samples: pa.Table, power_candidate: TrainedModel
) -> None:
    page = _page(tmp_path / "report.html", power_samples, _champion(power_candidate))

    # and by tile, time against energy, and three of the paper's
    assert len(page.pictures) == 8
    words = (
        "sustained runtime",
        "power",
        "energy",
        "throughput",
        "tiled",
        "cublas",
        "on the model's front",
        "the fastest",
        *SECTIONS,
    )
    assert _missing(words, page) == []
    assert "No power" not in page.text
    assert "was not measured here" not in page.text


def test_without_a_model_it_shows_what_was_measured(
    tmp_path: Path,
    cpu_samples: pa.Table,
    cpu_cells: list[Cell],
    cpu: Device,
    measure: Measure,
) -> None:
    failed = [
        measure(replace(cell, repeat=9), cpu, status="timeout", reason="ran longer")
        for cell in cpu_cells[:3]
    ]
    table = pa.concat_tables([cpu_samples, to_table(failed)])
    page = _page(tmp_path / "report.html", table, None)
    assert "No model yet." in page.text
    assert "Rows that failed: 3 timeout." in page.text
    assert page.pictures == []


def test_a_store_without_a_good_row_has_a_report_too(tmp_path: Path) -> None:
    page = _page(tmp_path / "report.html", SCHEMA.empty_table(), None)
    assert "No model yet." in page.text


def test_names_from_outside_stay_text(
    tmp_path: Path, cpu_cells: list[Cell], cpu: Device, measure: Measure
) -> None:
    hostile = replace(cpu, name="<img src=x> & Sons")
    rows = [measure(cell, hostile) for cell in cpu_cells[:3]]
    page = _page(tmp_path / "report.html", to_table(rows), None)
    assert "<img src=x> & Sons" in page.text


def test_shapes_first_measured_after_the_model_was_made_are_held_out(
    tmp_path: Path,
    cpu_samples: pa.Table,
    candidate: TrainedModel,
    cpu_cells: list[Cell],
    cpu: Device,
    measure: Measure,
) -> None:
    champion = _champion(candidate)
    later = to_table([measure(cell, cpu, measured_at=LATER) for cell in cpu_cells[:30]])
    assert len(_page(tmp_path / "later.html", later, champion).pictures) == 3
    nothing = cpu_samples.slice(0, 0)
    assert len(_page(tmp_path / "none.html", nothing, champion).pictures) == 0


@pytest.mark.parametrize("name", ["report.html", "deep/below/report.html"])
def test_it_is_written_whole_and_to_the_given_path(
    tmp_path: Path, cpu_samples: pa.Table, name: str
) -> None:
    path = tmp_path / name
    for _ in range(2):
        write_report(path, cpu_samples, None)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_model_without_power_has_a_report_of_what_it_predicts(
    tmp_path: Path, power_samples: pa.Table, candidate: TrainedModel
) -> None:
    page = _page(tmp_path / "old.html", power_samples, _champion(candidate))
    assert "or the model predicts no energy" in page.text
    assert _missing(SECTIONS, page) == []


def test_power_without_a_model_has_the_papers_figures(
    tmp_path: Path, power_samples: pa.Table
) -> None:
    page = _page(tmp_path / "none.html", power_samples, None)
    assert "No model yet." in page.text
    assert len(page.pictures) == 3


def test_the_first_screen_says_how_good_the_model_is(
    tmp_path: Path, power_samples: pa.Table, power_candidate: TrainedModel
) -> None:
    page = _page(tmp_path / "report.html", power_samples, _champion(power_candidate))
    first_screen = page.text.partition("What did I measure?")[0]
    scores = power_candidate.card.scores
    for target in ("runtime_us", "power_w", "energy_mj"):
        assert f"{scores[target]['model']['median_ape']:.1f} %" in first_screen
    assert f"{scores['runtime_us']['lookup']['median_ape']:.1f} %" in first_screen
    measured = page.text.partition("What did I measure?")[2].partition("What was measured")[0]
    assert "240" in measured


def test_an_exam_is_the_first_table_of_the_model(
    tmp_path: Path, power_samples: pa.Table, power_candidate: TrainedModel
) -> None:
    page = _page(tmp_path / "report.html", power_samples, _champion(power_candidate))
    text, of_exam, of_held_out = page.text.partition("Model version")[2].split("median %")[:3]
    card = power_candidate.card
    assert f"of the exam, {card.exam['split']}" in text
    for table, scores in ((of_exam, card.exam["scores"]), (of_held_out, card.scores)):
        assert f"{scores['power_w']['model']['median_ape']:.1f}" in table


# Errors, intervals, importance


def _runtime_is_m(queries: Rows) -> Predicted:
    """A model in which only m matters."""
    m = queries[:, AT["m"]].astype(np.float64)
    return {
        "runtime_us": m,
        "low": np.stack([0.9 * m], axis=1),
        "high": np.stack([1.1 * m], axis=1),
        "extrapolating": (m > 900).astype(np.float64),
    }


def _with_runtime(data: TrainingSet, runtime_us: npt.ArrayLike) -> TrainingSet:
    measured = np.asarray(runtime_us, dtype=np.float64)
    return replace(data, measured=data.measured | {"runtime_us": measured})


def _held(data: TrainingSet, runtime_us: npt.ArrayLike) -> HeldOutRows:
    data = _with_runtime(data, runtime_us)
    return HeldOutRows(
        data=data,
        predictions=_runtime_is_m(data.queries),
        measured_later=np.zeros(len(data), dtype=bool),
        targets=("runtime_us",),
    )


def test_only_what_the_prediction_depends_on_is_important(cpu_samples: pa.Table) -> None:
    data = training_set(cpu_samples)
    first, *others = importances(_held(data, data.column("m")), _runtime_is_m)
    assert first.name == "m"
    assert first.rises["runtime_us"] > 100

    # dtype and the like never vary here
    assert {one.name for one in others} == {"n", "k", "threads", "cache block"}
    assert [one.rises for one in others] == [{"runtime_us": 0.0}] * 4


def test_a_shuffled_query_is_a_possible_query(cpu_samples: pa.Table) -> None:
    data = training_set(cpu_samples)
    batches: list[Rows] = []

    def predict(queries: Rows) -> Predicted:
        batches.append(queries)
        return _runtime_is_m(queries)

    importances(_held(data, data.column("m")), predict)
    queries = np.concatenate(batches)
    units_and_peak = [AT["active_units"], AT["peak_tflops"]]
    expected = np.unique(data.queries[:, units_and_peak], axis=0)
    assert (np.unique(queries[:, units_and_peak], axis=0) == expected).all()
    known_tiles = set(data.column("tile_m").tolist()) - {0}
    tiles = queries[:, AT["tile_m"]]
    assert (np.isin(tiles, list(known_tiles)) | (tiles == queries[:, AT["m"]])).all()


def test_errors_by_size_count_every_row(cpu_samples: pa.Table) -> None:
    data = training_set(cpu_samples)
    errors = error_by_size(_held(data, data.column("m")))
    assert sum(by_family["all"].rows for by_family in errors.values()) == len(data)
    for by_family in errors.values():
        assert set(by_family) == {"all", "blas"}


def test_interval_coverage_counts_rows_within(cpu_samples: pa.Table) -> None:
    data = training_set(cpu_samples)
    m = data.column("m")
    held = _held(data, np.where(m > 500, m / 1.2, m))
    coverage = interval_coverage(held)["runtime_us"]
    assert coverage.within == pytest.approx(100 * np.mean(m <= 500))
    assert coverage.factor == pytest.approx((1.1 / 0.9) ** 0.5)
    assert (coverage.flagged, coverage.flagged_within) == (np.sum(m > 900), 0.0)
    assert (coverage.later_rows, coverage.later_within) == (0, None)


def test_an_error_summary_leaves_out_what_was_not_measured() -> None:
    errors = np.array([-10.0, 20.0, 30.0, np.nan])
    assert ErrorSummary.of(errors) == ErrorSummary(rows=3, median=20.0, p90=28.0)


def test_later_rows_of_shapes_that_were_trained_on_are_not_held_out(
    cpu_samples: pa.Table, candidate: TrainedModel
) -> None:
    place = cpu_samples.column_names.index("measured_at")
    moments = pa.array(["2099-01-01"] * len(cpu_samples))
    again = cpu_samples.set_column(place, "measured_at", moments).cast(cpu_samples.schema)
    data = training_set(pa.concat_tables([cpu_samples, again]))
    held = held_out_rows(data, _runtime_is_m, candidate.card)
    expected = held_out(data.shapes, candidate.card.holdout).sum()
    assert len(held.data) == expected < len(data)


# Tiles, time and energy


def test_the_front_is_what_nothing_beats_in_both() -> None:
    time = np.array([5.0, 1.0, 2.0, 2.0, 3.0, 4.0, 1.0])
    energy = np.array([1.0, 9.0, 6.0, 5.0, 5.0, 2.0, 8.0])
    assert pareto(time, energy).tolist() == [6, 3, 5, 0]
    assert pareto(np.array([2.0, 2.0]), np.array([3.0, 3.0])).tolist() == [0]


def test_tiles_are_compared_where_problems_lack_some() -> None:
    """log = effect of the problem + effect of the tile, with holes: the tiles' part comes back."""
    by_problem = np.array([1.0, 5.0, -2.0])
    by_tile = np.array([0.3, -0.1, -0.2])
    measured = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 1)]
    problems, tiles = np.array(measured).T
    effects, used = tile_effects(problems, tiles, by_problem[problems] + by_tile[tiles], 4)
    assert effects[:3] == pytest.approx(by_tile)
    assert np.isnan(effects[3])
    assert used.tolist() == [0, 1]


def _tile_law(queries: Rows) -> Values:
    """runtime = n / sqrt(tile)"""
    tiles = queries[:, AT["tile_m"]].astype(np.float64)
    return np.asarray(queries[:, AT["n"]] * tiles**-0.5, dtype=np.float64)


def test_partial_dependence_is_that_of_a_known_law(power_samples: pa.Table) -> None:
    """For tiles 8, 16, 32 the law is sqrt 2, 1, sqrt 1/2 over its mean, whatever the shape."""
    data = training_set(power_samples)
    data = _with_runtime(data, _tile_law(data.queries))
    known_threads = set(data.queries[:, AT["threads"]])

    def predict(queries: Rows) -> Predicted:
        assert set(queries[:, AT["threads"]]) <= known_threads
        return {"runtime_us": _tile_law(queries)}

    held = data.take(held_out(data.shapes, 0.3))
    family = dependence_on_tile(data, held, predict)
    assert family
    assert family.family == "tiled"
    assert family.tiles == [(8, 8, 8), (16, 16, 16), (32, 32, 32)]

    # no power: the model predicts none
    (dependence,) = family.dependences
    assert dependence.held_out
    assert dependence.measured is not None
    expected = pytest.approx([2**0.5, 1, 0.5**0.5])
    assert dependence.predicted == expected
    assert dependence.low == expected
    assert dependence.high == expected
    assert dependence.measured == expected


def test_a_tile_of_another_device_is_no_tile_of_this_one(
    power_samples: pa.Table, gpu: Device
) -> None:
    """The tiles are those of the most frequent device."""
    rows = [row for row in power_samples.to_pylist() if row["family"] == "tiled"]
    for row in rows[:10]:
        row["device"] = "another"
        row["tile_m"] = row["tile_n"] = row["tile_k"] = 64
    data = training_set(to_table(rows))
    family = dependence_on_tile(data, data, lambda queries: {"runtime_us": _tile_law(queries)})
    assert family
    assert family.device == gpu.name
    assert [tile[0] for tile in family.tiles] == [8, 16, 32]


def _perfect(data: TrainingSet) -> Callable[[Rows], Predicted]:
    """A model that predicts what was measured."""

    def predict(queries: Rows) -> Predicted:
        rows = [int(np.flatnonzero((data.queries == query).all(axis=1))[0]) for query in queries]
        names = ("sustained_runtime_us", "energy_mj")
        return {name: data.measured[name][rows] for name in names}

    return predict


def test_time_against_energy_is_of_a_held_out_problem(power_samples: pa.Table) -> None:
    data = training_set(power_samples)
    held = data.take(held_out(data.shapes, 0.3))
    result = tradeoff(data, held, _perfect(data))
    assert result
    assert result.held_out
    assert len(result.names) == 3
    assert result.front.tolist() == result.predicted_front.tolist()


def test_time_against_energy_falls_back_to_the_training_data(power_samples: pa.Table) -> None:
    data = training_set(power_samples)
    one_row = data.take(np.array([0]))
    result = tradeoff(data, one_row, _perfect(data))
    assert result
    assert not result.held_out


def test_time_against_energy_needs_a_model_with_energy(power_samples: pa.Table) -> None:
    data = training_set(power_samples)
    assert tradeoff(data, data, lambda queries: {"runtime_us": np.ones(len(queries))}) is None


def test_the_saving_is_over_all_problems(power_samples: pa.Table) -> None:
    saving = energy_saving(training_set(power_samples))
    assert saving
    assert saving.problems == 60
    assert 0 <= saving.differ <= 60
    assert saving.differ == 0 or saving.saved > 0
