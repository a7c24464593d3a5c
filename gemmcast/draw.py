"""Draws that are the same in every run, on every machine and in every order: by a hash of a name.

    fraction(name) = first 8 bytes of SHA-256(name) / 2^64        uniform in [0, 1)

A name is drawn for a share if its fraction lies below it, so a larger share draws the same
names and more. This decides which shapes are held out, which recorded cells are kept back and which
cells two boards measure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_drawn(name: str, share: float) -> bool:
    """Whether a name belongs to the share of all names that is drawn."""
    return fraction(name) < share


def shuffled(names: Iterable[str]) -> list[str]:
    """The names in the order of their hashes."""
    return sorted(names, key=_digest)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
