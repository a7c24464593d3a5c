"""The page of a report: a first screen of answers, then sections of texts, tables and pictures.

It is one HTML file with everything inside. Knows nothing of what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jinja2 import Environment
from matplotlib.figure import Figure

from coordinator.report.look import STYLE, TEMPLATE
from coordinator.report.svg import svg_of, svgs_of, with_own_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A number of the first screen and what it says."""

    number: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What the reader may do next."""

    text: str
    """Why, with the figures that say so."""
    command: str = ""
    """What to type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One question of the first screen, and its answers."""

    title: str
    """The question."""
    text: str = ""
    headlines: Sequence[Headline] = ()
    advice: Sequence[Advice] = ()
    link: str = ""
    """File beside the report that answers questions; empty: there is none."""


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
    svgs: Sequence[str]
    """One element for each panel, or one for all."""

    @staticmethod
    def of(alt: str, figure: Figure) -> Picture:
        """Each panel by itself."""
        return Picture(alt=alt, svgs=svgs_of(alt, figure))

    @staticmethod
    def whole(alt: str, figure: Figure) -> Picture:
        """Panels that share an axis stay side by side."""
        return Picture(alt=alt, svgs=[svg_of(alt, figure)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A title and, below it, texts, then tables, then pictures."""

    title: str
    texts: Sequence[str] = ()
    tables: Sequence[PageTable] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that the file shows."""

    created: str
    groups: Sequence[Answers]
    sections: Sequence[Section]
    footer: str = ""


def render_page(page: Page) -> str:
    """The whole file. Names that come from samples are escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    sections = _with_own_names(page.sections)
    return environment.from_string(TEMPLATE).render(
        page=replace(page, sections=sections), style=STYLE
    )


def _with_own_names(sections: Sequence[Section]) -> list[Section]:
    """The same, with ids in the pictures that come once in the page."""
    svgs: list[str] = []
    for section in sections:
        for picture in section.pictures:
            svgs += picture.svgs
    renamed = iter(with_own_names(svgs))
    result: list[Section] = []
    for section in sections:
        pictures: list[Picture] = []
        for picture in section.pictures:
            own = [next(renamed) for _ in picture.svgs]
            pictures.append(replace(picture, svgs=own))
        result.append(replace(section, pictures=pictures))
    return result
