"""Dashboard, alerts and docs name the metrics that the code has."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.fleet.meters import METRICS

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "gemmcast.json"
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
Parts = list[dict[str, Any]]
"""Panels of the dashboard, or rules."""
NAMES = {metric.name for metric in METRICS}
LABELS = {metric.name: set(metric.labels) for metric in METRICS}
LEFT_OUT: set[str] = set()
"""Metrics that no panel needs."""
ROWS = ["Fleet", "Lag", "Model", "Failures", "Health"]
GRID = 24
UNITS = ("_seconds", "_ratio", "_total", "_per_second", "_version")
COUNTS = {
    "gemmcast_cells",
    "gemmcast_cells_due",
    "gemmcast_agents",
    "gemmcast_agents_without_champion",
}
SWITCHES = {"gemmcast_run_active", "gemmcast_training_active", "gemmcast_board_sick"}
"""Gauges that are 0 or 1."""


def names_in(expression: str) -> set[str]:
    """The metrics of an expression, without what Ray's exporter puts before them."""
    return set(re.findall(r"\bray_(gemmcast_\w+)", expression))


@pytest.fixture(scope="module")
def panels() -> Parts:
    found: Parts = json.loads(DASHBOARD.read_text())["panels"]
    return found


@pytest.fixture(scope="module")
def rules() -> Parts:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: Parts = group["rules"]
    return found


def expressions(panels: Parts) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_every_metric_is_in_the_dashboard_and_none_besides(panels: Parts) -> None:
    shown = set().union(*map(names_in, expressions(panels)))
    assert shown == NAMES - LEFT_OUT
    assert not shown & LEFT_OUT


def test_labels_of_the_dashboard_are_those_of_the_metrics(panels: Parts) -> None:
    for expression in expressions(panels):
        known = set().union(*(LABELS[name] for name in names_in(expression)))
        grouped = ",".join(re.findall(r"by \(([^)]*)\)", expression))
        selected = re.findall(r"[{,]\s*(\w+)\s*[!=]", expression)
        used = set(re.findall(r"\w+", grouped)) | set(selected)
        assert used <= known, expression


def test_the_dashboard_can_be_provisioned(panels: Parts) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    (variable,) = dashboard["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == ROWS
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["expr"].count("(") == target["expr"].count(")")


def test_panels_lie_beside_one_another(panels: Parts) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        lines = range(place["y"], place["y"] + place["h"])
        fields = set(product(columns, lines))
        assert not taken & fields, panel["title"]
        taken |= fields


def test_alerts_use_metrics_that_exist_and_say_what_to_do(rules: Parts) -> None:
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 5
    for rule in rules:
        assert names_in(rule["expr"])
        assert names_in(rule["expr"]) <= NAMES
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert {"summary", "description"} == set(rule["annotations"])
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_names_have_base_units() -> None:
    for metric in METRICS:
        assert metric.name.startswith("gemmcast_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        has_unit = metric.name.endswith(UNITS)
        assert has_unit or metric.name in COUNTS | SWITCHES, metric.name
        assert not {"cell", "cell_id", "shape"} & set(metric.labels)


def test_docs_have_every_metric() -> None:
    text = (ROOT / "docs" / "watching.md").read_text()
    documented = set(re.findall(r"^\| `(gemmcast_\w+)", text, re.MULTILINE))
    assert documented == NAMES
