"""Write the field tables of docs/schema.md, card.md, onnx.md and tables.md from the source.

    python docs/generate.py            (tests/gemmcast/test_gemmcast_docs.py checks the result)

A page holds markers; the lines between them are replaced:

    <!-- fields of Sample: m to beta -->
    <!-- end -->

The docstring under a field gives the row: meaning, unit in brackets, `Unknown: value`. Types and
defaults come from the field itself. Does not know what a field means.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARROW_TYPES = {"int": "int64", "float": "double", "str": "string", "bool": "bool"}
MARKER = re.compile(
    r"(<!-- (.+?) of (\w+)(?:: (\w+) to (\w+))? -->\n).*?(<!-- end -->\n)", re.DOTALL
)
_FIELDS = "| field | unit | meaning |\n|---|---|---|\n"
HEADS = {
    "Sample": "| column | type | null | absent | unit | meaning |\n|---|---|---|---|---|---|\n",
    "ModelCard": _FIELDS,
    "TableKey": _FIELDS,
    "TunedEntry": _FIELDS,
    "Cost": _FIELDS,
    "Query": "| # | field | unit | meaning | unknown |\n|---|---|---|---|---|\n",
    "STATUSES": "| status | meaning |\n|---|---|\n",
}
SOURCES = {
    "Sample": "gemmcast/sample.py",
    "ModelCard": "gemmcast/card.py",
    "TableKey": "gemmcast/table_key.py",
    "TunedEntry": "gemmcast/tuned_entry.py",
    "Cost": "gemmcast/tuned_entry.py",
    "Query": "gemmcast/query.py",
    "STATUSES": "gemmcast/sample.py",
}
PAGES = ("docs/schema.md", "docs/card.md", "docs/onnx.md", "docs/tables.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a class, as its source describes it."""

    name: str
    """Name of the attribute."""
    type: str
    """Annotation, as written."""
    default: str | None
    """Default, as written; None without one."""
    meaning: str
    """The docstring, without unit and unknown value."""
    unit: str
    """Text in brackets at the end of the docstring; may be empty."""
    unknown: str
    """Text after `Unknown:`; `required` without it."""


def main() -> None:
    """Rewrite the pages in place."""
    for name in PAGES:
        page = ROOT / name
        page.write_text(generated(page.read_text()))


def generated(page: str) -> str:
    """A page with its tables made anew."""
    return MARKER.sub(_with_table, page)


def _with_table(match: re.Match[str]) -> str:
    before, _, source, first, last, after = match.groups()
    return before + table(source, first, last) + after


def table(source: str, first: str | None, last: str | None) -> str:
    """The table of a class from one field to another, or of a dictionary."""
    tree = ast.parse((ROOT / SOURCES[source]).read_text())
    if source == "STATUSES":
        rows = [f"| `{status}` | {meaning} |\n" for status, meaning in statuses(tree).items()]
        return HEADS[source] + "".join(rows)
    all_fields = list(fields(tree, source))
    names = [field.name for field in all_fields]
    start = names.index(first) if first else 0
    stop = names.index(last) + 1 if last else len(names)
    lines = [line(source, place, all_fields[place]) for place in range(start, stop)]
    return HEADS[source] + "".join(lines)


def line(source: str, place: int, field: Field) -> str:
    """One row of a table."""
    if HEADS[source] == _FIELDS:
        return f"| `{field.name}` | {field.unit} | {field.meaning} |\n"
    if source == "Query":
        return f"| {place} | `{field.name}` | {field.unit} | {field.meaning} | {field.unknown} |\n"
    kind = ARROW_TYPES[field.type.removesuffix(" | None")]
    null = "yes" if field.type.endswith("None") else "no"
    cells = [f"`{field.name}`", kind, null, absent(field), field.unit, field.meaning]
    return "| " + " | ".join(cells) + " |\n"


def absent(field: Field) -> str:
    """What a file without this column stands for."""
    if field.default is None:
        return "refused"
    names = {"None": "null", "''": "empty", "False": "false", "SCHEMA_VERSION": "this page's"}
    return names.get(field.default, f"`{field.default.strip(chr(39))}`")


def fields(tree: ast.Module, name: str) -> Iterator[Field]:
    """The fields of a class and the docstrings under them."""
    (body,) = (
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name
    )
    for node, after in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield _field(node, node.target.id, _docstring(after))


def statuses(tree: ast.Module) -> dict[str, str]:
    """The dictionary STATUSES."""
    for node in tree.body:
        if (
            isinstance(node, ast.AnnAssign)
            and ast.unparse(node.target) == "STATUSES"
            and node.value
        ):
            meanings: dict[str, str] = ast.literal_eval(node.value)
            return meanings
    raise LookupError("gemmcast/sample.py has no STATUSES")


def _field(node: ast.AnnAssign, name: str, docstring: str) -> Field:
    text, _, unknown = docstring.partition(" Unknown: ")
    parts = re.fullmatch(r"(.*?)(?: \[([^]]+)\])?", text)
    assert parts is not None
    return Field(
        name=name,
        type=ast.unparse(node.annotation),
        default=ast.unparse(node.value) if node.value else None,
        meaning=parts[1],
        unit=parts[2] or "",
        unknown=unknown or "required",
    )


def _docstring(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    raise ValueError(f"line {node.lineno}: a field has no docstring under it")


if __name__ == "__main__":
    sys.exit(main())
