"""The page of a report: headlines, then sections with texts, tables and pictures, in one HTML file.

Pictures are inside the file, and it links to nothing. Knows nothing of what it shows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment
from matplotlib.figure import Figure

DPI = 110
TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>gemmcast report</title>
<style>
body {
  font: 15px/1.5 system-ui, sans-serif; color: #1c2733;
  max-width: 1040px; margin: 2rem auto; padding: 0 1rem;
}
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #dde3ea }
th:first-child, td:first-child { text-align: left }
.two th:nth-child(2), .two td:nth-child(2) { text-align: left }
tr.strong { font-weight: 600; background: #eef5ff }
img { max-width: 100%; height: auto }
h1, h2 { line-height: 1.2 }
h2 { margin-top: 2.4rem }
.small { color: #5b6b7b; font-size: 13px }
.headlines { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0 }
.headlines div {
  flex: 1 1 140px; background: #eef5ff; border-radius: 8px; padding: .7rem 1rem;
}
.headlines b { display: block; font-size: 26px; line-height: 1.25 }
.wide { overflow-x: auto }
</style>
</head>
<body>
<h1>gemmcast report</h1>
<p class="small">{{ created }}</p>
<div class="headlines">
{% for headline in headlines %}
<div><b>{{ headline.number }}</b>{{ headline.text }}</div>
{% endfor %}
</div>
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% for text in section.texts %}
<p>{{ text }}</p>
{% endfor %}
{% for table in section.tables %}
<div class="wide"><table{% if table.text_columns == 2 %} class="two"{% endif %}>
<tr>{% for name in table.header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}
<tr{% if "model" in row[:2] %} class="strong"{% endif %}>
{%- for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endfor %}
{% for picture in section.pictures %}
<p><img alt="{{ picture.alt }}" src="data:image/png;base64,{{ picture.png_base64 }}"></p>
{% endfor %}
{% endfor %}
{% if footer %}<p class="small">{{ footer }}</p>{% endif %}
</body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A number of the first screen and what it says."""

    number: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTable:
    """A table of text; the row of the method `model` is highlighted."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    """Columns of words, 1 or 2: they are aligned to the left, numbers to the right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure as it stands in the file."""

    alt: str
    """Words for readers who cannot see it."""
    png_base64: str

    @staticmethod
    def of(alt: str, figure: Figure) -> Picture:
        """The figure as PNG."""
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=DPI)
        return Picture(alt=alt, png_base64=base64.b64encode(png.getvalue()).decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A title and, below it, texts, then tables, then pictures."""

    title: str
    texts: Sequence[str] = ()
    tables: Sequence[PageTable] = ()
    pictures: Sequence[Picture] = ()


def render_page(
    created: str, headlines: Sequence[Headline], sections: Sequence[Section], footer: str
) -> str:
    """The whole file. Names that come from samples are escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        created=created, headlines=headlines, sections=sections, footer=footer
    )
