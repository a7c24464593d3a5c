"""The contracts of coordinator/fleet/interface.py, run over Ray and over the fakes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import sleep

import pyarrow as pa
import pytest
import ray
from fake_fleet import FakeAgent, FakeFleet, FakeTrainer, Measure
from ray._private import worker as ray_worker

from coordinator.fleet.champion import ChampionWatch
from coordinator.fleet.cluster import RayFleet
from coordinator.fleet.connection import EMBEDDED, connect, keep_rays_messages_off
from coordinator.fleet.interface import (
    Champions,
    Ended,
    Event,
    Fleet,
    Left,
    Ready,
    Samples,
    Trainer,
)
from coordinator.fleet.leases import MAX_DEATHS
from coordinator.fleet.scheduler import Scheduler
from coordinator.fleet.trainer import RayTrainer
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.samples.store import SampleStore
from costmodel.settings import TrainSettings
from gemmcast import TunedTable, modeldir, tabledir
from gemmcast.arrow import SCHEMA
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import ShippedModel
from gemmcast.tabledir import Shipped, version_of
from registry.registry import Registry
from tests.small_base import small_base
from tests.small_tables import KEY, table

MakePlan = Callable[..., Plan]
POLL_S = 0.2
MAX_POLLS = 4500
CELLS = 12
TABLES = [Shipped(data=table(1, 16).to_json().encode(), version="2")]


def poll_until(fleet: Fleet, is_over: Callable[[list[Event]], bool]) -> list[Event]:
    """All events until the condition holds."""
    events: list[Event] = []
    for _ in range(MAX_POLLS):
        events += fleet.poll(POLL_S)
        if is_over(events):
            return events
    raise AssertionError(f"after {MAX_POLLS} polls: {events}")


def of_kind(events: list[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


class DeadlyFleet(RayFleet):
    """Each lease kills its agent, if that is wanted."""

    kills = False
    killed = 0

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        super().lease(agent, lease, cells)
        if self.kills:
            os.kill(pid_of(agent), signal.SIGKILL)
            self.killed += 1


def pid_of(agent: str) -> int:
    """The process of an agent: an argument of its measuring child's command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "agent.child" in words and agent in words:
                return int(words[words.index(agent) - 1])
    raise AssertionError(f"{agent} has no measuring child")


class FleetContract:
    """A fleet of one agent, which measures a CPU."""

    @pytest.fixture
    def agent(self, fleet: Fleet) -> Ready:
        """Already an event."""
        (ready,) = of_kind(poll_until(fleet, bool), Ready)
        assert isinstance(ready, Ready)
        return ready

    @pytest.fixture
    def cells(self, agent: Ready, make_plan: MakePlan) -> list[Cell]:
        return plan_cells(make_plan({"sample": CELLS, "max": 64}), agent.device).cells

    def test_an_agent_is_ready_once_and_then_known(self, fleet: Fleet, agent: Ready) -> None:
        assert agent.device.kind == "cpu"
        assert agent.host
        assert fleet.ready_agents() == [agent]
        assert fleet.starting() == 0
        assert fleet.poll(POLL_S) == []

    def test_a_lease_ends_once_after_all_its_samples(
        self, fleet: Fleet, agent: Ready, cells: list[Cell]
    ) -> None:
        fleet.lease(agent.agent, 7, cells)
        events = poll_until(fleet, lambda events: bool(of_kind(events, Ended)))
        assert events[-1] == Ended(agent=agent.agent, lease=7)
        batches = events[:-1]
        assert batches
        ids: list[str] = []
        for batch in batches:
            assert isinstance(batch, Samples)
            assert (batch.agent, batch.lease) == (agent.agent, 7)
            assert batch.table.schema.names == SCHEMA.names
            ids += batch.table["cell_id"].to_pylist()
        assert sorted(ids) == sorted(cell.cell_id for cell in cells)
        assert fleet.poll(POLL_S) == []

    def test_two_leases_of_an_agent_both_end(
        self, fleet: Fleet, agent: Ready, cells: list[Cell]
    ) -> None:
        fleet.lease(agent.agent, 1, cells[:5])
        fleet.lease(agent.agent, 2, cells[5:])
        events = poll_until(fleet, lambda events: len(of_kind(events, Ended)) == 2)
        ended = of_kind(events, Ended)
        assert {event.lease for event in ended if isinstance(event, Ended)} == {1, 2}
        rows = sum(len(event.table) for event in events if isinstance(event, Samples))
        assert rows == CELLS

    def test_models_and_tables_may_be_pushed_at_any_time(
        self, fleet: Fleet, agent: Ready, cells: list[Cell]
    ) -> None:
        fleet.push(ShippedModel(data=b"a model"), "1")
        fleet.push_tables(TABLES, version_of(TABLES))
        fleet.lease(agent.agent, 1, cells[:2])
        fleet.push(ShippedModel(data=b"another"), "2")
        events = poll_until(fleet, lambda events: bool(of_kind(events, Ended)))
        assert events[-1] == Ended(agent=agent.agent, lease=1)
        poll_until(fleet, lambda _: fleet.delivery.is_complete())
        assert fleet.delivery.state().text() == "Model 2 is on 1 of 1 nodes."
        poll_until(fleet, lambda _: fleet.tables_delivery.is_complete())
        sent = fleet.tables_delivery.state().text()
        assert sent == f"Table set {version_of(TABLES)} is on 1 of 1 nodes."

    def test_a_fleet_that_rests_has_no_agents_until_it_is_called_back(
        self, fleet: Fleet, agent: Ready, cells: list[Cell]
    ) -> None:
        fleet.push(ShippedModel(data=b"a model"), "1")
        fleet.rest(now=True)
        assert poll_until(fleet, bool) == [Left(agent=agent.agent)]
        assert fleet.ready_agents() == []
        assert fleet.poll(POLL_S) == []
        assert fleet.delivery.is_complete(), "nobody is missed"
        fleet.rest(now=False)
        assert poll_until(fleet, bool) == [agent]
        poll_until(fleet, lambda _: fleet.delivery.state().nodes_with_version == 1)
        fleet.lease(agent.agent, 1, cells[:2])
        events = poll_until(fleet, lambda events: bool(of_kind(events, Ended)))
        assert events[-1] == Ended(agent=agent.agent, lease=1)


