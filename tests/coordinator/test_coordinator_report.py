"""The report is one file that needs no other: no links, pictures inside, and what it says is what was measured."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coordinator.report.analysis import Error, Unseen, covered, error_by_size, importances, unseen
from coordinator.report.html import write_report
from coordinator.report.tradeoffs import by_tile, pareto, saving, tile_effects, tradeoff
from costmodel.dataset import Dataset, dataset, held_out
from costmodel.train import Candidate
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.card import ModelCard
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.query import AT
from registry.registry import Version

SECTIONS = (
    "What was measured",
    "Predicted and measured, shapes never seen",
    "Error of runtime by size",
    "Do the 90 % intervals hold?",
    "What the predictions hang on",
    "What the tile does",
    "Time against energy",
    "The paper's figures",
)
Champion = tuple[bytes, ModelCard, Version]


def _champion(candidate: Candidate) -> Champion:
    version = Version(
        number="4", sha256=candidate.card.sha256, created_at="2026-01-01T00:00:00+00:00", aliases=("champion",), status="champion", rows=300
    )
    return candidate.model, candidate.card, version


class _Page(HTMLParser):
    """Tags that are open, attributes that lead somewhere, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.pictures: list[bytes] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                assert value
                if found := re.fullmatch(r"data:image/png;base64,(.+)", value):
                    self.pictures.append(base64.b64decode(found[1], validate=True))
                else:
                    self.links.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def _page(path: Path, table: pa.Table, champion: Champion | None) -> _Page:
    write_report(path, table, champion)
    html = path.read_text()
    assert "http://" not in html and "https://" not in html and "<script" not in html and "@import" not in html
    page = _Page(html)
    assert (page.open, page.links) == ([], [])
    return page


def test_a_report_of_a_model_has_everything_inside(tmp_path: Path, cpu_samples: pa.Table, candidate: Candidate) -> None:
    page = _page(tmp_path / "report.html", cpu_samples, _champion(candidate))
    assert len(page.pictures) == 3  # predicted and measured, the error by size, what predictions hang on
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 5000 for picture in page.pictures)
    for word in (
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
        "No kernel family here was measured with two tiles.",
        "No power was measured here",
        "The paper's tiled kernel was not measured here",
    ):
        assert word in page.text
    assert "Rows that failed: none." in page.text
    card = candidate.card
    assert f"Trained on {card.train_rows} rows of {card.train_shapes} shapes, tested on {card.test_rows} rows of {card.test_shapes}" in page.text


def test_power_has_pictures_where_it_was_read(tmp_path: Path, power_samples: pa.Table, power_candidate: Candidate) -> None:
    page = _page(tmp_path / "report.html", power_samples, _champion(power_candidate))
    assert len(page.pictures) == 8  # and by tile, time against energy, and three of the paper's
    for word in ("sustained runtime", "power", "energy", "throughput", "tiled", "cublas", "on the model's front", "the fastest", *SECTIONS):
        assert word in page.text
    assert "No power" not in page.text and "was not measured here" not in page.text


def test_without_a_model_it_shows_what_was_measured(
    tmp_path: Path, cpu_samples: pa.Table, cpu_cells: list[Cell], cpu: Device, measure: Callable[..., dict[str, Any]]
) -> None:
    failed = to_table([measure(replace(cell, repeat=9), cpu, status="timeout", reason="ran longer") for cell in cpu_cells[:3]])
    page = _page(tmp_path / "report.html", pa.concat_tables([cpu_samples, failed]), None)
    assert "No model yet." in page.text
    assert "Rows that failed: 3 timeout." in page.text
    assert page.pictures == []


def test_a_store_without_a_good_row_has_a_report_too(tmp_path: Path) -> None:
    assert "No model yet." in _page(tmp_path / "report.html", SCHEMA.empty_table(), None).text


def test_names_from_outside_stay_text(tmp_path: Path, cpu_cells: list[Cell], cpu: Device, measure: Callable[..., dict[str, Any]]) -> None:
    rows = [measure(cell, replace(cpu, name="<img src=x> & Sons")) for cell in cpu_cells[:3]]
    assert "<img src=x> & Sons" in _page(tmp_path / "report.html", to_table(rows), None).text


