"""The report in Chromium: on a phone and a large screen, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.report.advice import Around
from coordinator.report.html import write_report
from gemmcast.arrow import read_samples
from registry.registry import PublishedModel
from tests.page.conftest import ROOT
from tests.page.questions import Seen, run_node

DATASET = ROOT / "datasets" / "h200_demo_metered.parquet"
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (390, 1280)]
SICK = {"GPU-5": "2.1 times slower than its sisters, since 2026-11-01"}


@pytest.fixture(scope="module")
def report(site: Path, shipped: PublishedModel) -> Path:
    """Of a recorded H200 and the shipped model. The site is there for its packages alone."""
    path = site / "looks" / "report.html"
    around = Around(workspace="a workspace", due=12, sick=SICK, ask_page="../ask.html")
    write_report(path, read_samples(DATASET), shipped, around=around)
    return path


@pytest.fixture(scope="module")
def looks(report: Path, screenshots: Path) -> Seen:
    """What Chromium saw."""
    seen: Seen = run_node("look.mjs", ROOT / "page", report, screenshots / "report")
    return seen


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_the_report_can_be_read_by_everybody(looks: Seen, scheme: str, width: int) -> None:
    """No finding of axe-core, no text below 12 px, nothing beyond the screen."""
    (look,) = (one for one in looks["looks"] if (one["scheme"], one["width"]) == (scheme, width))
    assert look["violations"] == []
    assert look["smallest_px"] >= 12
    assert look["overflow"] <= 0


def test_the_report_says_nothing_to_the_console(looks: Seen) -> None:
    assert looks["messages"] == []


def test_the_report_is_small_and_leads_to_the_page_that_asks(report: Path) -> None:
    assert report.stat().st_size < 1_000_000
    assert '<a href="../ask.html">' in report.read_text()
