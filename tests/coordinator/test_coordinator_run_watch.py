"""What a run notes of itself: counts, live.json, and the metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from coordinator.fleet.commits import CommitQueue
from coordinator.fleet.fresh_errors import FreshErrors
from coordinator.fleet.interface import Progress
from coordinator.fleet.live import FAILED, LiveRun
from coordinator.fleet.meters import METRICS, ExportedMeters
from coordinator.fleet.run_watch import RunNote, RunWatch, version_number
from coordinator.fleet.scheduler import Scheduler
from coordinator.fleet.tally import Tally
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from costmodel.train import TrainedModel
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError, UnavailableError
from gemmcast.modeldir import ShippedModel
from tests.coordinator.fake_fleet import FakeAgent, FakeFleet, Measure, never, run_all
from tests.made_up_clock import Clock

SICK = ({"board": "GPU-1", "device": "H100", "reason": ""}, True)


class FakeMeters:
    """Remembers the last values, and how often each gauge was set."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = defaultdict(float)
        self.sets: dict[tuple[str, ...], int] = defaultdict(int)

    def set(self, name: str, value: float, **labels: str) -> None:
        self._check(name, "gauge", labels)
        self.values[name, *labels.values()] = value
        self.sets[name, *labels.values()] += 1

    def add(self, name: str, amount: float, **labels: str) -> None:
        self._check(name, "counter", labels)
        self.values[name, *labels.values()] += max(0.0, amount)

    def _check(self, name: str, kind: str, labels: dict[str, str]) -> None:
        (metric,) = (metric for metric in METRICS if metric.name == name)
        assert (metric.kind, metric.labels) == (kind, tuple(labels))


class Watched:
    """A run of a fake fleet, and all that watches it."""

    def __init__(self, plan: Plan, store: SampleStore, fleet: FakeFleet, path: Path) -> None:
        self.fleet, self.path = fleet, path
        self.meters = FakeMeters()
        self.tally = Tally(fleet.now_s)
        self.scheduler = Scheduler(plan, store, fleet, None, tally=self.tally, now_s=fleet.now_s)
        note = RunNote("paper", "2026-01-01T12:00:00Z", path)
        self.watch = RunWatch(note, fleet, self.meters, self.tally, lambda: [SICK], fleet.now_s)

    def live(self) -> LiveRun:
        run = LiveRun.read(self.path)
        assert run is not None
        return run


@pytest.fixture
def watched(
    tmp_path: Path,
    make_plan: Callable[..., Plan],
    store: SampleStore,
    fleet: Callable[..., FakeFleet],
    cpu: Device,
) -> Watched:
    # Rows on paper name their agent by its board.
    boards = [replace(cpu, uuid=uuid) for uuid in ("node0", "node1")]
    agents = {f"{board.uuid}/agent": FakeAgent(board) for board in boards}
    plan = make_plan({"sample": 80, "max": 512})
    return Watched(plan, store, fleet(agents, batch=1), tmp_path / "live.json")


def test_a_run_gives_its_figures_to_the_metrics(watched: Watched) -> None:
    seen: list[float] = []
    due: list[float] = []

    def show(progress: Progress) -> None:
        if progress.done and not watched.fleet.pushed:
            watched.fleet.push(b"model", "7")
        watched.watch.look(progress)
        seen.append(watched.meters.values["gemmcast_agent_busy_ratio", "node0/agent"])
        due.append(watched.meters.values["gemmcast_cells_due",])

    assert watched.scheduler.run(stop=never, show=show)
    watched.watch.end(watched.scheduler.progress, is_complete=True)
    values = watched.meters.values
    cells = watched.scheduler.progress.cells
    assert values["gemmcast_cells",] == cells > 0
    assert max(due) > 0
    assert values["gemmcast_cells_due",] == 0
    assert values["gemmcast_rows_total", "ok"] == watched.live().rows >= cells
    assert values["gemmcast_commits_total",] == watched.tally.commits > 1
    assert watched.meters.sets["gemmcast_commit_lag_seconds",] > 0
    assert values["gemmcast_champion_version",] == 7
    assert values["gemmcast_agent_model_version", "node1/agent"] == 7
    assert values["gemmcast_agents_without_champion",] == 0
    assert values["gemmcast_cells_per_second",] > 0
    assert max(seen) > 0.5
    assert values["gemmcast_board_sick", "GPU-1", "H100", ""] == 1
    assert values["gemmcast_run_active",] == 0
    # Ray's exporter forgets what is not set again and again.
    assert watched.meters.sets["gemmcast_cells",] > 2
    assert watched.meters.sets["gemmcast_agent_model_version", "node0/agent"] > 2


