"""How far a run or a training is: a bar on a terminal, lines where there is none.

    12:00:31 measuring: 120 of 400 cells (30 %), 4.2 cells/s, 2 agents, 3 failed (2 timeout,
    1 crashed), model 2: runtime error 4.1 % median, 6.9 % mean on held-out shapes

A line comes once a minute, with every twentieth of the cells and with every stage of a training:
the log of a job, of CI or of nohup says what happens and stays short. Tests pass a made-up clock.
Does not know what is measured or trained.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from time import monotonic

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from coordinator.fleet.interface import Progress as RunProgress
from coordinator.fleet.interface import Show
from coordinator.fleet.rate import Rate
from coordinator.logs import event, is_json
from coordinator.terminal import console
from costmodel.progress import Step
from gemmcast.card import ModelCard

log = logging.getLogger(__name__)

LINE_S = 60.0
"""A line comes after this time at the latest."""
PART_S = 2.0
"""Parts that are done sooner after a line get none."""
PARTS = 20
"""Lines from none to all of the cells, at most."""
Clock = Callable[[], float]
"""A clock that only grows. [s]"""


class LinePace:
    """When a line is due.

    Args:
        parts: lines of a stage at most, besides one a minute.
    """

    def __init__(self, now_s: Clock, parts: int = PARTS) -> None:
        self._now_s = now_s
        self._parts = parts
        self._said_s: float | None = None
        self._said: tuple[str, int] | None = None

    def is_due(self, stage: str, done: int, total: int) -> bool:
        """Whether a minute is over, one more part is done, or another stage has begun."""
        part = done * self._parts // total if total else 0
        now_s = self._now_s()
        since_s = math.inf if self._said_s is None else now_s - self._said_s
        is_new_stage = self._said is None or self._said[0] != stage
        is_next_part = self._said != (stage, part) and (since_s >= PART_S or done == total)
        if not (since_s >= LINE_S or is_new_stage or is_next_part):
            return False
        self._said_s = now_s
        self._said = (stage, part)
        return True


class RunDisplay:
    """The display of a run: cells, rate, agents, failures and the newest model's error."""

    def __init__(self, now_s: Clock = monotonic) -> None:
        self._now_s = now_s
        self.model_line = "no model yet"

    def show_model(self, card: ModelCard, version: str | None) -> None:
        """Remember a model; `version` is None if the gate refused it."""
        name = f"model {version}" if version else "challenger"
        if card.is_base:
            self.model_line = f"{name}: {card.base}, before any sample from here"
            return
        error = card.scores["runtime_us"]["model"]
        errors = f"{error['median_ape']:.1f} % median, {error['mape']:.1f} % mean"
        self.model_line = f"{name}: runtime error {errors} on held-out shapes"

    @contextmanager
    def progress(self, label: str) -> Iterator[Show]:
        """A bar or lines, and the function that updates them."""
        rate = Rate(self._now_s)
        if not console.is_terminal or is_json():
            yield self._lines(label, rate)
            return
        with _bar() as bar:
            task = bar.add_task(label, total=None, details="starting agents")

            def show(run: RunProgress) -> None:
                """Update the bar."""
                details = self.details(run, rate.of(run.committed_now))
                bar.update(task, total=run.cells or None, completed=run.done, details=details)

            yield show

    def details(self, run: RunProgress, rate: float | None) -> str:
        """Rate, agents, failures by reason, and the model."""
        if not run.agents:
            return _without_agents(run)
        words = [f"{run.agents} agent{'s' if run.agents > 1 else ''}"]
        if rate is not None:
            words.insert(0, f"{rate:.1f} cells/s")
        if run.lag_s is not None:
            words.append(f"lag {run.lag_s:.1f} s")
        if run.budget:
            words.append(f"budget {run.budget}")
        if run.closed:
            words.append(f"gives its devices back, waits {run.closed}")
        if run.waiting:
            words.append(waiting_text(run.waiting))
        if run.faults:
            words.append(faults_text(run.faults))
        failures = failures_text(run.statuses)
        if failures:
            words.append(failures)
        if run.second_due and run.done == run.cells:
            words.append(f"{run.second_due} for a second board")
        if run.training:
            words.append("training")
        words.append(self.model_line)
        if run.champion is not None and run.champion not in self.model_line.split(":")[0].split():
            words.append(f"champion {run.champion}")
        return ", ".join(words)

    def _lines(self, label: str, rate: Rate) -> Show:
        pace = LinePace(self._now_s)

        def show(run: RunProgress) -> None:
            """Print a line, if one is due."""
            a_second = rate.of(run.committed_now)
            named = [*run.waiting, *run.faults]
            stage = f"{bool(run.agents)} {run.closed} {run.training} {named} {self.model_line}"
            if not pace.is_due(stage, run.done, run.cells):
                return
            if is_json():
                text = f"{label}: {run.done} of {run.cells} cells"
                log.info(text, extra=event("progress", **fields_of(run, a_second)))
                return
            details = self.details(run, a_second)
            if run.agents or run.cells:
                share = 100 * run.done // run.cells if run.cells else 0
                details = f"{run.done} of {run.cells} cells ({share} %), {details}"
            log_line(f"{label}: {details}")

        return show


