"""Numbers as C writes them: exactly, in as few digits as give the same number again."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np

from registry.c_export.graph import Constant

C_TYPES: Final = {"float32": "float", "float64": "double", "int64": "int", "bool": "unsigned char"}
"""NumPy's name -> C's. Whole numbers of a graph are places and lengths."""
_PER_LINE: Final = 8


def number(value: Any) -> str:
    """One NumPy number; float32 ends with `f`."""
    if not isinstance(value, np.floating):
        return str(int(value))
    if np.isnan(value):
        return "NAN"
    if np.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{value!s}f" if isinstance(value, np.float32) else str(value)


def array(name: str, values: Constant) -> str:
    """The definition of a constant array, flattened."""
    kind = C_TYPES[values.dtype.name]
    words = [number(value) for value in values.ravel()]
    return f"static const {kind} {name}[{len(words)}] = {{\n{_lines(words)}\n}};\n"


def _lines(words: list[str]) -> str:
    lines: list[str] = []
    for start in range(0, len(words), _PER_LINE):
        lines.append(f"    {', '.join(words[start : start + _PER_LINE])},")
    return "\n".join(lines)


def text(value: str) -> str:
    """A string of C; what would need an escape is written as `?`."""
    ascii_only = value.encode("ascii", "replace").decode()
    plain = re.sub(r'[^ -~]|["\\]', "?", ascii_only)
    return f'"{plain}"'
