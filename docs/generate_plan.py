"""Write the key tables of docs/plan.md from the plan's models.

    python docs/generate_plan.py      (tests/coordinator/test_coordinator_docs.py checks the result)

The page holds markers; the lines between them are replaced:

    <!-- keys of Sweep -->
    <!-- end -->

The docstring under a field of coordinator/plan/ is the meaning of its key. Names of pages in a
docstring become links. Does not know what a key means.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from coordinator.plan import schema
from coordinator.plan.sweep import PlanTable

PAGE = Path(__file__).resolve().parent / "plan.md"
MARKER = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
PAGE_NAME = re.compile(r"docs/([\w-]+\.md)")
HEAD = "| key | default | meaning |\n|---|---|---|\n"


def main() -> None:
    """Rewrite the page in place."""
    PAGE.write_text(generated(PAGE.read_text()))


def generated(page: str) -> str:
    """The page with its tables made anew."""
    return MARKER.sub(_replaced, page)


def _replaced(match: re.Match[str]) -> str:
    begin, name, end = match.groups()
    return begin + table(getattr(schema, name)) + end


def table(model: type[PlanTable]) -> str:
    """One row for each key."""
    rows = [HEAD]
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split())
        meaning = PAGE_NAME.sub(r"[\1](\1)", meaning)
        rows.append(f"| `{name}` | {default_text(field)} | {meaning} |\n")
    return "".join(rows)


def default_text(field: FieldInfo) -> str:
    """The default as TOML writes it; nothing for a table."""
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, PlanTable):
        return ""
    return f"`{json.dumps(default)}`"


if __name__ == "__main__":
    sys.exit(main())