def test_rows_measured_after_the_model_was_made_are_unseen(
    tmp_path: Path, cpu_samples: pa.Table, candidate: Candidate, cpu_cells: list[Cell], cpu: Device, measure: Callable[..., dict[str, Any]]
) -> None:
    only_trained = cpu_samples.filter(pa.array([False] * len(cpu_samples)))
    later = to_table([measure(cell, cpu, measured_at="2099-01-01T00:00:00.000+00:00") for cell in cpu_cells[:30]])
    assert len(_page(tmp_path / "later.html", later, _champion(candidate)).pictures) == 3
    assert len(_page(tmp_path / "none.html", only_trained, _champion(candidate)).pictures) == 0


@pytest.mark.parametrize("name", ["report.html", "deep/below/report.html"])
def test_it_is_written_whole_and_where_it_was_asked_for(tmp_path: Path, cpu_samples: pa.Table, name: str) -> None:
    path = tmp_path / name
    for _ in range(2):
        write_report(path, cpu_samples, None)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_a_model_that_cannot_be_asked_about_power_is_not(
    tmp_path: Path, power_samples: pa.Table, candidate: Candidate, power_candidate: Candidate
) -> None:
    """A champion from before power was metered, and a workspace without a champion: what the data allow is there."""
    page = _page(tmp_path / "old.html", power_samples, _champion(candidate))
    assert "or the model knows no energy" in page.text and all(word in page.text for word in SECTIONS)
    page = _page(tmp_path / "none.html", power_samples, None)
    assert "No model yet." in page.text and len(page.pictures) == 3  # the paper's, which are measured


def test_the_first_screen_says_how_good_the_model_is(tmp_path: Path, power_samples: pa.Table, power_candidate: Candidate) -> None:
    page, scores = _page(tmp_path / "report.html", power_samples, _champion(power_candidate)), power_candidate.card.scores
    first = page.text.partition("What was measured")[0]
    for target in ("runtime_us", "power_w", "energy_mj"):
        assert f"{scores[target]['model']['median_ape']:.1f} %" in first
    assert f"{scores['runtime_us']['lookup']['median_ape']:.1f} %" in first and "240" in first


# What it reckons


def _of_m(queries: Any) -> dict[str, Any]:
    """A model to which nothing matters but m."""
    m = queries[:, AT["m"]].astype(np.float64)
    return {"runtime_us": m, "low": np.stack([0.9 * m], axis=1), "high": np.stack([1.1 * m], axis=1), "extrapolating": m > 900}


def _seen(data: Dataset, runtime_us: Any) -> Unseen:
    data = replace(data, measured=data.measured | {"runtime_us": np.asarray(runtime_us, dtype=np.float64)})
    return Unseen(data=data, answers=_of_m(data.queries), later=np.zeros(len(data), dtype=bool), targets=("runtime_us",))


def test_what_the_answer_hangs_on_is_found_and_nothing_else(cpu_samples: pa.Table) -> None:
    data = dataset(cpu_samples)
    first, *others = importances(_seen(data, data.column("m")), _of_m)
    assert first.name == "m" and first.rises["runtime_us"] > 100
    assert {one.name for one in others} == {"n", "k", "cpu_threads", "cache block"}  # dtype and the like never vary here
    assert all(one.rises == {"runtime_us": 0.0} for one in others)


def test_a_shuffled_question_is_one_that_could_be_asked(cpu_samples: pa.Table) -> None:
    data, asked = dataset(cpu_samples), []
    importances(_seen(data, data.column("m")), lambda queries: asked.append(queries) or _of_m(queries))  # type: ignore[func-returns-value]
    peaks = {(one[AT["active_units"]], one[AT["peak_tflops"]]) for one in np.concatenate(asked).tolist()}
    assert peaks == {(row[AT["active_units"]], row[AT["peak_tflops"]]) for row in data.queries.tolist()}
    known = set(data.column("tile_m").tolist()) - {0}
    assert all(row[AT["tile_m"]] in {*known, row[AT["m"]]} for row in np.concatenate(asked).tolist())


