"""What energies cost and emit on the page: the same as `gemmcast.carbon`, to the last bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coordinator.report.ask_model import contract_facts
from gemmcast.carbon import Interval, Rates
from gemmcast.errors import InputError
from tests.page.conftest import ROOT
from tests.page.questions import run_node

FIELDS = {"cost": "kwh_price", "gco2e": "gco2_per_kwh"}
RATES = (
    {"kwh_price": "0.31", "gco2_per_kwh": "412.5"},
    {"kwh_price": "0", "gco2_per_kwh": ""},
    {"kwh_price": "", "gco2_per_kwh": "37.123456789"},
    {"kwh_price": "1e3"},
    {},
)
ENERGIES = (Interval(143.6, 136.1, 151.6), Interval(2.26e6, 1.98e6, 2.58e6), None)
WRONG = ("-1", "nan", "Infinity", "x", "0,25")
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")


def _asked(questions: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    path = folder / "questions.json"
    path.write_text(json.dumps({"contract": contract_facts(), "asked": questions}))
    answers: list[dict[str, Any]] = run_node("amounts.mjs", ROOT / "page", path)
    return answers


def test_amounts_are_those_of_python(tmp_path: Path) -> None:
    questions: list[dict[str, Any]] = []
    expected: list[dict[str, Any]] = []
    for fields in RATES:
        rates = Rates(**{field: float(text) for field, text in fields.items() if text})
        for energy in ENERGIES:
            ends = energy and energy._asdict()
            questions.append({"fields": fields, "energy": ends})
            amounts = rates.amounts(energy)
            expected.append({name: one and one._asdict() for name, one in amounts.items()})
    assert _asked(questions, tmp_path) == expected


@pytest.mark.parametrize("field", FIELDS.values())
def test_what_is_no_rate_is_refused_as_by_python(field: str, tmp_path: Path) -> None:
    questions = [{"fields": {field: text}, "energy": None} for text in WRONG]
    with pytest.raises(InputError) as refused:
        Rates(**{field: -1.0})
    reason = f"{refused.value.rule}; {refused.value.way_out}"
    expected = [{"error": f'{field} = "{text}" {reason}'} for text in WRONG]
    assert _asked(questions, tmp_path) == expected
