"""One cell becomes one row, whatever happens: every status that an instrument can give, over a bench of our own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from agent.instrument import CONTENTION_WAITS_S, LiveInstrument, Outcome
from agent.kernels import Operands, Prepared, carve
from agent.power import PowerReading
from agent.timing import Burst
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.cell import Cell
from gemmcast.config import FAMILIES, FamilyFacts, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.sample import STATUSES

MakeCell = Callable[..., Cell]
Measure = Callable[..., Outcome]


class FakeBench:
    """NumPy arrays; a launch takes 12.5 us, in the window 15 us at 200 W; neighbours come and go as `busy` says."""

    xp: Any = np

    def __init__(self, device: Device, busy: Sequence[str] = (), fails: Exception | None = None) -> None:
        self._device, self._busy, self._fails = device, iter(busy), fails
        self.asked: list[tuple[Gemm, bool]] = []

    def identify(self) -> Device:
        return self._device

    characterise = identify

    def operands(self, gemm: Gemm, *, cold: bool) -> Sequence[Operands]:
        self.asked.append((gemm, cold))
        sets, rng = 3 if cold else 1, np.random.default_rng(0)
        inputs, outputs = sets * gemm.batch * (gemm.m + gemm.n) * gemm.k, sets * gemm.batch * gemm.m * gemm.n
        return carve(gemm, rng.standard_normal(inputs, np.float32), rng.standard_normal(outputs, np.float32), sets)

    def burst(self, prepared: Prepared, sets: int, procedure: Procedure) -> tuple[Burst, dict[str, Any]]:
        if self._fails:
            raise self._fails
        return Burst(runtime_us=12.5, runtime_rse=0.002, repeats=400 + sets), {"clock_mhz": 1980.0, "temperature_c": 41.0}

    def power(self, prepared: Prepared, sets: int, runtime_us: float, procedure: Procedure) -> PowerReading | None:
        return PowerReading(power_w=200.0, sustained_runtime_us=15.0, window_s=0.5, counter_steps=5) if self._device.has_power else None

    def contention(self) -> str | None:
        return next(self._busy, None)


@pytest.fixture
def waited() -> list[float]:
    return []


@pytest.fixture
def measure(device: Device, waited: list[float]) -> Measure:
    """Measures one cell on a fake bench, without ever sleeping."""

    def one(cell: Cell, on: Device = device, **bench: Any) -> Outcome:
        outcome = LiveInstrument(FakeBench(on, **bench), on, Procedure(), "me", wait=waited.append).measure(cell)
        assert to_table([outcome.row]).schema == SCHEMA
        assert outcome.row["status"] in STATUSES
        assert (outcome.row["status"] == "ok") == (outcome.row["reason"] is None) == (outcome.row["runtime_us"] is not None)
        return outcome

    return one


def _with_power(device: Device) -> Device:
    values = {name: getattr(device, name) for name in device.__slots__}
    return Device(**{**values, "idle_power_w": 20.0, "power_limit_w": 250.0})


def test_a_good_row_says_what_was_measured_where_and_how(measure: Measure, make_cell: MakeCell, device: Device) -> None:
    cell = make_cell(cache="cold")
    outcome = measure(cell)
    row = outcome.row
    assert not outcome.fatal
    assert (row["status"], row["reason"], row["runtime_us"], row["runtime_rse"], row["repeats"]) == ("ok", None, 12.5, 0.002, 403)
    assert (row["cell_id"], row["agent"], row["cache"], row["fill"]) == (cell.cell_id, "me", "cold", "normal")
    assert (row["device"], row["gpu_uuid"], row["sm_count"], row["peak_tflops"]) == (device.name, device.uuid, 2, 0.2)
    assert (row["kernel"], row["threads"], row["clock_mhz"], row["temperature_c"]) == ("numpy", 1, 1980.0, 41.0)
    assert 0 <= row["max_rel_error"] < 1e-5
    assert (row["power_w"], row["energy_mj"]) == (None, None)


def test_every_row_has_a_name_of_its_own(measure: Measure, make_cell: MakeCell) -> None:
    cell = make_cell()
    first, second = measure(cell).row, measure(cell).row
    assert first["sample_id"] != second["sample_id"]
    assert first["cell_id"] == second["cell_id"]


def test_power_is_metered_where_it_is_asked_for(measure: Measure, make_cell: MakeCell, device: Device) -> None:
    row = measure(make_cell(power=True), _with_power(device)).row
    assert (row["power_w"], row["sustained_runtime_us"], row["energy_mj"], row["window_s"], row["counter_steps"]) == (200.0, 15.0, 3.0, 0.5, 5)
    assert measure(make_cell(power=False), _with_power(device)).row["power_w"] is None


def test_a_device_without_a_meter_still_gives_the_runtime(measure: Measure, make_cell: MakeCell) -> None:
    row = measure(make_cell(power=True)).row
    assert (row["status"], row["runtime_us"], row["power_w"]) == ("ok", 12.5, None)


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Adds a family, as a new file in agent/kernels/ would."""

    def add(name: str, launch: Callable[[Operands], object]) -> None:
        class Family:
            def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
                return Prepared(lambda i: launch(sets[i]), {"kernel": name})

        module = ModuleType(f"agent.kernels.{name}")
        module.FAMILY = Family()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(FAMILIES, name, FamilyFacts("cpu", ("fp32",)))

    return add


