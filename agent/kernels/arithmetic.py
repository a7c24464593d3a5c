"""Arithmetic of whole numbers in a description: + - * / ( ) and names.

Python's parser reads the text, and nothing but these operations is evaluated. / rounds down, as C's
does for positive numbers.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Final

from gemmcast.errors import InputError

OPERATORS: Final[dict[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
}


def evaluate(field: str, text: str, names: Mapping[str, int]) -> int:
    """The value of the text.

    Args:
        field: the key of the description, for messages.
        names: the values of the names that may stand in the text.

    Raises:
        InputError: something else than this arithmetic, or a division by zero.
    """
    one_line = " ".join(text.split())
    try:
        tree = ast.parse(one_line, mode="eval")
    except (SyntaxError, ValueError):
        # A null byte is a ValueError.
        raise InputError(field, text, "no arithmetic", _way_out(names)) from None
    try:
        return _value(tree.body, field, text, names)
    except ZeroDivisionError:
        way_out = "correct the description"
        raise InputError(field, text, "divides by zero", way_out) from None


def _value(node: ast.AST, field: str, text: str, names: Mapping[str, int]) -> int:
    # `type` and not `isinstance`: True is an int, too.
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left = _value(node.left, field, text, names)
        right = _value(node.right, field, text, names)
        return OPERATORS[type(node.op)](left, right)
    raise InputError(field, text, f"cannot evaluate {ast.unparse(node)}", _way_out(names))


def _way_out(names: Mapping[str, int]) -> str:
    return f"use whole numbers, + - * / ( ) and {', '.join(names)}"