class TestFakeFleet(FleetContract):
    @pytest.fixture
    def fleet(self, measure: Measure, cpu: Device) -> FakeFleet:
        return FakeFleet(measure, {"node0/cpu": FakeAgent(cpu)})


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        connect(EMBEDDED)
        yield
        ray.shutdown()


@pytest.mark.cluster
@pytest.mark.timeout(1000)
class TestRayFleet(FleetContract):
    @pytest.fixture
    def model_dir(self, tmp_path: Path) -> Path:
        return tmp_path / "node"

    @pytest.fixture
    def fleet(
        self, ray_cluster: None, make_plan: MakePlan, model_dir: Path
    ) -> Iterator[DeadlyFleet]:
        plan = make_plan(devices={"kind": "cpu"}, measure={"burst_s": 0.005})
        fleet = DeadlyFleet(plan, model_dir)
        yield fleet
        fleet.close()

    def test_what_an_agent_says_of_a_push_is_what_a_reader_gets(
        self, fleet: DeadlyFleet, agent: Ready, model_dir: Path
    ) -> None:
        blocker = model_dir / modeldir.CURRENT
        blocker.mkdir()
        fleet.push(ShippedModel(data=b"a model"), "1")
        poll_until(fleet, lambda _: "Is a directory" in str(fleet.delivery.state().missing))
        assert fleet.delivery.state().nodes_with_version == 0
        blocker.rmdir()
        poll_until(fleet, lambda _: fleet.delivery.is_complete())
        current = modeldir.read_current(model_dir)
        assert (current.version, modeldir.read_model(model_dir, current)) == ("1", b"a model")

    def test_tables_reach_the_readers_of_a_node(
        self, fleet: DeadlyFleet, agent: Ready, model_dir: Path
    ) -> None:
        blocker = model_dir / tabledir.CURRENT
        blocker.mkdir()
        fleet.push_tables(TABLES, version_of(TABLES))
        missing = fleet.tables_delivery.state
        poll_until(fleet, lambda _: "Is a directory" in str(missing().missing))
        blocker.rmdir()
        poll_until(fleet, lambda _: fleet.tables_delivery.is_complete())
        with TunedTable.following(model_dir, KEY) as follower:
            assert (follower.table, follower.version) == (table(1, 16), "2")

    def test_a_cell_that_kills_its_agent_is_tried_by_nobody_but_the_scheduler(
        self, fleet: DeadlyFleet, agent: Ready, make_plan: MakePlan, tmp_path: Path
    ) -> None:
        """With retries of Ray's own the lease would begin again, and end well."""
        store = SampleStore.open(tmp_path / "samples", create=True)
        plan = make_plan({"list": [[2048, 2048, 2048]]})
        fleet.kills = True
        assert Scheduler(plan, store, fleet, None).run(stop=lambda: False)
        (row,) = store.read().to_pylist()
        assert (row["status"], fleet.killed) == ("agent_lost", MAX_DEATHS)
        assert row["reason"].startswith("3 agents died under it: ")


