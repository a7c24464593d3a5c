"""Progress without a terminal: few lines, with a made-up clock; with one: a bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from rich.console import Console

from coordinator import progress, terminal
from coordinator.fleet.interface import Progress
from coordinator.fleet.rate import Rate
from coordinator.progress import LinePace, RunDisplay, failures_text, faults_text, stages
from costmodel.train import TrainedModel

MARKUP = "[/nt] [red]a[b] :bug:"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StringIO]:
    """Replaces stderr's console."""

    def replace(*, is_terminal: bool) -> StringIO:
        text = StringIO()
        console = Console(file=text, force_terminal=is_terminal, width=80, markup=False)
        monkeypatch.setattr(progress, "console", console)
        return text

    return replace


def lines(text: StringIO) -> list[str]:
    """Without the time of day."""
    return [line[len("00:00:00 ") :] for line in text.getvalue().splitlines()]


def test_a_line_comes_with_every_part_every_minute_and_every_stage(clock: Clock) -> None:
    pace = LinePace(clock)
    assert pace.is_due("a", 0, 1000)
    assert not pace.is_due("a", 49, 1000)
    assert not pace.is_due("a", 50, 1000)
    clock.s += 2
    assert pace.is_due("a", 50, 1000)
    clock.s += 59.9
    assert not pace.is_due("a", 51, 1000)
    clock.s += 0.2
    assert pace.is_due("a", 51, 1000)
    assert not pace.is_due("a", 51, 1000)
    assert pace.is_due("b", 51, 1000)
    assert pace.is_due("b", 1000, 1000)
    assert not pace.is_due("b", 1000, 1000)


def test_the_rate_is_that_of_the_last_minute(clock: Clock) -> None:
    rate = Rate(clock)
    assert rate.of(0) is None
    for second in range(1, 301):
        clock.s += 1
        last = rate.of(10 * min(second, 240) + 2 * max(0, second - 240))
    assert last == pytest.approx(2.0)


def test_a_run_without_a_terminal_writes_few_lines(
    shown: Callable[..., StringIO], clock: Clock, candidate: TrainedModel
) -> None:
    text = shown(is_terminal=False)
    display = RunDisplay(clock)
    statuses = Counter[str]()
    with display.progress("measuring") as show:
        show(Progress())
        for done in range(1, 401):
            clock.s += 0.5
            statuses["timeout" if done % 100 == 0 else "ok"] += 1
            if done == 150:
                statuses["crashed"] += 1
            if done == 200:
                display.show_model(candidate.card, "2")
            show(Progress(cells=400, done=done, committed_now=done, statuses=statuses, agents=2))
    written = lines(text)
    assert written[0] == "measuring: starting agents"
    assert written[-1].startswith(
        "measuring: 400 of 400 cells (100 %), 2.0 cells/s, 2 agents, "
        "5 failed (4 timeout, 1 crashed), model 2: runtime error "
    )
    assert 20 < len(written) < 30


def test_a_run_that_stands_still_still_says_so(
    shown: Callable[..., StringIO], clock: Clock
) -> None:
    text = shown(is_terminal=False)
    with RunDisplay(clock).progress("measuring") as show:
        for _ in range(600):
            clock.s += 1
            show(Progress(cells=9, done=3, agents=1, training=True))
    written = lines(text)
    assert len(written) == 10
    assert set(written) == {"measuring: 3 of 9 cells (33 %), 1 agent, training, no model yet"}


def test_a_training_without_a_terminal_names_its_stages(
    shown: Callable[..., StringIO], clock: Clock
) -> None:
    text = shown(is_terminal=False)
    with stages("training", clock) as step:
        for done in range(10):
            clock.s += 25
            step("networks", done, 9)
        step("export", 0, 1)
    assert lines(text) == [
        "training: networks 0 of 9",
        "training: networks 3 of 9",
        "training: networks 6 of 9",
        "training: networks 9 of 9",
        "training: export",
    ]


def test_no_name_is_read_as_markup(shown: Callable[..., StringIO], clock: Clock) -> None:
    text = shown(is_terminal=True)
    with stages(MARKUP, clock) as step:
        step(MARKUP, 1, 2)
    assert text.getvalue().count(MARKUP) >= 2
    result, echo = StringIO(), StringIO()
    with redirect_stdout(result):
        terminal.show_rows(MARKUP, (MARKUP,), [(MARKUP,)])
        terminal.show_values(MARKUP, {MARKUP: MARKUP})
        terminal.show_line(MARKUP)
    assert result.getvalue().count(MARKUP) == 7
    with redirect_stderr(echo):
        terminal.echo_plan({"name": MARKUP}, verbose=False)
        terminal.echo_plan({"name": MARKUP}, verbose=True)
    assert echo.getvalue().count(MARKUP) == 2


def test_failures_are_named_by_reason() -> None:
    assert failures_text(Counter(ok=9)) == ""
    assert failures_text(Counter(ok=9, crashed=1, timeout=2)) == "3 failed (2 timeout, 1 crashed)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (130, "2 min"), (3e4, "8 h"), (9e5, "10 days")],
)
def test_an_age_has_one_unit(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_agents_without_cells_are_one_sentence() -> None:
    faults = {"node1/gpu0": "it does not answer"}
    assert faults_text(faults) == "node1/gpu0 gets no cells: it does not answer"
    faults["node2/gpu0"] = "it is not placed"
    assert faults_text(faults) == "node1/gpu0 and 1 more get no cells: it does not answer"