def test_live_json_has_the_run_and_its_agents(watched: Watched) -> None:
    watched.fleet.stopped.add("node1/agent")
    watched.scheduler.run(stop=lambda: watched.fleet.polls > 60, show=watched.watch.look)
    run = watched.live()
    assert (run.state, run.plan) == ("measuring", "paper")
    assert run.done + run.due == run.cells
    assert run.agents["node0/agent"].rows == run.rows > 0
    watched.watch.end(watched.scheduler.progress, is_complete=False)
    assert watched.live().state == "stopped"


def test_an_agent_that_falls_silent_is_a_fault_with_its_reason(watched: Watched) -> None:
    def show(progress: Progress) -> None:
        if watched.fleet.polls == 10:
            watched.fleet.stopped.add("node1/agent")
        watched.watch.look(progress)

    watched.scheduler.run(stop=lambda: watched.fleet.polls > 60, show=show)
    agent = watched.live().agents["node1/agent"]
    assert agent.state == "fault"
    assert "does not answer" in agent.reason
    assert watched.meters.values["gemmcast_agents", "fault"] == 1
    assert watched.live().by_state()["fault"] == 1


def test_a_run_that_fails_says_so(watched: Watched) -> None:
    with pytest.raises(GemmcastError), watched.watch.noting_failure(Progress()):
        raise GemmcastError("the cluster is gone")
    assert watched.live().state == FAILED


def test_counters_grow_by_what_is_new_and_never_shrink(watched: Watched) -> None:
    progress = Progress(refused=7)
    for ok, failed in [(5, 2), (9, 1), (9, 3)]:
        progress.statuses.update(ok=ok - progress.statuses["ok"])
        progress.statuses["timeout"] = failed
        watched.watch.end(progress, is_complete=True)
    assert watched.meters.values["gemmcast_rows_total", "ok"] == 9
    assert watched.meters.values["gemmcast_rows_refused_total",] == 7
    assert watched.meters.values["gemmcast_rows_total", "timeout"] == 3


def test_trainings_are_counted_by_how_they_ended(watched: Watched) -> None:
    watched.tally.note_training("champion", 12.5)
    watched.tally.note_training("challenger", 4.0)
    watched.watch.end(Progress(), is_complete=True)
    watched.watch.end(Progress(), is_complete=True)
    values = watched.meters.values
    assert values["gemmcast_trainings_total", "champion"] == 1
    assert values["gemmcast_trainings_total", "challenger"] == 1
    assert values["gemmcast_training_seconds",] == 4.0


def test_a_training_that_a_run_leaves_behind_is_over(watched: Watched) -> None:
    progress = Progress()
    progress.training = True
    watched.watch.look(progress)
    assert watched.live().training
    assert watched.meters.values["gemmcast_training_active",] == 1
    watched.watch.end(progress, is_complete=True)
    assert not watched.live().training
    assert watched.meters.values["gemmcast_training_active",] == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"plan": "x", "agents": {}}', '{"agents": 3}'])
def test_a_damaged_live_json_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "live.json"
    assert LiveRun.read(path) is None
    path.write_text(text)
    assert LiveRun.read(path) is None


