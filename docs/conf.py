"""How `make docs` builds the site from these pages: Sphinx, MyST's Markdown, the theme Furo."""

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gemmcast import __version__

project = "gemmcast"
author = "the gemmcast project"
copyright = "the gemmcast project, Apache-2.0; data CC-BY-4.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["site"]

# Links such as storage.md#object-stores; on a public repository they work without this.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# `sections_of` below calls Napoleon, which takes what stands before a field's colon for a type.
napoleon_google_docstring = napoleon_numpy_docstring = False
# Single backquotes in docstrings
default_role = "code"
# A longer signature has one parameter a line.
maximum_signature_line_length = 88

html_theme = "furo"
html_title = "gemmcast"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
# For them a search fetches pages, which a browser refuses on a site that is opened from a disk.
html_show_search_summary = False

FIELDS = {"attribute", "property"}
"""Kinds of members whose docstring is plain text, colons and all."""
SCROLLED = re.compile(r'<pre\b|<div(?= class="table-wrapper)')
"""Where elements begin that a narrow screen does not show whole."""


def sections_of(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: Any,
    lines: list[str],
) -> None:
    """Args, Returns and Raises of a docstring as lists."""
    if what not in FIELDS:
        read = GoogleDocstring(lines, app.config, app, what, name, obj, options)
        lines[:] = read.lines()


def titles_for_files(app: Sphinx, page: nodes.document, name: str) -> None:
    """A link that shows a file's name shows the title of that page instead."""
    for link in page.findall(nodes.reference):
        if not link.astext().endswith(".md") or not link.get("internal"):
            continue
        file, _ = urldefrag(link["refuri"])
        target = urljoin(f"{name}.html", file)
        title = app.env.titles[target.removesuffix(".html")]
        link[:] = [nodes.Text(title.astext())]


def for_the_keyboard(
    _app: Sphinx,
    _name: str,
    _template: str,
    context: dict[str, Any],
    _page: nodes.document | None,
) -> None:
    """Code and tables wider than the screen scroll by keys; groups of the menu have a level."""
    if "body" in context:
        context["body"] = SCROLLED.sub(r'\g<0> tabindex="0"', context["body"])
    menu = context["furo_navigation_tree"]
    caption = 'role="heading"'
    context["furo_navigation_tree"] = menu.replace(caption, f'{caption} aria-level="2"')


def setup(app: Sphinx) -> None:
    """What this site adds to Sphinx."""
    app.connect("autodoc-process-docstring", sections_of)
    app.connect("doctree-resolved", titles_for_files)
    # behind Furo's own, which makes the menu
    app.connect("html-page-context", for_the_keyboard, priority=900)
