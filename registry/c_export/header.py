"""What the header says of the contract: the fields of a query, and the codes.

Both come from gemmcast/query.py, where the docstring under a field is its meaning and unit.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from gemmcast.config import TRITON_KERNELS
from gemmcast.kernel_names import SCHEDULES
from gemmcast.query import DTYPE_CODES, FAMILY_CODES, Query

_WIDTH: Final = 96


def fields() -> str:
    """The members of gemmcast_query, each under what it means."""
    lines: list[str] = []
    for name, meaning in _meanings():
        words = textwrap.wrap(f"/* {meaning} */", _WIDTH, subsequent_indent="   ")
        lines += [f"    {line}" for line in words]
        lines.append(f"    float {name};")
    return "\n".join(lines)


def enums() -> str:
    """Codes by name: of dtypes, families, CUTLASS schedules and Triton kernels."""
    schedules = {name: place for place, name in enumerate(SCHEDULES, start=1)}
    kernels = {f"triton_{name}": place for place, name in enumerate(TRITON_KERNELS, start=1)}
    codes: dict[str, Mapping[str, float]] = {
        "dtype": DTYPE_CODES,
        "family": FAMILY_CODES,
        "schedule": schedules,
        "triton_kernel": kernels,
    }
    notes = {
        "schedule": "/* `algorithm` of CUTLASS 3 kernels; of cuBLASLt the library's number. */\n",
        "triton_kernel": "/* `algorithm` of Triton kernels. */\n",
    }
    return "\n\n".join(notes.get(name, "") + _enum(name, values) for name, values in codes.items())


def _enum(name: str, codes: Mapping[str, float]) -> str:
    lines = [f"    GEMMCAST_{word.upper()} = {int(code)}" for word, code in codes.items()]
    members = ",\n".join(lines)
    return f"enum gemmcast_{name} {{\n{members}\n}};"


def _meanings() -> Iterator[tuple[str, str]]:
    """Field -> its docstring as one line."""
    (definition,) = ast.parse(inspect.getsource(Query)).body
    assert isinstance(definition, ast.ClassDef)
    for node, after in pairwise(definition.body):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            words = " ".join(ast.literal_eval(after.value).split())
            yield ast.unparse(node.target), words.replace(" (below)", "").replace("≠", "!=")
