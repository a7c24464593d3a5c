"""What the coordinator's commands print: progress, tables of results, one line for bad input.

With --json the last line is the result as one JSON object, and nothing else goes to standard
output. Knows nothing of how results are computed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypedDict

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from coordinator.fleet.interface import Progress as RunProgress
from coordinator.fleet.interface import Show
from gemmcast.card import ModelCard, Scores
from gemmcast.score_table import (
    SCORE_COLUMNS,
    SUMMARY_TARGETS,
    ranking_rows,
    score_rows,
    summary_rows,
)

console = Console(stderr=True)
"""For progress and errors."""
out = Console()
"""For results."""

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


def fail(message: str, code: int) -> NoReturn:
    """Print one line and exit."""
    line = " ".join(message.split()).replace("[", "\\[")
    console.print(f"[red]error:[/red] {line}", soft_wrap=True, highlight=False)
    sys.exit(code)


def result(values: Mapping[str, object], *, as_json: bool, text: Callable[[], None]) -> None:
    """Print a result: as JSON, or by calling `text`."""
    if as_json:
        sys.stdout.write(json.dumps(values, default=str) + "\n")
    else:
        text()


def show_line(line: str) -> None:
    """Print a line as it is."""
    out.print(line, soft_wrap=True, highlight=False, markup=False)


def show_rows(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1
) -> None:
    """Print a table: the first columns are text, the others are numbers."""
    table = _table(title, columns, text_columns)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def show_values(title: str, values: Mapping[str, object]) -> None:
    """Print names and values."""
    rows = []
    for name, value in values.items():
        rows.append((name, f"{value:.1f}" if isinstance(value, float) else str(value)))
    show_rows(title, ("", ""), rows)


def show_scores(scores: Scores, title: str) -> None:
    """Print errors by target and method, in per cent."""
    table = _table(title, SCORE_COLUMNS, text_columns=2)
    for row in score_rows(scores):
        is_model = row[1] == "model"
        table.add_row(*row, style="bold" if is_model else None)
    out.print(table)


def show_card(card: ModelCard, title: str) -> None:
    """Print errors beside the baselines, generalisation, ranking and repeatability."""
    show_scores(card.scores, title)
    if card.generalisation:
        by_name = {name: part["scores"] for name, part in card.generalisation.items()}
        columns = ("generalisation", *SUMMARY_TARGETS.values(), "rows")
        show_rows("median / mean error in per cent", columns, summary_rows(by_name))
    if card.ranking:
        show_rows("ranking of configurations", RANKING_COLUMNS, ranking_rows(card.ranking))
    repeated = [
        f"{name} {values['median']:.2f} %"
        for name, values in card.repeatability.items()
        if name != "runtime_rse"
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


@contextmanager
def steps(label: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar, and the function that reports a finished step by its name."""
    with _bar() as bar:
        task = bar.add_task(label, total=total, details="")

        def report(name: str) -> None:
            """One step is finished."""
            bar.update(task, advance=1, details=name)

        yield report


class TerminalDisplay:
    """The display of a run: a bar of cells with rate, failures and the newest model's error."""

    def __init__(self) -> None:
        self.model_line = "no model yet"

    def show_model(self, card: ModelCard, version: str | None) -> None:
        """Remember a model for the bar; `version` is None if the gate refused it."""
        error = card.scores["runtime_us"]["model"]
        name = f"model {version}" if version else "challenger"
        errors = f"{error['median_ape']:.1f} % median, {error['mape']:.1f} % mean"
        self.model_line = f"{name}: runtime error {errors} on held-out shapes"

    @contextmanager
    def progress(self, label: str) -> Iterator[Show]:
        """The bar, and the function that updates it."""
        with _bar() as bar:
            task = bar.add_task(label, total=None, details="starting agents")

            def show(run: RunProgress) -> None:
                """Update the bar."""
                elapsed_s = bar.tasks[0].elapsed or 0.0
                details = self._details(run, elapsed_s)
                bar.update(task, total=run.cells or None, completed=run.done, details=details)

            yield show

    def _details(self, run: RunProgress, elapsed_s: float) -> str:
        rate = "starting agents"
        if elapsed_s and run.committed_now:
            rate = f"{run.committed_now / elapsed_s:.1f}/s"
        failures = run.statuses.total() - run.statuses["ok"]
        if failures:
            rate += f", {failures} failed"
        model = "training ..." if run.training else self.model_line
        return f"{rate} {model}"


def _table(title: str, columns: Sequence[str], text_columns: int) -> Table:
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < text_columns else "right")
    return table


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[details]}"),
        TimeElapsedColumn(),
        console=console,
        transient=not console.is_terminal,
    )
