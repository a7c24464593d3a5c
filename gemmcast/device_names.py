"""Short names of devices: `h100`, `h100-sxm`, `H100_SXM`, or the driver's whole name.

A short name holds some words of a device's name, in any order and case. Drivers leave out the form
factor where a product began as an SXM board (`NVIDIA H100 80GB HBM3`), so those have the word `sxm`
too. A slice of a GPU (MIG) is meant only where the short name says so. What several devices fit is
refused, with their names. Does not know what a device is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

from gemmcast.errors import InputError

FORM_FACTORS: Final = frozenset({"sxm", "pcie", "nvl"})
SXM_PRODUCTS: Final = frozenset({"h100", "h200", "h800", "h20", "b200", "b300"})
"""Products of which the driver names the form factor of the other boards only."""
SLICE: Final = "mig"


@cache
def words(name: str) -> frozenset[str]:
    """The words of a device's name, in lower case; `sxm4` and `sxm5` are `sxm`."""
    parts = re.split(r"[^a-z0-9]+", name.lower())
    return frozenset("sxm" if re.fullmatch(r"sxm\d", part) else part for part in parts if part)


def fitting(text: str, names: Iterable[str]) -> list[str]:
    """The names that a text may mean, each once, in their order; of one device at most one.

    A name itself means that device alone. `NAME (500 W)` is the same device under other conditions
    (gemmcast/descriptions.py): NAME comes before it.
    """
    different = list(dict.fromkeys(names))
    if text in different:
        return [text]
    wanted = words(text)
    same = [name for name in different if words(name) == wanted]
    if len(same) == 1:
        return same
    fit = [name for name in different if _fits(wanted, name)]
    plain = [name for name in fit if all(_is_variant(other, name) for other in fit)]
    return plain or fit


def chosen(field: str, text: str, names: Iterable[str], way_out: str = "") -> str:
    """The one name that a text means.

    Args:
        field: what the user calls the text.
        names: of the devices to choose from.
        way_out: what else the user can do.

    Raises:
        InputError: none fits, or several do; it names the candidates.
    """
    every = list(names)
    fit = fitting(text, every)
    if len(fit) == 1:
        return fit[0]
    rule = "fits several devices" if fit else "is no known device"
    candidates = ", ".join(sorted(set(fit or every))) or "none"
    more = f"; {way_out}" if way_out else ""
    raise InputError(field, text, rule, f"name one of: {candidates}{more}")


def _fits(wanted: frozenset[str], name: str) -> bool:
    has = words(name)
    if SLICE in has and SLICE not in wanted:
        return False
    if has & SXM_PRODUCTS and not has & FORM_FACTORS:
        has |= {"sxm"}
    return bool(wanted) and wanted <= has


def _is_variant(name: str, plain: str) -> bool:
    """Whether a name is the plain one, or that with what tells it apart in brackets."""
    return name == plain or name.startswith(f"{plain} (")
