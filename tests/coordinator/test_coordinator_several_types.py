"""A fleet of two types in one run: recorded H100s and H200s, and what must not mix."""

from __future__ import annotations

from pathlib import Path

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


def test_a_run_of_two_types_mixes_nothing(
    plan: Plan, recorded: dict[str, ReplayInstrument], store: SampleStore
) -> None:
    by_name = {one.device.name: one for one in recorded.values()}

    def answer(cell: Cell, device: Device) -> Row:
        return by_name[device.name].measure(cell).row

    agents = {name: FakeAgent(one.device) for name, one in recorded.items()}
    fleet = FakeFleet(answer, agents)
    trainer = FakeTrainer(fleet)
    scheduler = run_all(plan, store, fleet, trainer)
    planned = {name: plan_cells(plan, one.device).cells for name, one in by_name.items()}
    ids = {name: {cell.cell_id for cell in cells} for name, cells in planned.items()}
    assert not ids[H100] & ids[H200]

    # Each cell once, by an agent of its own type; the budget is one type's alone.
    for name, cells in fleet.leased:
        assert {cell.device_key for cell in cells} == {agents[name].device.name}
    table = store.read()
    rows = table.to_pylist()
    answered = {name: [row for row in rows if row["device"] == name] for name in ids}
    assert {row["cell_id"] for row in answered[H100]} == ids[H100]
    assert {row["cell_id"] for row in answered[H200]} < ids[H200]
    assert len(answered[H200]) == H200_BUDGET
    assert len(rows) == len(ids[H100]) + H200_BUDGET == scheduler.progress.done

    # Readings, boards and versions are those of the own recording.
    for name, file in FILES.items():
        boards = read_samples(DATASETS / file, ["device_uuid"])["device_uuid"].to_pylist()
        assert {row["device_uuid"] for row in answered[name]} <= set(boards)
        assert any(row["status"] == "ok" for row in answered[name])
    assert {device.name for device in measured_devices(table)} == {H100, H200}
    assert {device.name for device in trainer.joined} == {H100, H200}

    # A board is judged by its own type: the other one's rows change nothing.
    with Predictor() as predictor:
        together = {one.board: one for one in judge(table, predictor)}
        for name in FILES:
            alone = judge(table.filter(pc.equal(table["device"], name)), predictor)
            assert alone == [together[one.board] for one in alone]


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
