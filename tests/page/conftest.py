"""The site built once, and what Chromium saw of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.report.ask_page import write_beside
from gemmcast.card import ModelCard
from gemmcast.predictor import Predictor
from registry.registry import PublishedModel, Version
from tests.page.questions import CHROMIUM, Seen, questions, run_node

ROOT = Path(__file__).parents[2]
BEFORE = ROOT / "tests" / "before" / "contract2.tar.xz"
HAS_NPM = bool(shutil.which("node") and shutil.which("npm"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, in a folder of its own."""
    if not HAS_NPM:
        pytest.skip("there is no npm")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(ROOT / "docs" / "build_ask.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def predictor() -> Iterator[Predictor]:
    """The shipped model in Python."""
    with Predictor() as predictor:
        yield predictor


def published(model: Path, card_file: Path, number: str) -> PublishedModel:
    """A model as a registry would hold it, as champion."""
    card = ModelCard.from_json(card_file.read_text())
    version = Version(
        number=number,
        sha256=card.sha256,
        created_at=card.created_at,
        aliases=("champion",),
        status="champion",
        rows=card.rows,
    )
    return PublishedModel(model.read_bytes(), card, version)


@pytest.fixture(scope="session")
def older(site: Path) -> Path:
    """A model of contract 2, of a GPU and a CPU; the page of its report lies in site/report."""
    with tarfile.open(BEFORE) as archive:
        archive.extractall(site / "before", filter="data")
    model = next((site / "before").rglob("artifacts/model.onnx"))
    champion = published(model, model.with_name("card.json"), "3")
    report = site / "report" / "report.html"
    report.parent.mkdir()
    assert write_beside(report, champion, site / "ask.html") == report.with_name("ask.html")
    return model


@pytest.fixture(scope="session")
def shipped() -> PublishedModel:
    """The model that comes with gemmcast, as a registry would hold it."""
    model = ROOT / "gemmcast" / "models" / "default.onnx"
    return published(model, model.with_suffix(".json"), "1")


@pytest.fixture(scope="session")
def screenshots(site: Path) -> Path:
    """The folder $PAGE_SCREENSHOTS, or one beside the site."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    folder = Path(os.environ.get("PAGE_SCREENSHOTS", site / "screenshots")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def seen(site: Path, older: Path, screenshots: Path) -> Seen:
    """What Chromium saw of the page that asks the model."""
    asked = site / "questions.json"
    asked.write_text(json.dumps(questions()))
    pages = (site / "ask.html", site / "report" / "ask.html")
    return run_node("drive.mjs", ROOT / "page", *pages, screenshots, asked)
