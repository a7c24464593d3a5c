"""`ask.html`: one file that asks a model in the browser, with the model inside it.

`python docs/build_ask.py` (`make docs`) builds docs/site/ask.html, whose model is the shipped one.
A report takes that page and puts its own model in. The page needs no server: code, WebAssembly and
model are in the file. Does not know what the page's code does with them.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Final

from coordinator.report.ask_candidates import Json
from coordinator.report.ask_model import model_facts
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically
from registry.registry import PublishedModel

BUILT: Final = Path(__file__).parents[2] / "docs" / "site" / "ask.html"
"""The page that a report's is made of."""
FILE_NAME: Final = "ask.html"
NOT_BUILT: Final = f"no {FILE_NAME} beside it: `make docs` builds the page, then `report` writes it"
_MODEL: Final = re.compile(r'(<script type="text/plain" id="model">)[^<]*(</script>)')


def write_beside(report: Path, champion: PublishedModel | None, built: Path = BUILT) -> Path | None:
    """Write the page of a report's model into its folder.

    Args:
        report: the file of the report.
        champion: its model.
        built: what docs/build_ask.py wrote.

    Returns:
        The page; None without a model, or where the page was not built.

    Raises:
        InputError: the built page is damaged.
    """
    if champion is None or not built.is_file():
        return None
    version = f"version {champion.version.number}"
    facts = model_facts(champion.model, champion.card, version)
    path = report.with_name(FILE_NAME)
    write_atomically(path, with_model(built.read_text(encoding="utf-8"), facts).encode())
    return path


def with_model(page: str, facts: Json) -> str:
    """The page with this model in the place of its own."""
    replaced, count = _MODEL.subn(rf"\g<1>{packed(facts)}\g<2>", page, count=1)
    if not count:
        rule = "has no place for a model"
        raise InputError(FILE_NAME, str(BUILT), rule, "run `make docs` again")
    return replaced


def packed(facts: Json) -> str:
    """JSON through gzip as base64, which page/src/page.mjs unpacks."""
    text = json.dumps(facts, separators=(",", ":"))
    # without the time, so that equal models give equal pages
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