def _without_agents(run: RunProgress) -> str:
    if run.closed:
        return f"waits {run.closed}"
    if run.faults:
        return f"starting agents, {faults_text(run.faults)}"
    return "starting agents"


def fields_of(run: RunProgress, rate: float | None) -> dict[str, object]:
    """What a line of progress says, as fields."""
    failed = run.statuses.copy()
    del failed["ok"]
    return {
        "cells": run.cells,
        "done": run.done,
        "cells_per_s": rate,
        "lag_s": run.lag_s,
        "agents": run.agents,
        "champion": run.champion,
        "training": run.training,
        "failed": failed.total(),
        "failures": dict(failed),
        "waiting": run.waiting,
        "faults": run.faults,
    }


def faults_text(faults: Mapping[str, str]) -> str:
    """Of the agents that get no cells the first, and how many others."""
    agent, reason = next(iter(faults.items()))
    others = len(faults) - 1
    beside = f" and {others} more" if others else ""
    return f"{agent}{beside} get{'' if others else 's'} no cells: {reason}"


def waiting_text(waiting: Mapping[str, str]) -> str:
    """`node1/gpu0 waits (2 other process(es) hold this GPU)`; of several agents the first."""
    agent, reason = next(iter(waiting.items()))
    others = len(waiting) - 1
    rest = f" and {others} more" if others else ""
    return f"{agent}{rest} wait{'' if others else 's'} ({reason})"


def failures_text(statuses: Counter[str]) -> str:
    """`3 failed (2 timeout, 1 crashed)`; empty without failures."""
    failed = statuses.copy()
    del failed["ok"]
    if not failed.total():
        return ""
    reasons = ", ".join(f"{count} {status}" for status, count in failed.most_common())
    return f"{failed.total()} failed ({reasons})"


@contextmanager
def stages(label: str, now_s: Clock = monotonic) -> Iterator[Step]:
    """A bar or lines for work in stages, and the function that reports a part."""
    if not console.is_terminal or is_json():
        pace = LinePace(now_s, parts=0)

        def say(stage: str, done: int, total: int) -> None:
            """Print a line, if one is due."""
            if pace.is_due(stage, done, total):
                _say_stage(label, stage, done, total)

        yield say
        return
    with _bar() as bar:
        task = bar.add_task(label, total=None, details="")

        def move(stage: str, done: int, total: int) -> None:
            """Move the bar."""
            bar.update(task, total=total, completed=done, details=stage)

        yield move


def _say_stage(label: str, stage: str, done: int, total: int) -> None:
    if is_json():
        fields = event("stage", work=label, stage=stage, done=done, total=total)
        log.info("%s: %s", label, stage, extra=fields)
        return
    log_line(f"{label}: {stage}{f' {done} of {total}' if total > 1 else ''}")


def log_line(text: str) -> None:
    """Print a line with the time of day on stderr."""
    console.print(f"{datetime.now():%H:%M:%S} {text}", soft_wrap=True)


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[details]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )
