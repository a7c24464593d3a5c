"""A fleet of two types in one run: recorded H100s and H200s, and what must not mix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fake_fleet import FakeAgent, FakeFleet, FakeTrainer, run_all

from agent.devices.replay import ReplayInstrument
from coordinator.health.judge import judge
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan, parse_plan, read_plan
from coordinator.samples.describing import measured_devices
from coordinator.samples.store import SampleStore
from coordinator.sizes import sizes_of
from gemmcast import Predictor
from gemmcast.arrow import read_samples
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.rows import Row

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"
FILES = {H100: "h100_repeatability.parquet", H200: "h200_repeatability.parquet"}
H200_BUDGET = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of both recordings the rows of cuBLAS."""
    made = tmp_path_factory.mktemp("types")
    for file in FILES.values():
        table = read_samples(DATASETS / file)
        pq.write_table(table.filter(pc.equal(table["family"], "cublas")), made / file)
    return made


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    """The shapes of both recordings."""
    shapes = set[tuple[int, int, int]]()
    for file in FILES.values():
        table = read_samples(folder / file, ["m", "n", "k"])
        shapes |= {(row["m"], row["n"], row["k"]) for row in table.to_pylist()}
    path = folder / "types.toml"
    path.write_text(
        f"""
        name = "types"
        [devices]
        kind = "replay"
        dataset = {list(FILES.values())}
        agents = 2
        [measure]
        budgets = {{ h200 = {H200_BUDGET} }}
        [[sweep]]
        family = "cublas"
        dtypes = ["fp16", "tf32"]
        shapes = {{ list = {[list(shape) for shape in sorted(shapes)]} }}
        """
    )
    return read_plan(path)


@pytest.fixture(scope="module")
def recorded(plan: Plan) -> dict[str, ReplayInstrument]:
    """Agent -> what it answers from."""
    recordings = enumerate(plan.devices.recordings())
    return {
        f"node/replay{i}": ReplayInstrument(Path(one.dataset), f"replay{i}", one.device_name)
        for i, one in recordings
    }


def test_each_recording_has_its_agents(recorded: dict[str, ReplayInstrument], plan: Plan) -> None:
    assert [one.device.name for one in recorded.values()] == [H100, H100, H200, H200]
    sizes = sizes_of(plan, (), None)
    assert [(size.device, size.devices) for size in sizes] == [(H100, 2), (H200, 2)]
    assert [size.cells_in_budget for size in sizes] == [sizes[0].cells, H200_BUDGET]


@dataclass(frozen=True)
class Ran:
    """A run of both types over fake agents that answer from the recordings."""

    fleet: FakeFleet
    trainer: FakeTrainer
    table: pa.Table
    done: int

    def of(self, device: str) -> pa.Table:
        return self.table.filter(pc.equal(self.table["device"], device))

    def cell_ids(self, device: str) -> set[str]:
        return set(self.of(device)["cell_id"].to_pylist())


@pytest.fixture(scope="module")
def ran(
    plan: Plan, recorded: dict[str, ReplayInstrument], tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    by_device = {one.device.name: one for one in recorded.values()}

    def answer(cell: Cell, device: Device) -> Row:
        return by_device[device.name].measure(cell).row

    agents = {name: FakeAgent(one.device) for name, one in recorded.items()}
    fleet = FakeFleet(answer, agents)
    trainer = FakeTrainer(fleet)
    store = SampleStore.open(tmp_path_factory.mktemp("store") / "samples", create=True)
    scheduler = run_all(plan, store, fleet, trainer)
    return Ran(fleet, trainer, store.read(), scheduler.progress.done)


def test_each_cell_is_measured_once_by_an_agent_of_its_type(
    ran: Ran, plan: Plan, recorded: dict[str, ReplayInstrument]
) -> None:
    for name, cells in ran.fleet.leased:
        device = recorded[name].device
        planned = set(plan_cells(plan, device).cells)
        assert planned.issuperset(cells)
    assert set(ran.fleet.measured.values()) == {1}
    assert not ran.cell_ids(H100) & ran.cell_ids(H200)


def test_the_budget_of_a_type_is_its_own(ran: Ran, recorded: dict[str, ReplayInstrument]) -> None:
    assert len(ran.cell_ids(H200)) == len(ran.of(H200)) == H200_BUDGET
    assert len(ran.cell_ids(H100)) == len(ran.of(H100)) > H200_BUDGET
    assert ran.done == len(ran.table)


@pytest.mark.parametrize("device", FILES)
def test_readings_and_boards_are_those_of_the_own_recording(ran: Ran, device: str) -> None:
    recorded = read_samples(DATASETS / FILES[device], ["device_uuid", "runtime_us"])
    measured = ran.of(device).filter(pc.equal(ran.of(device)["status"], "ok"))
    assert len(measured) > 0
    for column in ("device_uuid", "runtime_us"):
        assert set(measured[column].to_pylist()) <= set(recorded[column].to_pylist())


def test_one_trainer_gets_all_types_each_with_its_description(ran: Ran) -> None:
    joined = {device.name for device in ran.trainer.joined}
    described = {device.name for device in measured_devices(ran.table)}
    assert joined == described == {H100, H200}


@pytest.mark.parametrize("device", FILES)
def test_a_board_is_judged_by_its_own_type(ran: Ran, device: str) -> None:
    """The rows of the other one change nothing."""
    with Predictor() as predictor:
        together = judge(ran.table, predictor)
        alone = judge(ran.of(device), predictor)
    assert alone
    assert alone == [verdict for verdict in together if verdict.device == device]


def test_datasets_are_named_one_by_one(folder: Path) -> None:
    sweep = {"family": "cublas", "shapes": {"sample": 1}}
    devices = {"kind": "replay", "dataset": []}
    with pytest.raises(InputError, match=r"dataset = \"FILE.parquet\" go together"):
        parse_plan({"name": "none", "devices": devices, "sweep": [sweep]})
    path = folder / "gone.toml"
    path.write_text(
        f"""
        name = "gone"
        devices = {{ kind = "replay", dataset = ["{FILES[H100]}", "gone.parquet"] }}
        sweep = [{{ family = "cublas", shapes = {{ sample = 1 }} }}]
        """
    )
    with pytest.raises(InputError, match=r"devices.dataset = 'gone.parquet': no such file"):
        read_plan(path)
