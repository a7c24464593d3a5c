"""docs/plan.md agrees with the plan's models; other pages name what exists."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from agent.kernels import load
from coordinator.plan import schema
from coordinator.plan.schema import Devices, Measure, Plan, Politeness, Shapes, Sweep, Train
from coordinator.plan.sweep import PlanTable
from gemmcast.card import ModelCard
from gemmcast.config import FAMILIES, KNOBS
from gemmcast.errors import MeasurementError
from gemmcast.gemm import DTYPES, LAYOUTS, MAX_DIM

DOCS = Path(__file__).parent.parent.parent / "docs"
SECTIONS = {
    "Top level": Plan,
    "[devices]": Devices,
    "[politeness]": Politeness,
    "[measure]": Measure,
    "[train]": Train,
    "[[sweep]]": Sweep,
    "[sweep.shapes]": Shapes,
}


def _section(title: str) -> str:
    return (DOCS / "plan.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]


def _documented(title: str) -> dict[str, str]:
    """key -> default, as the table says."""
    defaults = {}
    for line in _section(title).splitlines():
        if line.startswith("| `"):
            cells = [cell.strip(" `") for cell in line.split("|")]
            defaults[cells[1]] = cells[2]
    return defaults


def _shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    return "" if isinstance(default, PlanTable) else json.dumps(default)


def test_every_table_of_the_plan_has_its_section() -> None:
    tables = set()
    for value in vars(schema).values():
        if isinstance(value, type) and issubclass(value, PlanTable):
            tables.add(value)
    assert tables - {PlanTable} == set(SECTIONS.values())


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_documented_with_its_default(title: str) -> None:
    expected = {}
    for name, field in SECTIONS[title].model_fields.items():
        expected[name] = _shown(field.get_default(call_default_factory=True))
    assert _documented(title) == expected


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_has_a_meaning(title: str) -> None:
    for name, field in SECTIONS[title].model_fields.items():
        assert field.description, name


def test_the_tables_of_the_plan_are_generated() -> None:
    page = (DOCS / "plan.md").read_text()
    generator = runpy.run_path(str(DOCS / "generate_plan.py"))
    assert generator["generated"](page) == page


def test_every_name_that_may_be_written_is_documented() -> None:
    sweep = _section("[[sweep]]")
    for name in (*FAMILIES, *DTYPES, *LAYOUTS, *KNOBS, "tile"):
        assert f"`{name}`" in sweep or f'`"{name}"`' in sweep
    assert str(MAX_DIM) in _section("[sweep.shapes]")


def test_the_cards_page_has_every_field_and_no_other() -> None:
    first_column = [
        line.split("|")[1]
        for line in (DOCS / "card.md").read_text().partition("\n## ")[0].splitlines()
        if line.startswith("| `")
    ]
    named = [name for cell in first_column for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(field.name for field in fields(ModelCard))


def test_the_architecture_page_names_files_that_there_are() -> None:
    page = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"`((?:agent|coordinator|gemmcast|registry)/[\w/.]*)`", page))
    assert len(named) >= 10
    assert [name for name in named if not (DOCS.parent / name).exists()] == []


def test_a_family_without_a_kernel_here_is_unsupported() -> None:
    for name in FAMILIES:
        kernels = DOCS.parent / "agent" / "kernels"
        if not (kernels / f"{name}.py").exists() and not (kernels / name / "__init__.py").exists():
            with pytest.raises(
                MeasurementError, match=f"unsupported: family {name} can be recorded and predicted"
            ):
                load(name)
