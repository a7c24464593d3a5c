"""Every page of the site in Chromium: on a phone and a large screen, light and dark."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from tests.page.conftest import ROOT
from tests.page.questions import Seen, run_node

DOCS = ROOT / "docs"
READ = ROOT / "build" / "site" / ".doctrees"
"""The pages as `make check` has read them: they need not be read again."""
SEARCH = "search.html?q=energy"
MADE = ("genindex.html", "py-modindex.html", "search.html", SEARCH)
"""Pages without a source."""
PICTURED = ("index", "start/", "reference", "decisions/0019", SEARCH)
"""What addresses begin with of which screenshots are always made; others if a folder is named."""
MARKUP = ("``", "**", "](", "|--", ":ref:", ":doc:", "{eval-rst}", "Traceback")
"""What no reader should see outside code."""


def _addresses() -> Iterator[str]:
    for source in sorted(DOCS.rglob("*.md")):
        yield source.relative_to(DOCS).with_suffix(".html").as_posix()
    yield from MADE


def _picture(address: str) -> str:
    """Name of its screenshots; empty: none are made."""
    if "PAGE_SCREENSHOTS" not in os.environ and not address.startswith(PICTURED):
        return ""
    name = "search-results" if address == SEARCH else address.removesuffix(".html")
    return name.replace("/", "-")


ADDRESSES = tuple(_addresses())


@pytest.fixture(scope="module")
def built(site: Path) -> Path:
    """The site as `make docs` builds it."""
    folder = site / "docs"
    options = ("--quiet", "--fail-on-warning", "--doctree-dir", READ)
    command = (sys.executable, "-m", "sphinx", *options, DOCS, folder)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.copy(site / "ask.html", folder)
    return folder


@pytest.fixture(scope="module")
def visits(site: Path, built: Path, screenshots: Path) -> Mapping[str, Seen]:
    """Address -> what Chromium saw there."""
    listed = site / "pages.json"
    pages = [{"address": address, "picture": _picture(address)} for address in ADDRESSES]
    listed.write_text(json.dumps(pages))
    visits = run_node("visit.mjs", ROOT / "page", built, screenshots, listed)
    return {visit["address"]: visit for visit in visits}


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_says_nothing_to_the_console_and_needs_no_network(
    visits: Mapping[str, Seen], address: str
) -> None:
    visit = visits[address]
    assert visit["messages"] == []
    assert [url for url in visit["requests"] if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_can_be_read_on_a_phone_and_in_the_dark(
    visits: Mapping[str, Seen], address: str
) -> None:
    """Nothing beyond the screen, no text below 12 px, nothing that axe-core finds."""
    looks = visits[address]["looks"]
    assert len(looks) == 4
    for look in looks:
        assert look["overflow"] <= 0
        assert look["smallest_px"] >= 12
        assert look.get("violations", []) == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_has_words_where_they_belong(visits: Mapping[str, Seen], address: str) -> None:
    """No empty heading, no raw markup."""
    visit = visits[address]
    headings = [heading.strip(" \n¶") for heading in visit["headings"]]
    assert all(headings)
    assert [mark for mark in MARKUP if mark in visit["prose"]] == []


def test_links_lead_to_what_is_there(visits: Mapping[str, Seen], built: Path) -> None:
    ids = {f"{built.as_uri()}/{address}": visit["ids"] for address, visit in visits.items()}
    wrong: set[tuple[str, str]] = set()
    for address, visit in visits.items():
        for link in visit["links"]:
            url, fragment = urldefrag(link)
            is_lost = fragment and fragment not in ids.get(url, [fragment])
            if is_lost or not _is_there(url):
                wrong.add((address, link))
    assert wrong == set()


def _is_there(url: str) -> bool:
    """Of a file; nobody asks the network for others."""
    parts = urlsplit(url)
    return parts.scheme != "file" or Path(unquote(parts.path)).is_file()


def test_a_search_has_results(visits: Mapping[str, Seen]) -> None:
    assert visits[SEARCH]["results"] > 5
