"""benchmarks/record.py: cells of plans, measured without Ray and without a store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from benchmarks import record
from coordinator.plan.cells import plan_cells
from coordinator.plan.known_devices import known_device
from coordinator.plan.schema import Devices, Plan, read_plan
from gemmcast.arrow import read_samples
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row, blank, failed

ROOT = Path(__file__).resolve().parents[2]
PLAN = """
name = "replayed"
[devices]
kind = "replay"
dataset = "datasets/h100_demo.parquet"
[[sweep]]
family = "cublas"
dtypes = ["fp16", "bf16"]
shapes = { sample = 40, max = 1024 }
"""
NOT_THERE = ("ray", "deltalake", "mlflow", "skl2onnx", "typer", "rich", "sklearn", "nvmath")
"""Libraries that a GPU machine may lack."""
BARE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules.update(dict.fromkeys({NOT_THERE!r}))
from benchmarks.record import main
sys.exit(main(sys.argv[1:]))
"""
ON_EVERY = """
import json, os, sys
print(json.dumps([os.environ["CUDA_VISIBLE_DEVICES"], sys.argv[1:]]), flush=True)
sys.exit(int(os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"))
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def cells(cpu_cells: list[Cell]) -> list[Cell]:
    return cpu_cells[:60]


def problems(cells: Sequence[Cell]) -> list[list[Cell]]:
    return record._shuffled(cells, "seed")


def due(
    device: Device, index: int, count: int, recorded: dict[str, set[str]], share: float
) -> record.Due:
    return record.Due(device, record.Worker(index, count), recorded, Devices(second_board=share))


class FakeSupervisor:
    """Answers every cell at once; fails after some."""

    def __init__(
        self, device: Device, *, statuses: Sequence[str] = (), dies_after: int = 99
    ) -> None:
        self.device = device
        self.ended = False
        self._statuses = list(statuses)
        self._dies_after = dies_after

    def measure(self, cells: Sequence[Cell]) -> Iterator[Row | None]:
        try:
            for number, cell in enumerate(cells):
                if number == self._dies_after:
                    raise RuntimeError("died")
                yield None
                status = self._statuses.pop(0) if self._statuses else "ok"
                if status == "ok":
                    yield blank(cell, self.device, "fake")
                else:
                    yield failed(cell, self.device, "fake", status, "")
        finally:
            self.ended = True


def measured(path: Path) -> list[str]:
    return read_samples(path)["cell_id"].to_pylist()


def recording(path: Path, *, seconds: float = 1000.0) -> record.Recording:
    return record.Recording(path, 60, monotonic() + seconds)


def test_a_plan_is_recorded_with_its_ids_where_there_is_no_ray(
    plan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    words = [str(plan), "--out", str(out), "--limit-s", "600"]
    command = [sys.executable, "-c", BARE, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    planned = plan_cells(read_plan(plan), known_device("h100")).cells
    (path,) = out.iterdir()
    assert sorted(measured(path)) == sorted(cell.cell_id for cell in planned)
    assert "80 of 80 cells" in done.stdout.splitlines()[-1]
    # Again: nothing is left.
    assert record.main(words) == 0
    assert "0 of 0 cells" in capsys.readouterr().out
    assert list(out.iterdir()) == [path]


def test_it_stops_at_the_limit_and_ends_the_child(
    tmp_path: Path, cpu: Device, cells: list[Cell]
) -> None:
    supervisor = FakeSupervisor(cpu)
    out = tmp_path / "out.parquet"
    record._measure(supervisor, cells, recording(out, seconds=-1))  # type: ignore[arg-type]
    assert supervisor.ended
    assert not out.exists()


def test_what_was_measured_before_a_failure_is_written(
    tmp_path: Path, cpu: Device, cells: list[Cell]
) -> None:
    out = tmp_path / "out.parquet"
    supervisor: Any = FakeSupervisor(cpu, dies_after=7)
    with pytest.raises(RuntimeError, match="died"):
        record._measure(supervisor, cells, recording(out))
    assert measured(out) == [cell.cell_id for cell in cells[:7]]


def test_the_file_grows_while_measuring(
    tmp_path: Path, cpu: Device, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "WRITE_EVERY_S", -1.0)
    out = tmp_path / "out.parquet"
    rows = recording(out)
    for number, cell in enumerate(cells[:3], 1):
        rows.add(blank(cell, cpu, "fake"))
        assert not rows.is_over()
        assert len(measured(out)) == number
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_contended_cell_stays_due(tmp_path: Path, cpu: Device, cells: list[Cell]) -> None:
    out = tmp_path / "out.parquet"
    statuses = ["ok", "contended", "unsupported"]
    supervisor: Any = FakeSupervisor(cpu, statuses=statuses)
    record._measure(supervisor, cells[:3], recording(out))
    recorded = record._recorded([out])
    assert measured(out) == [cells[0].cell_id, cells[2].cell_id]
    assert set(recorded) == set(measured(out))
    assert list(due(cpu, 0, 1, recorded, 0.0).of([cells[:3]])) == [cells[1]]


def test_workers_divide_the_problems(cpu: Device, cells: list[Cell]) -> None:
    shuffled = problems(cells)
    first = list(due(cpu, 0, 2, {}, 0.0).of(shuffled))
    second = list(due(cpu, 1, 2, {}, 0.0).of(shuffled))
    assert sorted(cell.cell_id for cell in first + second) == sorted(c.cell_id for c in cells)
    assert not {cell.gemm for cell in first} & {cell.gemm for cell in second}
    assert len(first) == len(second)


@pytest.mark.parametrize(("replicate", "share"), [("per_type", (1, 2)), ("per_gpu", (0, 1))])
def test_a_plan_may_want_every_cell_on_every_gpu(
    make_plan: Callable[..., Plan], replicate: str, share: tuple[int, int]
) -> None:
    plan = make_plan(devices={"replicate": replicate})
    assert record._share_of(plan, record.Worker(1, 2)) == record.Worker(*share)
    assert record._share_of(plan, None) == record.Worker(0, 1)


def test_the_order_is_random_and_keeps_problems_together(cells: list[Cell]) -> None:
    shuffled = problems(cells)
    assert [cell for problem in shuffled for cell in problem] != cells
    assert record._shuffled(cells, "seed") == shuffled
    assert record._shuffled(cells, "other") != shuffled
    for problem in shuffled:
        assert len({cell.gemm for cell in problem}) == 1
    assert len({problem[0].gemm for problem in shuffled}) == len(shuffled)


def test_a_share_is_measured_on_the_next_gpu_too(cpu: Device, cells: list[Cell]) -> None:
    shuffled = problems(cells)
    firsts = [set(due(cpu, i, 3, {}, 0.0).of(shuffled)) for i in range(3)]
    everything = [list(due(cpu, i, 3, {}, 0.3).of(shuffled)) for i in range(3)]
    for i in range(3):
        assert len(set(everything[i])) == len(everything[i])
        assert firsts[i] < set(everything[i])
        assert set(everything[i]) - firsts[i] < firsts[i - 1]


def test_what_one_other_board_recorded_is_measured_here_too(cpu: Device, cells: list[Cell]) -> None:
    def drawn(*boards: str) -> list[Cell]:
        recorded = {cell.cell_id: set(boards) for cell in cells}
        return list(due(cpu, 0, 1, recorded, 0.3).of([cells]))

    assert 0 < len(drawn("another")) < len(cells)
    assert not drawn(cpu.uuid)
    assert not drawn("another", cpu.uuid)
    assert not drawn("another", "third")


def test_the_share_for_a_second_board_is_the_plans_unless_one_is_given() -> None:
    devices = Devices(second_board=0.2)
    assert record._with_share(devices, None) == devices
    assert record._with_share(devices, 0.0) == Devices(second_board=0.0)


def test_of_several_gpus_one_measures_what_another_board_recorded(
    cpu: Device, cells: list[Cell]
) -> None:
    recorded = {cell.cell_id: {"another"} for cell in cells}
    shuffled = problems(cells)
    one = set(due(cpu, 0, 1, recorded, 0.3).of(shuffled))
    each = [list(due(cpu, i, 2, recorded, 0.3).of(shuffled)) for i in range(2)]
    assert len(each[0]) + len(each[1]) == len(one)
    assert set(each[0] + each[1]) == one


def test_every_gpu_has_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(ON_EVERY)
    monkeypatch.setattr(record, "__file__", str(script))
    assert record._on_every(["GPU-a", "GPU-b"], ["plan.toml"]) == 1
    started = sorted(json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert started == [
        ["GPU-a", ["plan.toml", "--worker", "0/2"]],
        ["GPU-b", ["plan.toml", "--worker", "1/2"]],
    ]
    assert record._on_every(["GPU-a"], []) == 0


def test_plans_with_other_bounds_are_refused(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    other = tmp_path / "other.toml"
    other.write_text(PLAN.replace("replayed", "other") + "[measure]\ntimeout_s = 9.0\n")
    out = tmp_path / "out"
    words = [str(plan), str(other), "--out", str(out), "--limit-s", "9"]
    assert record.main(words) == 2
    assert "PLAN = 'other': its [devices] or bounds of [measure]" in capsys.readouterr().err
    assert not out.exists()


def test_a_plan_for_gpus_needs_one(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "visible_gpus", list)
    plan.write_text(PLAN.replace('"replay"', '"cuda"').replace("dataset =", "#"))
    words = [str(plan), "--out", str(tmp_path / "out"), "--limit-s", "9"]
    assert record.main(words) == 2
    assert "devices.kind = 'cuda'" in capsys.readouterr().err
