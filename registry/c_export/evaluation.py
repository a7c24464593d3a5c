"""The function of C that computes a graph for one query."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from gemmcast.query import INPUT
from registry.c_export.arrays import Arrays
from registry.c_export.graph import Graph
from registry.c_export.operators import statements

TEMPLATES: Final = Path(__file__).parent / "templates"
HELPERS: Final = ("larger", "largerf", "smaller", "smallerf", "sigmoidf", "multiply", "walk_trees")
"""Functions that the lines of a node may call; each is in a file of its name."""


class Evaluation(NamedTuple):
    """A graph as C."""

    constants: str
    """Definitions of the weights."""
    helpers: str
    """Functions that the body calls."""
    body: str
    """Statements from `question` to the members of `out`."""


def evaluation(graph: Graph) -> Evaluation:
    """Every node in order. Raises InputError for a graph that is not written as C."""
    arrays = Arrays(graph, {INPUT: INPUT})
    lines: list[str] = []
    for node in graph.nodes:
        lines += statements(arrays, node)
    for output in graph.outputs:
        size = f"sizeof out->{output}"
        lines.append(f"memcpy(out->{output}, {arrays.pointer(output)}, {size});")
    body = "\n".join(f"    {line}" for line in lines)
    used = [name for name in HELPERS if f"{name}(" in body]
    helpers = "\n".join((TEMPLATES / f"{name}.c").read_text("utf-8") for name in used)
    return Evaluation(arrays.constants, helpers, body)
