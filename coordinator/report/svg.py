"""Figures as SVG that stands inside a page: it has the page's font, and its ink, light or dark.

One unit is one CSS pixel: a text of size 12.5 is one of 12.5 px. A figure with several panels
becomes one SVG a panel, which a narrow screen shows below each other.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from itertools import count, groupby
from operator import itemgetter
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from coordinator.report.drawing import DARK_TEXT, GREY, SERIES_COLOURS

TEXT_PX: Final = 12.5
UNITS_PER_INCH: Final = 72
MARGIN: Final = 0.06
"""Around a panel, in inches."""
STYLE: Final[dict[RcKeyType, Any]] = {
    "font.size": TEXT_PX,
    "axes.titlesize": TEXT_PX,
    "axes.labelsize": TEXT_PX,
    "xtick.labelsize": TEXT_PX,
    "ytick.labelsize": TEXT_PX,
    "legend.fontsize": TEXT_PX,
    "legend.handlelength": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {list(SERIES_COLOURS)})",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "gemmcast",
}
INK: Final = {
    "#000000": "currentColor",
    DARK_TEXT: "currentColor",
    GREY: "var(--soft)",
}
"""Colours of a figure -> what the page has in their place."""
NO_METADATA: Final[Mapping[str, None]] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_LONG_NUMBER: Final = re.compile(r"-?\d+\.\d{2,}")
_SHORTENED: Final = re.compile(r'(?<= (?:x|y|d)=")[^"]+|(?<=translate\()[^)]+')
_GROUP_ID: Final = re.compile(r'<g id="[^"]*"')
_FONT: Final = re.compile(r"font: ([\d.]+px) [^;\"]*")
_POINT: Final = re.compile(r'<g clip-path="([^"]+)">\n<use ([^>]+) style="([^"]+)"/>\n</g>\n')
_POINTS: Final = re.compile(f"(?:{_POINT.pattern}){{2,}}")
_FAMILY: Final = re.compile(r"font-family: [^;\"]*;? ?")


@contextmanager
def readable() -> Iterator[None]:
    """What is drawn and saved inside has texts of TEXT_PX, and becomes SVG as needed here."""
    with rc_context(STYLE):
        yield


def svg_of(alt: str, figure: Figure) -> str:
    """The whole figure as one element."""
    saved = io.StringIO()
    figure.savefig(saved, format="svg", metadata=NO_METADATA, transparent=True)
    return _for_page(saved.getvalue(), alt)


def svgs_of(alt: str, figure: Figure) -> list[str]:
    """One element for each panel; axes that lie upon each other are one panel."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    panels = _panels(figure)
    return [_svg_of_panel(alt, figure, panel) for panel in panels]


def _panels(figure: Figure) -> list[list[Axes]]:
    by_place: dict[tuple[float, ...], list[Axes]] = {}
    for axes in figure.axes:
        if axes.axison:
            by_place.setdefault(axes.get_position().bounds, []).append(axes)
    return list(by_place.values())


def _svg_of_panel(alt: str, figure: Figure, panel: Sequence[Axes]) -> str:
    for axes in figure.axes:
        axes.set_visible(axes in panel)
    box = figure.get_tightbbox().padded(MARGIN)
    saved = io.StringIO()
    figure.savefig(saved, format="svg", metadata=NO_METADATA, transparent=True, bbox_inches=box)
    titles = [axes.get_title() for axes in panel if axes.get_title()]
    return _for_page(saved.getvalue(), ": ".join([alt, *titles]))


def _for_page(text: str, alt: str) -> str:
    """The element alone, short, in the page's colours, with names that no other figure has."""
    body = text[text.index("<svg") :]
    attributes, _, body = body.partition(">")
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = _GROUP_ID.sub("<g", body)
    body = _FAMILY.sub("", _FONT.sub(r"font-size: \1", body))
    body = _SHORTENED.sub(_with_short_numbers, body)
    body = re.sub(r"\s*\n\s*", "\n", body).replace("xlink:href", "href")
    body = _POINTS.sub(_as_one_group, body)
    for colour, ink in INK.items():
        body = body.replace(colour, ink)
    left, top, width, height = _view_box(attributes)
    return (
        f'<svg role="img" aria-label="{escape(alt)}" width="{width:g}" height="{height:g}" '
        f'viewBox="{left:g} {top:g} {width:g} {height:g}">{body.strip()}'
    )


def _as_one_group(found: re.Match[str]) -> str:
    """Points of one look say it once, which is half of their length."""
    groups: list[str] = []
    for (clip, style), points in groupby(_POINT.findall(found[0]), key=itemgetter(0, 2)):
        uses = "\n".join(f"<use {place}/>" for _, place, _ in points)
        groups.append(f'<g clip-path="{clip}" style="{style}">\n{uses}\n</g>\n')
    return "".join(groups)


def _view_box(attributes: str) -> list[float]:
    found = re.search(r'viewBox="([^"]+)"', attributes)
    assert found
    return [float(number) for number in found[1].split()]


def _with_short_numbers(found: re.Match[str]) -> str:
    """A tenth of a pixel is enough."""
    return _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.1f}", found[0])


def with_own_names(svgs: Sequence[str]) -> list[str]:
    """The elements with different ids, so that each can stand in one page."""
    numbers = count(1)
    return [_with_prefix(svg, f"f{next(numbers)}-") for svg in svgs]


def _with_prefix(svg: str, prefix: str) -> str:
    svg = svg.replace(' id="', f' id="{prefix}')
    svg = svg.replace('href="#', f'href="#{prefix}')
    return svg.replace("url(#", f"url(#{prefix}")
