"""Types of devices as a plan names them: short names, or patterns.

    h100          every H100: SXM, PCIe and NVL boards (gemmcast/device_names.py)
    h100-pcie     those alone
    *EPYC*        a pattern for the device's whole name, for whatever is not well known

A short name must be that of a well-known product, because a slip would silently mean no device at
all. Does not know which devices a fleet has.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from coordinator.samples.datasheets import DATASHEETS
from gemmcast.device_names import fitting, words

PATTERN_LETTERS = frozenset("*?[")


def fits(text: str, device: str) -> bool:
    """Whether a name of the plan means a device.

    Args:
        device: its whole name, as the driver gives it.
    """
    if is_pattern(text):
        return fnmatchcase(device.lower(), text.lower())
    return bool(fitting(text, [device]))


def closest(texts: Iterable[str], device: str) -> str | None:
    """Of the names that mean a device the one with the most words, and a pattern last of all."""
    fit = [text for text in texts if fits(text, device)]
    return max(fit, key=_precision, default=None)


def is_pattern(text: str) -> bool:
    """Whether a name is matched letter by letter."""
    return not PATTERN_LETTERS.isdisjoint(text)


def check_type(text: str) -> str:
    """The name itself. Raises ValueError, with similar names, if it means no known product."""
    wanted = words(text)
    products = [words(sheet.words) for sheet in DATASHEETS]
    is_known = any(product <= wanted or wanted <= product for product in products)
    if is_pattern(text) or (wanted and is_known):
        return text
    known = sorted(set[str]().union(*products))
    similar = get_close_matches(text.lower(), known) or get_close_matches("h100", known)
    pattern = f"a pattern such as '*{text or 'H100'}*' means any other"
    raise ValueError(f"{text!r} is no known device: did you mean {', '.join(similar)}? {pattern}")


def _precision(text: str) -> int:
    return 0 if is_pattern(text) else len(words(text))