def test_rows_that_wait_for_a_store_that_fails_are_late(
    store: SampleStore, clock: Clock, cpu_samples: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, tally = CommitQueue(store, clock), Tally(clock)

    def fail(_batches: object) -> pa.Table:
        raise UnavailableError("sample store: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(store, "append", fail)
        commits.add(cpu_samples)
        for _ in range(3):
            clock.now += 20
            assert commits.commit() is None
        tally.look({}, commits.waiting_s(), commits.failures)
    assert (tally.lag_s, tally.store_failures) == (60.0, 3)
    committed = commits.commit()
    assert committed is not None
    assert committed.waited_s == 60.0
    assert commits.waiting_s() == 0.0


def test_the_champion_is_compared_with_rows_that_came_after_it(
    candidate: TrainedModel, cpu_cells: list[Cell], cpu: Device, measure: Measure, clock: Clock
) -> None:
    fresh = FreshErrors(clock)
    slower = [
        {**row, "runtime_us": 2 * row["runtime_us"]}
        for row in (measure(cell, cpu) for cell in cpu_cells[:60])
    ]
    fresh.note_rows(to_table(slower))
    fresh.note_model(candidate.model, "3")
    clock.now += 61
    fresh.look()
    fresh.wait()
    assert fresh.newest is None, "rows from before it count"
    fresh.note_rows(to_table(slower))
    clock.now += 61
    fresh.look()
    fresh.wait()
    assert fresh.newest is not None
    assert (fresh.newest.version, fresh.newest.rows) == ("3", 60)
    assert 0.4 < fresh.newest.error_ratio < 0.6
    fresh.note_model(candidate.model, "4")
    clock.now += 61
    fresh.look()
    fresh.wait()
    assert fresh.newest is None, "version 4 may have been trained on them"


def test_a_run_gives_each_champion_and_each_commit_to_the_comparison(
    make_plan: Callable[..., Plan], store: SampleStore, fleet: Callable[..., FakeFleet]
) -> None:
    models: list[str] = []
    rows: list[int] = []
    champions = [(ShippedModel(data=b"model"), "9")]

    class Recorded(FreshErrors):
        def note_model(self, model: bytes, version: str) -> None:
            models.append(version)

        def note_rows(self, new: pa.Table) -> None:
            rows.append(len(new))

    class Registry:
        def newest(self) -> tuple[ShippedModel, str] | None:
            return champions.pop() if champions else None

    measuring = fleet()
    tally = Tally(measuring.now_s, Recorded(measuring.now_s))
    run_all(make_plan(), store, measuring, champions=Registry(), tally=tally)
    assert models == ["9"]
    assert sum(rows) == len(store.read()) > 0


def test_a_champion_that_cannot_be_read_costs_only_its_figure(
    cpu_samples: pa.Table, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = FreshErrors(clock)
    fresh.note_model(b"no model", "1")
    fresh.note_rows(cpu_samples)
    clock.now += 61
    fresh.look()
    fresh.wait()
    assert fresh.newest is None
    assert "error on fresh samples is not known" in caplog.text


def test_rays_instruments_get_names_meanings_and_labels() -> None:
    made: dict[str, Any] = {}

    class Instrument:
        def __init__(self, name: str, meaning: str, labels: tuple[str, ...]) -> None:
            self.calls: list[tuple[float, dict[str, str]]] = []
            made[name] = (self, meaning, labels)

        def set(self, value: float, tags: dict[str, str]) -> None:
            self.calls.append((value, tags))

        def inc(self, value: float, tags: dict[str, str]) -> None:
            # As Ray does.
            assert value > 0
            self.calls.append((value, tags))

    meters = ExportedMeters(Instrument, Instrument)
    meters.set("gemmcast_agents", 3, state="idle")
    meters.add("gemmcast_rows_total", 0, status="ok")
    meters.add("gemmcast_rows_total", 4, status="ok")
    assert made["gemmcast_agents"][0].calls == [(3.0, {"state": "idle"})]
    assert made["gemmcast_rows_total"][0].calls == [(4.0, {"status": "ok"})]
    assert {name: labels for name, (_, _, labels) in made.items()} == {
        metric.name: metric.labels for metric in METRICS
    }


def test_a_version_that_is_no_number_is_none() -> None:
    assert [version_number(one) for one in ("12", None, "v3")] == [12, 0, 0]