def test_errors_and_intervals_are_counted(cpu_samples: pa.Table) -> None:
    data = dataset(cpu_samples)
    m = data.column("m")
    seen = _seen(data, np.where(m > 500, m / 1.2, m))
    found = error_by_size(seen)
    assert sum(of["all"].rows for of in found.values()) == len(data) and all(set(of) == {"all", "blas"} for of in found.values())
    one = covered(seen)["runtime_us"]
    assert one.within == pytest.approx(100 * np.mean(m <= 500)) and one.factor == pytest.approx((1.1 / 0.9) ** 0.5)
    assert (one.flagged, one.flagged_within, one.later_rows, one.later_within) == (np.sum(m > 900), 0.0, 0, None)
    assert Error.of(np.array([-10.0, 20.0, 30.0, np.nan])) == Error(rows=3, median=20.0, p90=28.0)


def test_later_rows_of_shapes_that_were_trained_on_are_not_unseen(cpu_samples: pa.Table, candidate: Candidate) -> None:
    again = cpu_samples.set_column(cpu_samples.column_names.index("measured_at"), "measured_at", pa.array(["2099-01-01"] * len(cpu_samples)))
    data = dataset(pa.concat_tables([cpu_samples, again.cast(cpu_samples.schema)]))
    found = unseen(data, _of_m, candidate.card)
    assert len(found.data) == held_out(data.shapes, candidate.card.holdout).sum() < len(data)


def test_the_front_is_what_nothing_beats_in_both() -> None:
    time, energy = np.array([5.0, 1.0, 2.0, 2.0, 3.0, 4.0, 1.0]), np.array([1.0, 9.0, 6.0, 5.0, 5.0, 2.0, 8.0])
    assert pareto(time, energy).tolist() == [6, 3, 5, 0]
    assert pareto(np.array([2.0, 2.0]), np.array([3.0, 3.0])).tolist() == [0]


def test_tiles_are_compared_where_problems_lack_some() -> None:
    """log = problem's own + tile's, with holes: the tiles' part comes back."""
    own, effect = np.array([1.0, 5.0, -2.0]), np.array([0.3, -0.1, -0.2])
    at = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 1)]
    problems, tiles = np.array(at).T
    found, used = tile_effects(problems, tiles, own[problems] + effect[tiles], 4)
    assert found[:3] == pytest.approx(effect) and np.isnan(found[3]) and used.tolist() == [0, 1]


def test_partial_dependence_is_that_of_a_known_law(power_samples: pa.Table) -> None:
    """runtime = n * tile^-1/2 for tiles 8, 16, 32: over the geometric mean sqrt 2, 1, sqrt 1/2, whatever the shape."""
    data = dataset(power_samples)
    law = data.queries[:, AT["n"]] * data.queries[:, AT["tile_m"]].astype(np.float64) ** -0.5
    data = replace(data, measured=data.measured | {"runtime_us": law})

    def ask(queries: Any) -> dict[str, Any]:
        assert set(queries[:, AT["cpu_threads"]]) <= set(data.queries[:, AT["cpu_threads"]])
        return {"runtime_us": queries[:, AT["n"]] * queries[:, AT["tile_m"]].astype(np.float64) ** -0.5}

    found = by_tile(data, data.take(held_out(data.shapes, 0.3)), ask)
    assert found and (found.family, found.tiles) == ("tiled", [(8, 8, 8), (16, 16, 16), (32, 32, 32)])
    (one,) = found.dependences  # no power: the model has none
    assert one.unseen and one.measured is not None
    for values in (one.predicted, one.low, one.high, one.measured):
        assert values == pytest.approx([2**0.5, 1, 0.5**0.5])


def test_time_against_energy_of_an_unseen_problem(power_samples: pa.Table) -> None:
    data = dataset(power_samples)

    def perfect(queries: Any) -> dict[str, Any]:
        rows = [int(np.flatnonzero((data.queries == one).all(axis=1))[0]) for one in queries]
        return {name: data.measured[name][rows] for name in ("sustained_runtime_us", "energy_mj")}

    some = data.take(held_out(data.shapes, 0.3))
    found = tradeoff(data, some, perfect)
    assert found and found.unseen and len(found.names) == 3 and found.front.tolist() == found.predicted_front.tolist()
    fallen_back = tradeoff(data, some.take(np.array([0])), perfect)
    assert fallen_back and not fallen_back.unseen
    of = saving(data)
    assert of and of.problems == 60 and 0 <= of.differ <= 60 and (of.differ == 0 or of.saved > 0)
    assert tradeoff(data, some, lambda queries: {"runtime_us": np.ones(len(queries))}) is None
