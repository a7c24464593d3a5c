"""The report is one file that needs no other: no links, pictures inside, and what it says is what was measured."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from coordinator.report import write_report
from coordinator.train import Candidate
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.card import ModelCard
from gemmcast.cell import Cell
from gemmcast.device import Device
from registry.store import Version

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
    assert len(page.pictures) == 3  # runtime, throughput, and the error by size
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
    ):
        assert word in page.text
    assert "Rows that failed: none." in page.text
    card = candidate.card
    assert f"Trained on {card.train_rows} rows of {card.train_shapes} shapes, tested on {card.test_rows} rows of {card.test_shapes}" in page.text


def test_power_has_pictures_where_it_was_read(tmp_path: Path, power_samples: pa.Table, power_candidate: Candidate) -> None:
    page = _page(tmp_path / "report.html", power_samples, _champion(power_candidate))
    assert len(page.pictures) == 6
    for word in ("sustained runtime", "power", "energy", "throughput", "tiled", "cublas"):
        assert word in page.text


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
