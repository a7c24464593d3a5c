"""The contracts of DeviceBackend and Instrument, run over every implementation and its fake."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from agent.child import IDENTITY, is_complete
from agent.devices import DeviceBackend
from agent.devices.cpu import CpuBackend, CpuClock
from agent.devices.replay import ReplayInstrument
from agent.instrument import Instrument, LiveInstrument
from agent.kernels import Prepared, load
from agent.messages import Outcome
from agent.timing import finish
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.sample import COLUMNS, STATUSES

PROCEDURE = Procedure(burst_s=0.005, min_burst_s=0.001, settle_s=0.01)
SMALL = Gemm(m=24, n=40, k=32)
MakeCell = Callable[..., Cell]


def _cpu_backend() -> CpuBackend:
    """On a clock that moves by a millisecond at each look."""
    ticks = count()
    return CpuBackend(CpuClock(now_s=lambda: next(ticks) * 1e-3, preemptions=lambda: 0))


class BackendContract:
    """What agent/devices/__init__.py promises of a DeviceBackend."""

    family = "blas"

    def prepare(self, backend: DeviceBackend, gemm: Gemm, *, cold: bool) -> tuple[Prepared, Any]:
        sets = backend.operands(gemm, cold=cold)
        config = KernelConfig(family=self.family)
        return load(self.family).prepare(gemm, config, sets), sets

    def burst(
        self, backend: DeviceBackend, *, cold: bool = False
    ) -> tuple[Any, Any, Prepared, Any]:
        prepared, sets = self.prepare(backend, SMALL, cold=cold)
        prepared.launch(0)
        backend.pending().wait()
        steps = backend.burst(prepared, sets, PROCEDURE, cold=cold)
        burst, columns = finish(steps)
        return burst, columns, prepared, sets

    def test_it_identifies_itself_the_same_every_time(self, backend: DeviceBackend) -> None:
        device = backend.identify()
        assert device == backend.identify()
        assert device.name
        assert device.uuid

    def test_characterising_adds_measurements_and_changes_no_identity(
        self, backend: DeviceBackend
    ) -> None:
        known, measured = backend.identify(), backend.characterise()
        assert is_complete(measured)
        assert min(measured.peak_tflops.values()) > 0
        assert measured.dram_gbps > 0
        assert min(measured.empty_kernel_us, measured.empty_launch_us) > 0
        for name in IDENTITY:
            assert getattr(measured, name) == getattr(known, name)

    def test_some_cells_may_be_under_way(self, backend: DeviceBackend) -> None:
        assert backend.depth >= 1

    @pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
    def test_operands_have_the_shapes_of_the_layout(
        self, backend: DeviceBackend, layout: str
    ) -> None:
        gemm = Gemm(m=6, n=5, k=4, batch=3, layout=layout)
        (operands,) = backend.operands(gemm, cold=False)
        assert operands.a.shape == ((3, 4, 6) if layout[0] == "t" else (3, 6, 4))
        assert operands.b.shape == ((3, 5, 4) if layout[1] == "t" else (3, 4, 5))
        assert operands.c.shape == (3, 6, 5)

    def test_the_same_problem_gives_the_same_operands(self, backend: DeviceBackend) -> None:
        warm = backend.operands(SMALL, cold=False)
        assert backend.operands(SMALL, cold=False) is warm
        assert backend.operands(SMALL, cold=True) is not warm

    def test_there_are_more_cold_sets_than_warm_ones(self, backend: DeviceBackend) -> None:
        assert len(backend.operands(SMALL, cold=False)) == 1
        assert len(backend.operands(SMALL, cold=True)) > 1

    def test_operands_are_standard_normal_numbers(self, backend: DeviceBackend) -> None:
        (operands,) = backend.operands(Gemm(m=256, n=256, k=256), cold=False)
        for array in (operands.a, operands.b):
            values = np.asarray(backend.read(array))
            assert abs(float(values.mean())) < 0.05
            assert abs(float(values.std()) - 1) < 0.05

    def test_a_result_can_be_read_when_it_is_done(self, backend: DeviceBackend) -> None:
        prepared, sets = self.prepare(backend, SMALL, cold=False)
        prepared.launch(0)
        backend.pending().wait()
        a, b, c = (np.asarray(backend.read(getattr(sets[0], name))) for name in "abc")
        assert np.allclose(c, np.matmul(a, b), atol=1e-3)

    @pytest.mark.parametrize("cold", [True, False])
    def test_a_burst_has_a_time_and_columns_of_the_schema(
        self, backend: DeviceBackend, cold: bool
    ) -> None:
        burst, columns, _, _ = self.burst(backend, cold=cold)
        assert burst.runtime_us > 0
        assert burst.runtime_rse >= 0
        assert burst.launches_timed > 0
        assert set(columns) <= set(COLUMNS)

    def test_power_is_read_where_nothing_speaks_against_it(self, backend: DeviceBackend) -> None:
        burst, _, prepared, sets = self.burst(backend)
        calls: list[str] = []

        def meter() -> Any:
            return backend.power(
                prepared,
                sets,
                burst,
                PROCEDURE,
                cold=False,
                step_s=None,
                meanwhile=lambda: calls.append("meanwhile"),
            )

        if backend.no_power() is not None:
            with pytest.raises(MeasurementError) as caught:
                meter()
            assert (caught.value.status, calls) == ("unsupported", [])
            return
        reading = meter()
        assert calls == ["meanwhile"]
        assert min(reading.power_w, reading.sustained_runtime_us, reading.window_s) > 0
        assert reading.counter_steps >= PROCEDURE.power_steps
        assert reading.dispute is None

    def test_a_device_without_other_processes_is_not_contended(
        self, backend: DeviceBackend
    ) -> None:
        assert backend.contention() is None


class TestCpuBackend(BackendContract):
    @pytest.fixture
    def backend(self) -> DeviceBackend:
        return _cpu_backend()


class TestFakeBackend(BackendContract):
    @pytest.fixture
    def backend(self, make_backend: Any, device: Any) -> DeviceBackend:
        return make_backend(device)


class TestFakeBackendWithoutPower(BackendContract):
    @pytest.fixture
    def backend(self, make_backend: Any, device: Any) -> DeviceBackend:
        return make_backend(device, no_power="this board has no total-energy counter")


class TestCudaBackend(BackendContract):
    family = "cublas"

    @pytest.fixture
    def backend(self, gpu: Any) -> DeviceBackend:
        from agent.devices.cuda import CudaBackend

        return CudaBackend(gpu.clock)


class InstrumentContract:
    """What agent/instrument.py promises of an Instrument."""

    def make_cells(self, make_cell: MakeCell) -> list[Cell]:
        """Three that can be measured, and one that cannot."""
        return [make_cell(m=m) for m in (8, 16, 24)] + [make_cell(m=32, dtype="bf16")]

    @pytest.fixture
    def cells(self, make_cell: MakeCell) -> list[Cell]:
        return self.make_cells(make_cell)

    def test_every_cell_gets_one_row(self, instrument: Instrument, cells: list[Cell]) -> None:
        outcomes = list(instrument.measure_all(cells))
        assert all(isinstance(outcome, Outcome) for outcome in outcomes)
        ids = sorted(outcome.row["cell_id"] for outcome in outcomes)
        assert ids == sorted(cell.cell_id for cell in cells)

    def test_rows_fit_the_schema(self, instrument: Instrument, cells: list[Cell]) -> None:
        rows = [outcome.row for outcome in instrument.measure_all(cells)]
        assert to_table(rows).schema == SCHEMA
        for row in rows:
            assert row["status"] in STATUSES
            assert (row["status"] == "ok") == (row["reason"] is None)
            assert row["agent"] == "me"
            assert row["device_uuid"] == instrument.device.uuid

    def test_what_can_be_measured_is_and_the_rest_says_why(
        self, instrument: Instrument, cells: list[Cell]
    ) -> None:
        rows = {outcome.row["cell_id"]: outcome.row for outcome in instrument.measure_all(cells)}
        for cell in cells[:3]:
            assert rows[cell.cell_id]["status"] == "ok"
            assert rows[cell.cell_id]["runtime_us"] > 0
        assert rows[cells[3].cell_id]["status"] in ("unsupported", "not_recorded")
        assert rows[cells[3].cell_id]["runtime_us"] is None

    def test_a_cell_is_announced_before_its_row(
        self, instrument: Instrument, cells: list[Cell]
    ) -> None:
        log: list[tuple[str, str]] = []

        def begun(cell: Cell) -> None:
            log.append(("begun", cell.cell_id))

        for outcome in instrument.measure_all(cells, begun=begun):
            log.append(("done", outcome.row["cell_id"]))
        assert [of for what, of in log if what == "begun"] == [cell.cell_id for cell in cells]
        for cell in cells:
            assert log.index(("begun", cell.cell_id)) < log.index(("done", cell.cell_id))

    def test_at_depth_one_cells_are_measured_one_by_one(
        self, instrument: Instrument, cells: list[Cell]
    ) -> None:
        log: list[str] = []
        for outcome in instrument.measure_all(
            cells, depth=1, begun=lambda cell: log.append(cell.cell_id)
        ):
            log.append(outcome.row["cell_id"])
        assert log == [cell.cell_id for cell in cells for _ in range(2)]

    def test_two_rows_of_a_cell_have_different_names(
        self, instrument: Instrument, cells: list[Cell]
    ) -> None:
        first, second = (next(instrument.measure_all(cells[:1])).row for _ in range(2))
        assert first["cell_id"] == second["cell_id"]
        assert first["sample_id"] != second["sample_id"]

    def test_a_caller_that_leaves_early_does_not_disturb_the_next(
        self, instrument: Instrument, cells: list[Cell]
    ) -> None:
        abandoned = instrument.measure_all(cells)
        next(abandoned)
        del abandoned
        rows = [outcome.row for outcome in instrument.measure_all(cells[1:])]
        assert sorted(row["cell_id"] for row in rows) == sorted(c.cell_id for c in cells[1:])

    def test_no_cells_are_no_rows(self, instrument: Instrument) -> None:
        assert list(instrument.measure_all([])) == []


class TestCpuInstrument(InstrumentContract):
    @pytest.fixture
    def instrument(self, device: Any) -> Instrument:
        return LiveInstrument(_cpu_backend(), device, PROCEDURE, "me")


class TestFakeInstrument(InstrumentContract):
    @pytest.fixture(params=[1, 3])
    def instrument(self, request: Any, make_backend: Any, device: Any) -> Instrument:
        backend = make_backend(device, depth=request.param)
        return LiveInstrument(backend, device, PROCEDURE, "me")


class TestCudaInstrument(InstrumentContract):
    def make_cells(self, make_cell: MakeCell) -> list[Cell]:
        options = {"family": "cublas", "kernel": "", "threads": 0}
        cells = [make_cell(m=m, **options, power=m == 16) for m in (8, 16, 24)]
        return [*cells, make_cell(m=32, dtype="fp8_e4m3", layout="nt", **options)]

    @pytest.fixture
    def instrument(self, gpu: Any) -> Instrument:
        from agent.devices.cuda import CudaBackend

        backend = CudaBackend(gpu.clock)
        return LiveInstrument(backend, backend.identify(), PROCEDURE, "me", wait=gpu.wait)


class TestReplayInstrument(InstrumentContract):
    @pytest.fixture
    def instrument(self, cells: list[Cell], make_row: Any, tmp_path: Path) -> Instrument:
        path = tmp_path / "recorded.parquet"
        pq.write_table(to_table([make_row(cell) for cell in cells[:3]]), path)
        return ReplayInstrument(path, "me")
