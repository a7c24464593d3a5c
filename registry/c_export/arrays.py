"""Arrays of a graph in C: their names, their constants, and loops over them.

    float t_Mul_3[96];                     what a node computes
    question[3 + i]                        a part of another array: nothing is copied
    static const float c_Constant_7[14]    numbers of the file; a single one stands in the line

Knows no operators.
"""

from __future__ import annotations

import re
from typing import Final

from registry.c_export import literals
from registry.c_export.graph import ArrayType, Constant, Graph, Shape

COUNTERS: Final = "ijk"
"""Variables of nested loops."""
Index = str


class Arrays:
    """What the lines of a function say of the graph's arrays.

    Args:
        graph: where the names come from.
        given: array -> C expression, of those that the function gets.
    """

    def __init__(self, graph: Graph, given: dict[str, str]) -> None:
        self._graph = graph
        self._places = {name: (c_name, 0) for name, c_name in given.items()}
        self._constants: dict[str, str] = {}

    @property
    def constants(self) -> str:
        """Definitions of the constant arrays that were named."""
        return "\n".join(self._constants.values())

    def type(self, name: str) -> ArrayType:
        """Type and shape of an array."""
        return self._graph.types[name]

    def constant(self, name: str) -> Constant | None:
        """The numbers of a constant, else None."""
        return self._graph.constants.get(name)

    def pointer(self, name: str) -> str:
        """C's expression for the array."""
        c_name, offset = self._place(name)
        return f"{c_name} + {offset}" if offset else c_name

    def add_constant(self, name: str, values: Constant) -> str:
        """Define a constant array, once. Returns its C name."""
        c_name = f"c_{_word(name)}"
        if c_name not in self._constants:
            self._constants[c_name] = literals.array(c_name, values)
        return c_name

    def element(self, name: str, index: Index) -> str:
        """One number: `array[index]`, or the number itself where the array is a constant of one."""
        values = self.constant(name)
        if values is not None and values.size == 1:
            return literals.number(values.ravel()[0])
        c_name, offset = self._place(name)
        if not offset:
            return f"{c_name}[{index}]"
        return f"{c_name}[{offset}]" if index == "0" else f"{c_name}[{offset} + {index}]"

    def declare(self, name: str, size: int | None = None) -> list[str]:
        """The declaration of an array that a node fills.

        Args:
            size: numbers in it; None: what its shape says.
        """
        c_name = f"t_{_word(name)}"
        self._places[name] = c_name, 0
        size = self.type(name).size if size is None else size
        return [f"{self.c_type(name)} {c_name}[{size}];"]

    def part(self, name: str, of: str, offset: int = 0) -> None:
        """Let an array be the part of another one that begins there."""
        c_name, start = self._place(of)
        self._places[name] = c_name, start + offset

    def c_type(self, name: str) -> str:
        """C's type of one number."""
        return literals.C_TYPES[self.type(name).dtype.name]

    def broadcast(self, name: str, shape: Shape) -> str:
        """The number of an array at the place of a loop over `shape`."""
        own = self.type(name).shape
        padded = (1,) * (len(shape) - len(own)) + own
        return self.element(name, place(padded, shape))

    def _place(self, name: str) -> tuple[str, int]:
        """C's array, and where in it this one begins."""
        values = self.constant(name)
        if values is not None:
            return self.add_constant(name, values), 0
        return self._places[name]


def place(own: Shape, shape: Shape) -> Index:
    """Where an array of shape `own`, which is broadcast to `shape`, has the number of a loop."""
    terms: list[str] = []
    stride = 1
    for counter, length, loop_length in _dimensions(own, shape):
        if length > 1:
            terms.append(counter if stride == 1 else f"{counter} * {stride}")
        assert length in (1, loop_length)
        stride *= length
    return " + ".join(reversed(terms)) or "0"


def loops(shape: Shape, statement: str) -> list[str]:
    """A statement for every place of a shape."""
    lengths = [length for length in shape if length > 1]
    headers: list[str] = []
    for depth, length in enumerate(lengths):
        counter = COUNTERS[depth]
        headers.append(f"for (int {counter} = 0; {counter} < {length}; ++{counter})")
    lines: list[str] = []
    for depth, text in enumerate([*headers, statement]):
        lines.append(4 * depth * " " + text)
    return lines


def _dimensions(own: Shape, shape: Shape) -> list[tuple[str, int, int]]:
    """Innermost first: loop variable, own length, length of the loop."""
    dimensions: list[tuple[str, int, int]] = []
    depth = 0
    for length, loop_length in zip(own, shape, strict=True):
        counter = ""
        if loop_length > 1:
            counter = COUNTERS[depth]
            depth += 1
        dimensions.append((counter, length, loop_length))
    return dimensions[::-1]


def _word(name: str) -> str:
    """A name of the graph as part of a name in C."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)
