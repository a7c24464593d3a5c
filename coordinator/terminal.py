"""What the coordinator's commands print: progress while it runs, tables when it is done, one line for bad input.

With --json the last line is the result as one JSON object, and nothing else goes to standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

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

from coordinator.fleet.scheduler import Progress as Run
from costmodel.evaluate.metrics import COMPARED
from gemmcast.card import ModelCard, Scores
from gemmcast.score_table import (
    SCORE_COLUMNS,
    SUMMARY_TARGETS,
    ranking_rows,
    score_rows,
    summary_rows,
)

console = Console(stderr=True)
out = Console()
BAD_INPUT, INTERRUPTED = 2, 130


def fail(error: Exception, code: int = BAD_INPUT) -> NoReturn:
    """One line, and the exit code."""
    console.print(f"[red]error:[/red] {_escape(str(error))}", soft_wrap=True, highlight=False)
    sys.exit(code)


def leave_now() -> NoReturn:
    """After a signal, with everything committed: without the exit hooks of libraries, which take seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def result(values: dict[str, Any], *, as_json: bool, text: Callable[[], None]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(values, default=str) + "\n")
    else:
        text()


def show_scores(scores: Scores, title: str) -> None:
    """target x method, errors in per cent."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(SCORE_COLUMNS):
        table.add_column(name, justify="left" if i < 2 else "right")
    for row in score_rows(scores):
        table.add_row(*row, style="bold" if row[1] == "model" else None)
    out.print(table)


def show_card(card: ModelCard, title: str) -> None:
    """Errors beside the baselines; then what the model is worth beyond new shapes and to whoever tunes, and what the data allow."""
    show_scores(card.scores, title)
    if card.generalisation:
        others = summary_rows({name: part["scores"] for name, part in card.generalisation.items()})
        show_rows("other things never seen: median / mean %", ("unseen", *SUMMARY_TARGETS.values(), "rows"), others)
    if card.ranking:
        names = ("configurations in order", "method", "tau", "median", "regret %", "median", "of best 8", "median", "groups")
        show_rows("", names, ranking_rows(card.ranking))
    again = ", ".join(f"{name} {values['median']:.2f} %" for name, values in card.repeatability.items() if name != "runtime_rse")
    if again:
        out.print(f"the same cell measured again differs by, median: {again}", soft_wrap=True, highlight=False)


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def show_compared(found: dict[str, Any]) -> None:
    """What costmodel/alternatives.py has found."""
    rows = [
        [
            f"{name} *" if name == found["winner"] else name,
            *(f"{error['mape']:.1f} / {error['median_ape']:.1f}" if error else "-" for error in map(of["errors"].get, COMPARED)),
            *(f"{of['size_mib']:.2f}", f"{of['fit_s']:.1f}", f"{of['batch_us']:,.0f}", f"{of['single_us']:.0f}"),
        ]
        for name, of in found["candidates"].items()
    ]
    title = f"mean / median error in per cent on unseen shapes, {found['rows']:,} rows, {found['shapes']:,} shapes, grouped cross-validation"
    show_rows(title, ("", "runtime", "power", "energy", "MiB", "fit s", "us of 256", "us of one"), rows)
    is_default = "and is the default" if found["winner"] == found["default"] else f"and is not the {found['default']}"
    verdict = f"{found['winner'] or 'none'} has the smallest mean error of those within {found['bound_us']:.0f} us a question, {is_default}."
    out.print(f"* {verdict} The default's size and latency have its features in them, those of the others not.", soft_wrap=True, highlight=False)


@contextmanager
def steps(label: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar that moves on with each call, which says at what."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda what: bar.update(task, advance=1, description=f"{label}: {what}")


class ModelLine:
    """The newest model version and its error, for the progress bar."""

    def __init__(self) -> None:
        self.text = "no model yet"

    def told(self, card: ModelCard, number: str | None) -> None:
        error = card.scores["runtime_us"]["model"]
        name = f"model {number}" if number else "challenger"
        self.text = f"{name}: runtime {error['median_ape']:.1f} % median, {error['mape']:.1f} % mean on unseen shapes"


@contextmanager
def progress(model: ModelLine, *, label: str = "measuring") -> Iterator[Callable[[Run], None]]:
    """A bar of cells done of all, samples a second, failures, and the model's error so far."""
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[model]}"), TimeElapsedColumn(), console=console, transient=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(label, total=None, rate="starting agents", model="")

        def show(run: Run) -> None:
            elapsed_s = bar.tasks[0].elapsed or 0.0
            rate = f"{run.committed_now / elapsed_s:.1f}/s" if elapsed_s and run.committed_now else "starting agents"
            failed = sum(count for status, count in run.statuses.items() if status != "ok")
            rate += f", {failed} failed" if failed else ""
            words = "training ..." if run.training else model.text
            bar.update(task, total=run.cells or None, completed=run.done, rate=rate, model=words)

        yield show


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
