"""How `make docs` builds the site from these pages: Sphinx, MyST's Markdown, the theme Furo."""

import sys
from pathlib import Path

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

html_theme = "furo"
html_title = "gemmcast"
html_copy_source = False
html_show_sphinx = False
