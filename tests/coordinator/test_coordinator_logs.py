"""`--log-format json`: one object a line, with the fields that an operator searches for."""

from __future__ import annotations

import json
import logging
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from coordinator import logs, terminal
from coordinator.fleet.commits import CommitQueue
from coordinator.fleet.due import Due
from coordinator.fleet.interface import Progress, Ready
from coordinator.fleet.leases import Leases
from coordinator.progress import RunDisplay, stages
from coordinator.samples.store import SampleStore
from gemmcast.device import Device
from tests.made_up_clock import Clock

Ended = subprocess.CompletedProcess[str]
Logged = Callable[[], list[dict[str, Any]]]
"""What was logged so far."""
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def as_before() -> Iterator[None]:
    """Logging is that of the whole process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in logs.OWN}
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, own in levels.items():
        logging.getLogger(name).setLevel(own)


@pytest.fixture
def lines(as_before: None, monkeypatch: pytest.MonkeyPatch) -> Logged:
    """What was logged as JSON so far."""
    text = StringIO()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", text)
        logs.log_as("json")
    return lambda: [json.loads(line) for line in text.getvalue().splitlines()]


def test_a_line_has_time_level_event_and_fields(
    lines: Logged,
) -> None:
    log = logging.getLogger("coordinator.test")
    log.warning("%d\nlines", 2, extra=logs.event("made_up", share=float("nan"), path=Path("a")))
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("it broke")
    first, second = lines()
    assert re.fullmatch(RFC_3339, first["time"])
    assert (first["level"], first["event"], first["message"]) == ("warning", "made_up", "2\nlines")
    assert first["fields"] == {"logger": "coordinator.test", "share": None, "path": "a"}
    assert (second["level"], second["event"]) == ("error", "log")
    assert second["fields"]["exception"].endswith("ValueError: bad")


def test_a_fault_of_an_agent_has_its_node_device_and_reason(
    lines: Logged, clock: Clock, store: SampleStore, cpu: Device
) -> None:
    leases = Leases(clock, Due(CommitQueue(store, clock)))
    leases.join(Ready(agent="host-1a2b/gpu3", device=cpu, host="host", local=False))
    for _ in range(8):
        clock.now += 1
        leases.note_answering([])
    leases.note_answering(["host-1a2b/gpu3"])
    silent, back = lines()
    assert (silent["event"], silent["level"]) == ("agent_fault", "warning")
    fields = silent["fields"]
    assert (fields["node"], fields["device"]) == ("host-1a2b", "gpu3")
    assert fields["reason"] == "it does not answer"
    assert back["event"] == "agent_back"


def test_a_run_logs_a_line_a_minute(lines: Logged, clock: Clock) -> None:
    statuses = Counter(ok=20, timeout=1)
    progress = Progress(cells=900, done=21, committed_now=21, statuses=statuses, agents=2)
    progress.lag_s, progress.champion = 0.7, "3"
    with RunDisplay(clock).progress("measuring") as show:
        for _ in range(180):
            show(progress)
            clock.now += 1
    logged = lines()
    assert len(logged) == 3
    fields = logged[-1]["fields"]
    assert logged[-1]["event"] == "progress"
    assert (fields["done"], fields["cells"], fields["agents"]) == (21, 900, 2)
    assert (fields["lag_s"], fields["champion"]) == (0.7, "3")
    assert (fields["failed"], fields["failures"]) == (1, {"timeout": 1})


def test_stages_and_plans_are_events(lines: Logged) -> None:
    terminal.echo_plan({"name": "paper", "event": 1}, verbose=False)
    with stages("training") as step:
        step("networks", 1, 2)
    plan, stage = lines()
    assert (plan["event"], plan["fields"]["name"]) == ("plan", "paper")
    assert (stage["event"], stage["fields"]["stage"]) == ("stage", "networks")


@pytest.mark.usefixtures("as_before")
def test_an_error_ends_with_one_object(coordinator: Callable[..., Ended], tmp_path: Path) -> None:
    gone = tmp_path / "gone.toml"
    ended = coordinator("--log-format", "json", "run", gone)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    values = json.loads(line)
    assert (values["level"], values["event"]) == ("error", "bad_input")
    assert values["fields"]["exit_code"] == 2
    assert "gone.toml" in values["message"]
    assert not values["message"].startswith("error:")


@pytest.mark.usefixtures("as_before")
def test_the_variable_does_the_same(
    coordinator: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMCAST_LOG", "json")
    ended = coordinator("status", "--no-such-option")
    assert json.loads(ended.stderr)["fields"]["exit_code"] == 2


def test_an_unknown_format_is_refused(coordinator: Callable[..., Ended]) -> None:
    ended = coordinator("--log-format", "xml", "status")
    assert ended.returncode == 2
    assert ended.stderr == "error: --log-format = 'xml': unknown format; give text or json\n"


def test_lines_for_people_stay_as_they_are(coordinator: Callable[..., Ended]) -> None:
    ended = coordinator("run", "gone.toml")
    assert ended.stderr.startswith("error: ")