def test_a_wrong_kernel_is_a_row_that_says_so_and_is_never_timed(measure: Measure, make_cell: MakeCell, families: Any) -> None:
    def forgets_a_tile(operands: Operands) -> None:
        np.matmul(operands.a, operands.b, out=operands.c)
        operands.c[:, 16:32, 16:32] = 0

    families("wrong", forgets_a_tile)
    row = measure(make_cell(family="wrong", kernel="", m=64, n=64)).row
    assert row["status"] == "incorrect"
    assert "largest relative error" in row["reason"]
    assert (row["kernel"], row["runtime_us"], row["repeats"]) == ("wrong", None, None)


def test_a_kernel_that_writes_nothing_is_incorrect(measure: Measure, make_cell: MakeCell, families: Any) -> None:
    families("lazy", lambda _: None)
    assert measure(make_cell(family="lazy", kernel="")).row["status"] == "incorrect"


def test_a_right_kernel_of_a_new_family_is_ok(measure: Measure, make_cell: MakeCell, families: Any) -> None:
    families("right", lambda operands: np.matmul(operands.a, operands.b, out=operands.c))
    assert measure(make_cell(family="right", kernel="")).row["status"] == "ok"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"family": "tiled", "kernel": "", "threads": 0}, "family tiled runs on cuda, this device is cpu"),
        ({"dtype": "bf16"}, "family blas has no bf16"),
        ({"kernel": "strassen"}, "blas has kernels numpy and blocked"),
        ({"beta": 1.0}, "beta=1.0"),
    ],
)
def test_what_does_not_go_together_is_unsupported(measure: Measure, make_cell: MakeCell, options: dict[str, Any], reason: str) -> None:
    row = measure(make_cell(**options)).row
    assert row["status"] == "unsupported"
    assert reason in row["reason"]


def test_a_neighbour_that_stays_makes_a_contended_row(measure: Measure, make_cell: MakeCell, waited: list[float]) -> None:
    row = measure(make_cell(), busy=["1 other process(es) hold this GPU"] * 100).row
    assert (row["status"], row["reason"], row["runtime_us"]) == ("contended", "1 other process(es) hold this GPU", None)
    assert tuple(waited) == CONTENTION_WAITS_S


def test_a_neighbour_that_leaves_is_waited_for(measure: Measure, make_cell: MakeCell, waited: list[float]) -> None:
    row = measure(make_cell(), busy=["busy", "busy"]).row
    assert (row["status"], row["runtime_us"]) == ("ok", 12.5)
    assert tuple(waited) == CONTENTION_WAITS_S[:2]


def test_contention_while_timing_is_waited_for_too(measure: Measure, make_cell: MakeCell, waited: list[float]) -> None:
    row = measure(make_cell(), fails=MeasurementError("contended", "other processes interrupted 41 batches")).row
    assert (row["status"], row["runtime_us"]) == ("contended", None)
    assert tuple(waited) == CONTENTION_WAITS_S


def test_other_failures_are_not_tried_again(measure: Measure, make_cell: MakeCell, waited: list[float]) -> None:
    row = measure(make_cell(), fails=MeasurementError("throttled", "the clock stayed at 1200 MHz")).row
    assert (row["status"], row["reason"], waited) == ("throttled", "the clock stayed at 1200 MHz", [])


def test_no_memory_is_a_row(measure: Measure, make_cell: MakeCell) -> None:
    outcome = measure(make_cell(), fails=MemoryError("out of 80 GiB"))
    assert (outcome.row["status"], outcome.row["reason"], outcome.fatal) == ("out_of_memory", "out of 80 GiB", False)


def test_a_cuda_fault_is_a_row_and_the_end_of_the_process(measure: Measure, make_cell: MakeCell) -> None:
    fault = type("CUDARuntimeError", (RuntimeError,), {"__module__": "cupy_backends.cuda.api.runtime"})
    outcome = measure(make_cell(), fails=fault("cudaErrorIllegalAddress: an illegal memory access was encountered"))
    assert outcome.fatal
    assert (outcome.row["status"], outcome.row["runtime_us"]) == ("cuda_error", None)
    assert "IllegalAddress" in outcome.row["reason"]


def test_a_broken_program_is_not_hidden_in_a_row(measure: Measure, make_cell: MakeCell) -> None:
    with pytest.raises(RuntimeError, match="a bug of ours"):
        measure(make_cell(), fails=RuntimeError("a bug of ours"))


@pytest.mark.parametrize(("cache", "cold"), [("cold", True), ("warm", False)])
def test_the_cell_says_whether_the_cache_is_warm(device: Device, make_cell: MakeCell, cache: str, cold: bool) -> None:
    bench = FakeBench(device)
    row = LiveInstrument(bench, device, Procedure(), "me").measure(make_cell(cache=cache)).row
    assert [asked for _, asked in bench.asked] == [cold]
    assert row["cache"] == cache
