"""`status --watch`: what it shows, at which width, and how it ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coordinator import cli_status, terminal
from coordinator.fleet.live import ENDED, MEASURING, STOPPED, LiveAgent, LiveRun
from coordinator.live_nodes import nodes_of
from coordinator.live_view import View, render

Ended = subprocess.CompletedProcess[str]
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
H100 = "NVIDIA H100 80GB HBM3"
WELL = LiveAgent(
    device=H100, state="measuring", rows=100, cells_per_s=7.1, busy_ratio=0.98, model="7"
)
SILENT = LiveAgent(device=H100, state="fault", reason="it does not answer", failed=2, model="6")
WAITS = LiveAgent(device=H100, state="waiting", reason="2 other process(es) hold this GPU")
RUN = LiveRun(
    plan="paper",
    started_at="2026-01-01T11:48:00.000Z",
    at="2026-01-01T11:59:59.000Z",
    state=MEASURING,
    cells=20_000,
    done=1_234,
    budget="",
    cells_per_s=56.7,
    eta_s=331.0,
    lag_s=0.7,
    loop_s=0.2,
    rows=1_234,
    statuses={"ok": 1_231, "timeout": 2, "crashed": 1},
    refused=0,
    commits=99,
    store_failures=0,
    training=True,
    champion="7",
    without_champion=1,
    fresh_error_ratio=0.041,
    second_due=40,
    starting=0,
)


def fleet(nodes: int, gpus: int = 8) -> dict[str, LiveAgent]:
    """The last GPU of the last node is silent, the one before it waits."""
    agents = {f"gpu-node-{i:02}-1a2b/gpu{j}": WELL for i in range(nodes) for j in range(gpus)}
    *_, waits, silent = agents
    return agents | {waits: WAITS, silent: SILENT}


def view(run: LiveRun | None = None, **changes: Any) -> View:
    values = {"workspace": "/ws", "now": NOW, "run": run, "is_held": True, **changes}
    return View(**values)


def text_of(shown: View, width: int, lines: int | None = None) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, markup=False, highlight=False, emoji=False)
    console.print(render(shown, lines))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 140])
def test_it_fits_the_terminal_and_keeps_figures_whole(width: int) -> None:
    lines = text_of(view(replace(RUN, agents=fleet(4))), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for words in (
        "run paper: measuring for 12 min",
        "1,234 of 20,000 (6 %), 18,766 due, 40 due on a second board",
        "56.7 cells/s, 6 min left, lag 0.7 s",
        "30 measuring, 1 waiting, 1 fault",
        "7 not yet on 1 of 32 agents, error on fresh samples 4.1 %, training",
        "3 (2 timeout, 1 crashed)",
        "8 x H100",
        "gpu-node-03-1a2b/gpu7 gets no cells: it does not answer",
        "gpu-node-03-1a2b/gpu6 waits: 2 other process(es) hold this GPU",
    ):
        assert words in text
    (row,) = (line for line in lines if line.startswith(" gpu-node-03"))
    assert "42.6" in row
    assert "74 %" in row
    assert "mixed  1 waiting" in row


@pytest.mark.parametrize(
    ("run", "held", "model"),
    [
        (replace(RUN, champion=None), True, "training the first"),
        (replace(RUN, champion=None), False, "none yet"),
        (
            replace(RUN, without_champion=0),
            True,
            "7 on all agents, error on fresh samples 4.1 %, training",
        ),
        (
            replace(RUN, without_champion=0, state=STOPPED),
            True,
            "7 on all agents, error on fresh samples 4.1 %",
        ),
    ],
)
def test_only_a_run_that_lasts_is_training(run: LiveRun, held: bool, model: str) -> None:
    (line,) = (line for line in text_of(view(run, is_held=held), 140) if "  model" in line)
    assert line == f"  model     {model}"


def test_on_a_very_narrow_terminal_texts_are_cut_and_figures_are_not() -> None:
    lines = text_of(view(replace(RUN, agents=fleet(4))), 64)
    assert max(map(len, lines)) <= 64
    (row,) = (line for line in lines if line.startswith(" gpu-node-03-1a2b "))
    assert " 42.6  74 %       2  mixed  " in row


def test_nodes_with_trouble_come_first_where_not_all_have_room() -> None:
    run = replace(RUN, agents=fleet(60))
    assert nodes_of(run)[0].name == "gpu-node-59-1a2b"
    lines = text_of(view(run), 80, lines=24)
    assert len(lines) <= 24
    rows = [line for line in lines if line.startswith(" gpu-node-")]
    assert rows[0].startswith(" gpu-node-59")
    assert f"and {60 - len(rows)} more nodes" in "\n".join(lines)


@pytest.mark.parametrize(
    ("run", "held", "words"),
    [
        (None, False, "workspace /ws: no run yet"),
        (replace(RUN, closed="until 22:00 (UTC)"), True, "run paper: waits until 22:00 (UTC)"),
        (None, True, "workspace /ws: a run starts"),
        (RUN, True, "waiting for agents for 12 min"),
        (replace(RUN, agents=fleet(1)), True, "measuring for 12 min"),
        (
            replace(RUN, agents=fleet(1), done=RUN.cells, second_due=0),
            True,
            "all measured, training for 12 min",
        ),
        (replace(RUN, state=ENDED), True, "ended, nothing left to measure (1 s ago)"),
        (
            replace(RUN, state=ENDED, at="2026-01-01T11:59:00Z"),
            True,
            "(60 s ago); another command writes there now",
        ),
        (RUN, False, "its process has died (1 s ago); start it again to go on"),
        (replace(RUN, at="2026-01-01T11:59:00Z"), True, "it has noted nothing for 60 s"),
        (replace(RUN, state=ENDED), False, "ended, nothing left to measure (1 s ago)"),
        (replace(RUN, state=STOPPED), False, "stopped; start it again to go on (1 s ago)"),
    ],
)
def test_the_first_line_says_what_the_run_does(run: LiveRun | None, held: bool, words: str) -> None:
    assert words in text_of(view(run, is_held=held), 100)[0]


def test_what_agents_do_is_shown_only_while_it_measures() -> None:
    run = replace(RUN, agents=fleet(1))
    now = "\n".join(text_of(view(run), 80))
    afterwards = "\n".join(text_of(view(replace(run, state=ENDED)), 80))
    for words in ("56.7 cells/s", "6 measuring", "waits: 2 other"):
        assert words in now
        assert words not in afterwards
    assert "8 took part" in afterwards
    assert "mixed" in afterwards


def test_sick_boards_are_named() -> None:
    lines = text_of(view(RUN, sick={"GPU-1": "is 4 % slower, since yesterday"}), 80)
    assert "board GPU-1 is 4 % slower, since yesterday" in lines


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Between two looks call these, one after another; then comes Ctrl-C."""

    def after_looks(*actions: Callable[[], object]) -> list[float]:
        pauses: list[float] = []
        left = list(actions)

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(cli_status, "sleep", pause)
        return pauses

    return after_looks


