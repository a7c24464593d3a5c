"""What keeps a large fleet cheap, and benchmarks/fleet_scale.py itself with a few agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.fleet.point import SECOND_BOARD, Offer, run_point
from coordinator.fleet.interface import Progress
from coordinator.fleet.pacing import BATCH_S, BATCHES_PER_S, GATHER_S, Gathering, batch_s
from coordinator.fleet.record import RECORD_S, Recorder, RunRecord
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from gemmcast.arrow import SCHEMA, from_bytes, to_bytes, to_table
from tests.coordinator.fake_fleet import FakeFleet
from tests.made_up_clock import Clock


@pytest.mark.parametrize("agents", [1, 8, 64, 256, 1024, 4096])
def test_all_agents_together_send_so_many_batches_a_second(agents: int) -> None:
    assert batch_s(agents) >= BATCH_S
    assert agents / batch_s(agents) <= BATCHES_PER_S
    if agents * 1.0 / BATCH_S <= BATCHES_PER_S:
        assert batch_s(agents) == BATCH_S


def test_a_poll_gathers_only_where_the_loop_was_quicker() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    assert gathering.left_s == 0
    gathering.polled()
    assert gathering.left_s == pytest.approx(GATHER_S)
    clock.now += GATHER_S / 2
    assert gathering.left_s == pytest.approx(GATHER_S / 2)
    clock.now += GATHER_S
    assert gathering.left_s == 0


def test_a_batch_is_the_same_behind_the_wire(cpu_samples: pa.Table) -> None:
    for table in (cpu_samples, cpu_samples.slice(3, 5), to_table([])):
        arrived = from_bytes(to_bytes(table))
        assert arrived.schema == SCHEMA
        assert arrived.equals(table)
    with pytest.raises(pa.ArrowInvalid):
        from_bytes(b"no batch at all")


def test_a_run_is_recorded_once_a_second_and_at_its_end(
    tmp_path: Path, fleet: Callable[..., FakeFleet]
) -> None:
    clock, workspace = Clock(), Workspace(tmp_path)
    recorder = Recorder(fleet(2), workspace, clock)

    def waiting() -> dict[str, str]:
        return RunRecord.read(workspace.run).waiting

    recorder.note(Progress(waiting={"a": "first"}))
    assert waiting() == {"a": "first"}
    clock.now += RECORD_S / 2
    recorder.note(Progress(waiting={"a": "second"}))
    assert waiting() == {"a": "first"}
    clock.now += RECORD_S / 2
    recorder.note(Progress(waiting={"a": "third"}))
    assert waiting() == {"a": "third"}
    recorder.keep(Progress())
    assert waiting() == {}


@pytest.mark.cluster
def test_a_fleet_of_replayed_agents_is_measured_to_its_last_row(tmp_path: Path) -> None:
    """benchmarks/fleet_scale.py, with three agents for a second."""
    offer = Offer.paced(3, rows_per_s=100.0, seconds=1.0)
    figures = run_point(offer, tmp_path)
    table = SampleStore.open(tmp_path / "samples", create=False).read()
    answers = list(zip(table["cell_id"].to_pylist(), table["device_uuid"].to_pylist(), strict=True))
    assert len(set(answers)) == len(answers) == figures["committed_rows"]
    assert figures["offered_rows"] >= figures["committed_rows"]
    cells = Counter(cell_id for cell_id, _ in answers)
    assert len(cells) == round(offer.rows / (1 + SECOND_BOARD))
    assert max(cells.values()) == 2
    assert figures["coordinator_cpu_s"] > 0
    assert 0 < figures["p99_lag_s"] <= figures["seconds"]
    assert figures["push_last_s"] is not None
