"""What the coordinator's commands print: tables of results, or one line of JSON.

With --json the last line is the result as one JSON object, and nothing else goes to standard
output. Tables fit into 80 columns. Names come from users, so no text is read as markup. Knows
nothing of how results are computed; progress is in coordinator/progress.py.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from coordinator.logs import event, is_json
from gemmcast.card import ModelCard, Scores
from gemmcast.program import json_line
from gemmcast.score_table import (
    SCORE_COLUMNS,
    SPLITS,
    SUMMARY_TARGETS,
    ranking_rows,
    score_rows,
    split_rows,
    summary_rows,
)

log = logging.getLogger(__name__)

console = Console(stderr=True, markup=False, highlight=False, emoji=False)
"""For progress and what is echoed."""
out = Console(markup=False, highlight=False, emoji=False)
"""For results."""
ECHOED_LINES = 10
"""Lines of a plan that are echoed; --verbose echoes the whole plan."""

RANKING_COLUMNS = (
    "ranking of",
    "method",
    "tau",
    "median",
    "regret %",
    "median",
    "of best 8",
    "median",
    "groups",
)
COMPARED = {"runtime_us": "runtime", "power_w": "power", "energy_mj": "energy"}
"""Target of a comparison -> title of its column."""


class KindFigures(TypedDict):
    """What was measured of one kind of model (costmodel/alternatives.py)."""

    errors: Mapping[str, Mapping[str, float]]
    size_mib: float
    fit_s: float
    batch_us: float
    single_us: float


class Comparison(TypedDict):
    """The result of costmodel.alternatives.compare."""

    rows: int
    shapes: int
    candidates: Mapping[str, KindFigures]
    bound_us: float
    winner: str | None
    default: str


def result(values: Mapping[str, object], *, as_json: bool, text: Callable[[], None]) -> None:
    """Print a result: as JSON, or by calling `text`."""
    if as_json:
        sys.stdout.write(json_line(values) + "\n")
    else:
        text()


def show_line(line: str) -> None:
    """Print a line as it is."""
    out.print(line, soft_wrap=True)


def note(text: str, style: str | None = None) -> None:
    """Say on stderr what a command does now."""
    if is_json():
        log.info(text.strip(), extra=event("note"))
        return
    console.print(text, style=style)


def echo_plan(plan: Mapping[str, object], *, verbose: bool) -> None:
    """Show a resolved plan on stderr: a line for each table, or all of it."""
    if is_json():
        log.info("the plan as it is carried out", extra=event("plan", **plan))
        return
    if verbose:
        console.print(json.dumps(plan, indent=1, ensure_ascii=False), soft_wrap=True)
        return
    lines: list[str] = []
    for name, value in plan.items():
        parts = value if isinstance(value, list | tuple) else [value]
        lines += [f"{name}: {json.dumps(part, ensure_ascii=False)}" for part in parts]
    rest = len(lines) - ECHOED_LINES
    if rest > 0:
        lines[ECHOED_LINES - 1 :] = [f"... and {rest + 1} more; --verbose shows the whole plan"]
    for line in lines:
        console.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def show_status(values: Mapping[str, Any]) -> None:
    """Print the state of a workspace and of its run."""
    statuses = ", ".join(f"{count} {status}" for status, count in values["samples"].items())
    rate, age_s = values["cells_per_s"], values["last_commit_s"]
    measuring = "-" if rate is None else f"{rate:.3g} cells/s, {values['agents']} agents"
    shown = {
        "samples": f"{values['total']} ({statuses})" if statuses else "0",
        "last minute measured": measuring,
        "last commit": "-" if age_s is None else f"{duration(age_s)} ago",
        "store version": values["store_version"],
        "champion": values["champion"] or "none",
        "versions": values["versions"],
    }
    if values.get("closed"):
        shown["waits"] = values["closed"]
    for agent, reason in values["waiting"].items():
        shown[f"{agent} waits"] = reason
    for agent, reason in values.get("faults", {}).items():
        shown[f"{agent} gets no cells"] = reason
    if values["contended_due"]:
        shown["still due"] = f"{values['contended_due']} (contended): run the same plan again"
    if values["second_due"]:
        shown["due on a second board"] = values["second_due"]
    for board, text in values["sick"].items():
        shown[f"sick: {board}"] = f"{text}; its samples are not trained on"
    for agent, model in values.get("nodes", {}).items():
        shown[f"model on {agent}"] = model
    show_values(f"workspace {values['workspace']}", shown)


def duration(seconds: float) -> str:
    """A time in its largest unit: `4 s`, `12 min`, `3 h`, `5 days`."""
    for unit, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def show_rows(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1
) -> None:
    """Print a table: the first columns are text, the others are numbers."""
    table = _table(columns, text_columns)
    for row in rows:
        table.add_row(*row)
    show_line(title)
    out.print(table)


def show_values(title: str, values: Mapping[str, object]) -> None:
    """Print names and values."""
    rows = []
    for name, value in values.items():
        rows.append((name, f"{value:.1f}" if isinstance(value, float) else str(value)))
    width = max(len(name) for name, _ in rows)
    show_line(title)
    for name, text in rows:
        show_line(f"  {name:{width}}  {text}")


def show_scores(scores: Scores, title: str) -> None:
    """Print errors by target and method, in per cent."""
    table = _table(SCORE_COLUMNS, text_columns=2)
    for target, method, *numbers in score_rows(scores):
        # The model's row is the first of each target.
        is_model = method == "model"
        name = target if is_model else ""
        table.add_row(name, method, *numbers, style="bold" if is_model else None)
    show_line(title)
    out.print(table)


def show_card(card: ModelCard, title: str) -> None:
    """Print the exam, errors beside the baselines, generalisation, ranking and repeatability."""
    if card.exam:
        show_scores(card.exam["scores"], f"exam: errors on {card.exam['split']}")
    show_scores(card.scores, title)
    if card.generalisation:
        by_name = {name: part["scores"] for name, part in card.generalisation.items()}
        columns = ("generalisation", *SUMMARY_TARGETS.values(), "rows")
        show_rows("median / mean error in per cent", columns, summary_rows(by_name))
    by_kind = split_rows(card, "runtime_us")
    if by_kind:
        title = "runtime: median / mean error (within the 90 % interval), per cent"
        show_rows(title, ("kernels", *SPLITS.values()), by_kind)
    if card.ranking:
        show_rows("ranking of configurations", RANKING_COLUMNS, ranking_rows(card.ranking))
    repeated = [
        f"{name} {values['median']:.2f} %"
        for name, values in card.repeatability.items()
        if "cells" in values
    ]
    if repeated:
        show_line(f"repeated measurements of a cell differ by (median): {', '.join(repeated)}")


def show_comparison(comparison: Comparison) -> None:
    """Print the figures of each kind of model; a star marks the winner."""
    rows = []
    for name, figures in comparison["candidates"].items():
        mark = " *" if name == comparison["winner"] else ""
        row = [name + mark]
        for target in COMPARED:
            error = figures["errors"].get(target)
            row.append(f"{error['mape']:.1f} / {error['median_ape']:.1f}" if error else "-")
        row.append(f"{figures['size_mib']:.2f}")
        row.append(f"{figures['fit_s']:.1f}")
        row.append(f"{figures['batch_us']:,.0f}")
        row.append(f"{figures['single_us']:.0f}")
        rows.append(row)
    data = f"{comparison['rows']:,} rows, {comparison['shapes']:,} shapes"
    title = f"mean / median error in per cent, cross-validated by shape, {data}"
    columns = ("", *COMPARED.values(), "MiB", "fit s", "us of 256", "us of one")
    show_rows(title, columns, rows)
    show_line(_verdict(comparison))


def _verdict(comparison: Comparison) -> str:
    winner = comparison["winner"] or "none"
    default = comparison["default"]
    role = "and is the default" if winner == default else f"and is not the {default}"
    bound = f"those that take at most {comparison['bound_us']:.0f} us for one query"
    return (
        f"* {winner} has the smallest mean error of {bound}, {role}. Size and latency of the "
        "default include its features; those of the others do not."
    )


def _table(columns: Sequence[str], text_columns: int) -> Table:
    """Text columns fold where the terminal is narrow; numbers stay whole."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(columns):
        is_text = i < text_columns
        table.add_column(
            name, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold"
        )
    return table