def started(workspace: Path) -> None:
    """As if a run of this process had begun a minute ago."""
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "workspace": ""}
    (workspace / "holder").write_text(json.dumps(holder))
    now = datetime.now(UTC)
    began = (now - timedelta(minutes=5)).isoformat()
    run = replace(RUN, started_at=began, at=now.isoformat(), agents=fleet(1))
    run.write(workspace / "live.json")


def test_in_a_pipe_it_prints_a_block_each_time_and_sees_a_run_start(
    tmp_path: Path, looks: Callable[..., list[float]], coordinator: Callable[..., Ended]
) -> None:
    pauses = looks(lambda: started(tmp_path))
    ended = coordinator("status", "--watch", "--every", "7", "--workspace", tmp_path)
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")
    assert pauses == [7.0, 7.0]
    first, second = ended.stdout.split("\n\n", 1)
    assert first.endswith("no run yet")
    assert "run paper: measuring for 5 min" in second
    assert "\x1b" not in ended.stdout


def test_on_a_terminal_it_changes_in_place(
    tmp_path: Path,
    looks: Callable[..., list[float]],
    coordinator: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started(tmp_path)
    looks(lambda: None)
    monkeypatch.setattr(terminal.out, "_force_terminal", True)
    monkeypatch.setattr(terminal.out, "is_interactive", True)
    monkeypatch.setenv("TERM", "xterm")
    ended = coordinator("status", "--watch", "--workspace", tmp_path)
    assert ended.returncode == 130
    hide, show, up = "\x1b[?25l", "\x1b[?25h", "\x1b[1A"
    assert ended.stdout.index(hide) < ended.stdout.index(up) < ended.stdout.index(show)


def test_with_json_each_look_is_one_object(
    tmp_path: Path, looks: Callable[..., list[float]], coordinator: Callable[..., Ended]
) -> None:
    looks(lambda: started(tmp_path))
    ended = coordinator("status", "--watch", "--json", "--workspace", tmp_path)
    before, after = map(json.loads, ended.stdout.splitlines())
    assert (before["running"], before["run"]) == (False, None)
    assert after["running"]
    assert after["run"]["agents"]["gpu-node-00-1a2b/gpu7"]["reason"] == "it does not answer"


@pytest.mark.parametrize("words", [("--every", "0"), ("--every", "nan"), ("--workspace", "gone")])
def test_what_cannot_be_watched_is_refused(
    words: tuple[str, str],
    tmp_path: Path,
    coordinator: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = coordinator("status", "--watch", "--workspace", tmp_path, *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {words[0]} = ")