class TrainerContract:
    """A trainer whose first model passes the gate.

    Subclasses have the fixtures `trainer` and `champions`.
    """

    def wait(self, trainer: Trainer, fleet: FakeFleet) -> None:
        for _ in range(MAX_POLLS):
            if not trainer.busy:
                return
            fleet.poll(POLL_S)
            self.pause()
        raise AssertionError("the training never ends")

    def pause(self) -> None:
        """Between two looks."""

    def test_a_model_is_there_when_the_trainer_is_not_busy_any_more(
        self,
        trainer: Trainer,
        champions: Champions,
        clock: FakeFleet,
        cpu_samples: pa.Table,
        store: SampleStore,
    ) -> None:
        assert not trainer.busy
        assert champions.newest() is None
        store.append([cpu_samples])
        trainer.start(store.snapshot())
        assert trainer.busy
        assert champions.newest() is None
        self.wait(trainer, clock)
        newest = champions.newest()
        assert newest is not None
        model, version = newest
        assert model.data
        assert version == "1"
        assert champions.newest() is None


@pytest.fixture
def clock(measure: Measure, cpu: Device) -> FakeFleet:
    """A fleet whose polls make time pass for the fake trainer."""
    return FakeFleet(measure, {"elsewhere/cpu": FakeAgent(replace(cpu, uuid="CPU-elsewhere"))})


class TestFakeTrainer(TrainerContract):
    @pytest.fixture
    def trainer(self, clock: FakeFleet) -> FakeTrainer:
        return FakeTrainer(clock)

    @pytest.fixture
    def champions(self, trainer: FakeTrainer) -> Champions:
        return trainer


@pytest.mark.cluster
@pytest.mark.timeout(1000)
class TestRayTrainer(TrainerContract):
    @pytest.fixture
    def champions(self, tmp_path: Path) -> ChampionWatch:
        """It looks only when a training has ended."""
        return ChampionWatch(Registry(tmp_path / "registry"), on_new=lambda *_: None)

    @pytest.fixture
    def trainer(self, ray_cluster: None, champions: ChampionWatch, tmp_path: Path) -> RayTrainer:
        registry = Registry(tmp_path / "registry")
        return RayTrainer(
            TrainSettings(), registry, tmp_path, on_trained=lambda *_: champions.look()
        )

    def pause(self) -> None:
        sleep(POLL_S)

    def test_a_base_is_published_before_any_sample(
        self,
        ray_cluster: None,
        champions: ChampionWatch,
        clock: FakeFleet,
        power_samples: pa.Table,
        gpu: Device,
        tmp_path: Path,
    ) -> None:
        registry, base = Registry(tmp_path / "registry"), small_base(power_samples)

        def start() -> RayTrainer:
            return RayTrainer(
                TrainSettings(), registry, tmp_path, lambda *_: champions.look(), [base]
            )

        trainer = start()
        trainer.join(gpu)
        self.wait(trainer, clock)
        newest = champions.newest()
        assert newest is not None
        assert (newest[0].data, newest[1]) == (base.model, "1")
        again = start()
        again.join(gpu)
        self.wait(again, clock)
        assert [version.number for version in registry.list()] == ["1"]


def test_rays_messages_stay_out_of_the_result_of_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_worker, "_worker_logs_enabled", True)

    def report(lines: str) -> str:
        data = {"lines": [lines], "pid": "raylet", "is_err": False}
        ray_worker.print_to_stdstream(data, ignore_prefix=False)
        return capsys.readouterr().out

    assert "Raylet is terminated" in report("Raylet is terminated")
    keep_rays_messages_off()
    assert report("The node has been marked dead") == ""
