"""One cell becomes one row, whatever happens: every status, over the fake backend."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from agent import measurement
from agent.check import Reference
from agent.instrument import LiveInstrument
from agent.kernels import BlockScales, Prepared, load
from agent.measurement import CONTENTION_WAITS_S
from agent.messages import Outcome
from agent.operands import Operands
from agent.tolerance import tolerance
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.cell import Cell
from gemmcast.config import FAMILIES, FamilyFacts, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.sample import STATUSES
from gemmcast.uncertainty import runtime_uncertainty

MakeCell = Callable[..., Cell]
MakeBackend = Any
Measure = Callable[..., Outcome]


READINGS_KEPT = ("ok", "throttled", "power_disputed")


@pytest.fixture
def waited() -> list[float]:
    return []


@pytest.fixture
def measure(device: Device, waited: list[float], make_backend: MakeBackend) -> Measure:
    """Measures one cell on a fake backend, without ever sleeping."""

    def one(cell: Cell, on: Device = device, **backend: Any) -> Outcome:
        outcome = LiveInstrument(
            make_backend(on, **backend), on, Procedure(), "me", wait=waited.append
        ).measure(cell)
        row = outcome.row
        assert to_table([row]).schema == SCHEMA
        assert row["status"] in STATUSES
        assert (row["status"] == "ok") == (row["reason"] is None)
        # With a runtime where only power is.
        if row["status"] != "unsupported":
            assert (row["runtime_us"] is not None) == (row["status"] in READINGS_KEPT)
        return outcome

    return one


def _raise(error: Exception, at: str) -> Callable[[str, int], None]:
    def trouble(stage: str, m: int) -> None:
        if stage == at:
            raise error

    return trouble


def test_a_good_row_says_what_was_measured_where_and_how(
    measure: Measure, make_cell: MakeCell, device: Device
) -> None:
    cell = make_cell(cache="cold")
    outcome = measure(cell)
    row = outcome.row
    assert not outcome.fatal
    assert row["status"] == "ok"
    assert row["reason"] is None
    assert row["runtime_us"] == 12.5
    assert row["runtime_uncertainty"] == runtime_uncertainty(
        0.002, after_window=False, device_kind=device.kind
    )
    assert row["launches_timed"] == 400
    assert row["cell_id"] == cell.cell_id
    assert row["agent"] == "me"
    assert row["cache"] == "cold"
    assert row["operand_distribution"] == "normal"
    assert row["device"] == device.name
    assert row["device_uuid"] == device.uuid
    assert row["compute_units"] == 2
    assert row["peak_tflops"] == 0.2
    assert row["kernel"] == "numpy"
    assert row["cpu_threads"] == 1
    assert row["clock_mhz"] == 1755.0
    assert row["clock_start_mhz"] == 1980.0
    assert row["temperature_c"] == 41.0
    assert row["host_launch_us"] == 2.5
    assert row["launch_bound"] is False
    assert row["throttle_reasons"] == 4
    assert 0 <= row["max_error_over_rms"] < 1e-5
    assert row["power_w"] is None
    assert row["energy_mj"] is None


def test_every_row_has_a_name_of_its_own(measure: Measure, make_cell: MakeCell) -> None:
    cell = make_cell()
    first, second = measure(cell).row, measure(cell).row
    assert first["sample_id"] != second["sample_id"]
    assert first["cell_id"] == second["cell_id"]


def test_power_is_metered_where_the_cell_wants_it(measure: Measure, make_cell: MakeCell) -> None:
    row = measure(make_cell(power=True)).row
    assert row["status"] == "ok"
    assert row["power_w"] == 200.0
    assert row["power_instant_w"] == 198.0
    assert row["energy_mj"] == 3.0
    assert row["sustained_runtime_us"] == 15.0
    assert row["sustained_clock_mhz"] == 1500.0
    assert row["window_s"] == 0.5
    assert row["counter_steps"] == 5
    row = measure(make_cell(power=False)).row
    assert row["status"] == "ok"
    assert row["power_w"] is None
    assert row["sustained_runtime_us"] is None
    assert row["counter_steps"] is None


def test_a_runtime_after_its_window_is_less_uncertain(
    device: Device,
    make_cell: MakeCell,
    make_backend: MakeBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The family that is there runs on a CPU.
    monkeypatch.setattr(measurement, "refuse", lambda *_: None)
    on = replace(device, kind="cuda")
    instrument = LiveInstrument(make_backend(on), on, Procedure(), "me")
    cell = make_cell(power=True)
    with_window = instrument.measure(cell).row["runtime_uncertainty"]
    without = instrument.measure(replace(cell, power=False)).row["runtime_uncertainty"]
    assert with_window == pytest.approx(np.hypot(0.006, 0.002))
    assert without == pytest.approx(np.sqrt(0.006**2 + 0.010**2 + 0.002**2))


def test_the_meter_gets_the_length_of_the_counters_step(
    device: Device, make_cell: MakeCell, make_backend: MakeBackend
) -> None:
    for step_s in (None, 0.0987):
        on = replace(device, counter_step_s=step_s)
        backend = make_backend(on)
        LiveInstrument(backend, on, Procedure(), "me").measure(make_cell(power=True))
        assert backend.steps_s == [step_s]


@pytest.mark.parametrize(
    "why",
    [
        "a MIG slice shares the board's energy counter with its neighbours",
        "this board has no total-energy counter",
    ],
)
def test_without_a_meter_a_row_says_so_and_keeps_the_runtime(
    measure: Measure, make_cell: MakeCell, why: str
) -> None:
    row = measure(make_cell(power=True), no_power=why).row
    assert row["status"] == "unsupported"
    assert row["reason"] == f"no power reading: {why}"
    assert row["runtime_us"] == 12.5
    assert row["clock_mhz"] == 1755.0
    assert row["power_w"] is None
    assert row["energy_mj"] is None
    assert measure(make_cell(power=False), no_power=why).row["status"] == "ok"


def test_a_counter_that_stands_still_costs_the_power_and_not_the_runtime(
    measure: Measure, make_cell: MakeCell
) -> None:
    error = MeasurementError("unsupported", "the energy counter did not move for 3 s")
    row = measure(make_cell(power=True), trouble=_raise(error, "window")).row
    assert row["status"] == "unsupported"
    assert row["reason"] == error.reason
    assert row["runtime_us"] == 12.5
    assert row["power_w"] is None


def test_a_disputed_power_is_kept_and_marked(
    measure: Measure, make_cell: MakeCell, make_backend: MakeBackend
) -> None:
    row = measure(
        make_cell(power=True), power=replace(make_backend.POWER, power_instant_w=250.0)
    ).row
    assert row["status"] == "power_disputed"
    assert row["reason"] == "energy counter 200.0 W, instantaneous power 250.0 W: over 5% apart"
    assert row["power_w"] == 200.0
    assert row["power_instant_w"] == 250.0
    assert row["energy_mj"] == 3.0
    assert row["runtime_us"] == 12.5
    assert row["counter_steps"] == 5


def test_a_board_that_is_held_back_is_a_row_throttled_with_its_readings(
    measure: Measure, make_cell: MakeCell, make_backend: MakeBackend
) -> None:
    bursts = {
        "burst": replace(make_backend.BURST, held_back=True, start_mhz=1200.4),
        "trouble": _raise(AssertionError("no power then"), "power"),
    }
    row = measure(make_cell(power=True), **bursts).row
    assert row["status"] == "throttled"
    assert row["reason"] == "the clock was at 1200 MHz before the kernel ran, and no rest raised it"
    assert row["runtime_us"] == 12.5
    assert row["clock_start_mhz"] == 1200.4
    assert row["launches_timed"] == 400
    assert row["temperature_c"] == 41.0
    assert row["power_w"] is None


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Adds a family, as a new file in agent/kernels/ would."""

    def add(name: str, launch: Callable[[Operands], object], **facts: int) -> None:
        class Family:
            def prepare(
                self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]
            ) -> Prepared:
                return Prepared(lambda i: launch(sets[i]), {"kernel": name, **facts})

        module = ModuleType(f"agent.kernels.{name}")
        module.FAMILY = Family()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(FAMILIES, name, FamilyFacts("cpu", ("fp32",)))

    return add


def test_a_wrong_kernel_is_a_row_that_says_so_and_is_never_timed(
    measure: Measure, make_cell: MakeCell, families: Any
) -> None:
    def forgets_a_tile(operands: Operands) -> None:
        np.matmul(operands.a, operands.b, out=operands.c)
        operands.c[:, 16:32, 16:32] = 0

    families("wrong", forgets_a_tile)
    row = measure(make_cell(family="wrong", kernel="", m=64, n=64)).row
    assert row["status"] == "incorrect"
    assert "largest relative error" in row["reason"]
    assert row["kernel"] == "wrong"
    assert row["runtime_us"] is None
    assert row["launches_timed"] is None


@pytest.mark.parametrize(("split_k", "status"), [(33, "ok"), (1, "incorrect")])
def test_the_slices_that_a_kernel_reports_decide_how_far_off_it_may_be(
    measure: Measure, make_cell: MakeCell, families: Any, split_k: int, status: str
) -> None:
    gemm = Gemm(m=8, n=64, k=33 * 16)
    middle = (tolerance(gemm, 1).element + tolerance(gemm, 33).element) / 2

    def is_off_at_one_element(operands: Operands) -> None:
        exact = np.matmul(operands.a.astype(np.float64), operands.b.astype(np.float64))
        exact[0, 0, 0] += middle * np.sqrt(np.mean(exact * exact))
        operands.c[...] = exact

    families("splits", is_off_at_one_element, split_k=split_k)
    cell = make_cell(family="splits", kernel="", m=gemm.m, n=gemm.n, k=gemm.k)
    row = measure(cell).row
    assert (row["status"], row["split_k"]) == (status, split_k)


def test_a_kernel_that_writes_nothing_is_incorrect(
    measure: Measure, make_cell: MakeCell, families: Any
) -> None:
    families("lazy", lambda _: None)
    assert measure(make_cell(family="lazy", kernel="")).row["status"] == "incorrect"


def test_a_right_kernel_of_a_new_family_is_ok(
    measure: Measure, make_cell: MakeCell, families: Any
) -> None:
    families("right", lambda operands: np.matmul(operands.a, operands.b, out=operands.c))
    assert measure(make_cell(family="right", kernel="")).row["status"] == "ok"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"family": "tiled", "kernel": "", "cpu_threads": 0},
            "tiled: this family runs on cuda, Paper CPU",
        ),
        ({"dtype": "bf16"}, "family blas has no bf16"),
        ({"kernel": "strassen"}, "blas has kernels numpy and blocked"),
        ({"beta": 1.0}, "beta=1.0"),
    ],
)
def test_what_does_not_go_together_is_unsupported(
    measure: Measure, make_cell: MakeCell, options: dict[str, Any], reason: str
) -> None:
    row = measure(make_cell(**options)).row
    assert row["status"] == "unsupported"
    assert reason in row["reason"]


def test_a_neighbour_that_stays_makes_a_contended_row(
    measure: Measure, make_cell: MakeCell, waited: list[float]
) -> None:
    row = measure(make_cell(), busy=["1 other process(es) hold this GPU"] * 100).row
    assert row["status"] == "contended"
    assert row["reason"] == "1 other process(es) hold this GPU"
    assert row["runtime_us"] is None
    assert tuple(waited) == CONTENTION_WAITS_S


def test_a_neighbour_that_leaves_is_waited_for(
    measure: Measure, make_cell: MakeCell, waited: list[float]
) -> None:
    row = measure(make_cell(), busy=["busy", "busy"]).row
    assert row["status"] == "ok"
    assert row["runtime_us"] == 12.5
    assert tuple(waited) == CONTENTION_WAITS_S[:2]


def test_contention_while_timing_is_waited_for_too(
    measure: Measure, make_cell: MakeCell, waited: list[float]
) -> None:
    row = measure(
        make_cell(),
        trouble=_raise(MeasurementError("contended", "interrupted 41 batches"), "burst"),
    ).row
    assert row["status"] == "contended"
    assert row["runtime_us"] is None
    assert tuple(waited) == CONTENTION_WAITS_S


@pytest.mark.parametrize("stage", ["operands", "burst"])
def test_other_failures_are_not_tried_again(
    measure: Measure, make_cell: MakeCell, waited: list[float], stage: str
) -> None:
    row = measure(
        make_cell(), trouble=_raise(MeasurementError("cuda_error", "the library refused"), stage)
    ).row
    assert row["status"] == "cuda_error"
    assert row["reason"] == "the library refused"
    assert waited == []


@pytest.mark.parametrize(
    "error", [MemoryError("out of 80 GiB"), MeasurementError("out_of_memory", "out of 80 GiB")]
)
@pytest.mark.parametrize("stage", ["operands", "burst"])
def test_no_memory_is_a_row(
    measure: Measure, make_cell: MakeCell, stage: str, error: Exception
) -> None:
    outcome = measure(make_cell(), trouble=_raise(error, stage))
    assert outcome.row["status"] == "out_of_memory"
    assert outcome.row["reason"] == "out of 80 GiB"
    assert outcome.fatal is False


@pytest.mark.parametrize("stage", ["operands", "checked", "burst", "timed"])
def test_a_cuda_fault_is_a_row_and_the_end_of_the_process(
    measure: Measure, make_cell: MakeCell, device_fault: Any, stage: str
) -> None:
    fault = device_fault("cudaErrorIllegalAddress: an illegal memory access was encountered")
    outcome = measure(make_cell(), trouble=_raise(fault, stage))
    assert outcome.fatal
    assert outcome.row["status"] == "cuda_error"
    assert outcome.row["runtime_us"] is None
    assert "IllegalAddress" in outcome.row["reason"]


def test_a_cuda_fault_under_power_is_fatal_and_keeps_what_was_read(
    device: Device, make_cell: MakeCell, make_backend: MakeBackend, device_fault: Any
) -> None:
    backend = make_backend(device, trouble=_raise(device_fault("cudaErrorLaunchFailure"), "window"))
    outcome = LiveInstrument(backend, device, Procedure(), "me").measure(make_cell(power=True))
    assert outcome.fatal
    assert outcome.row["status"] == "cuda_error"
    assert outcome.row["reason"] == "cudaErrorLaunchFailure"
    assert outcome.row["runtime_us"] == 12.5
    assert outcome.row["power_w"] is None


@pytest.mark.parametrize("stage", ["operands", "checked", "burst", "timed", "power", "window"])
def test_a_broken_program_is_not_hidden_in_a_row(
    measure: Measure, make_cell: MakeCell, stage: str
) -> None:
    with pytest.raises(RuntimeError, match="a bug of ours"):
        measure(make_cell(power=True), trouble=_raise(RuntimeError("a bug of ours"), stage))


@pytest.mark.parametrize(("cache", "cold"), [("cold", True), ("warm", False)])
def test_the_cell_says_whether_the_cache_is_warm(
    device: Device, make_cell: MakeCell, make_backend: MakeBackend, cache: str, cold: bool
) -> None:
    backend = make_backend(device)
    row = LiveInstrument(backend, device, Procedure(), "me").measure(make_cell(cache=cache)).row
    assert [cold for _, cold in backend.requests] == [cold]
    assert row["cache"] == cache


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> list[Gemm]:
    """The problems whose references were computed, in order."""
    computed: list[Gemm] = []

    class Counted(Reference):
        def __init__(
            self, xp: Any, gemm: Gemm, operands: Operands, scales: BlockScales | None = None
        ) -> None:
            computed.append(gemm)
            super().__init__(xp, gemm, operands, scales)

    monkeypatch.setattr(measurement, "Reference", Counted)
    return computed


@pytest.mark.parametrize("depth", [1, 3])
def test_the_reference_product_is_computed_once_for_all_configurations(
    device: Device,
    make_cell: MakeCell,
    make_backend: MakeBackend,
    references: list[Gemm],
    depth: int,
) -> None:
    cells = [
        make_cell(m=m, kernel=kernel, **tile)
        for m in (24, 40)
        for kernel, tile in (("numpy", {}), ("blocked", {}), ("blocked", {"tile_m": 8}))
    ]
    cells.append(make_cell(m=40, layout="tn"))
    live = LiveInstrument(make_backend(device, depth=depth), device, Procedure(), "me")
    assert [event.row["status"] for event in live.measure_all(cells)] == ["ok"] * 7
    assert references == [cells[0].gemm, cells[3].gemm, cells[6].gemm]


def test_scaled_operands_have_a_reference_of_their_own(
    device: Device,
    make_cell: MakeCell,
    make_backend: MakeBackend,
    references: list[Gemm],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ones = BlockScales(np.ones((24, 1)), np.ones((1, 1)), 128)
    scales_of = {"numpy": None, "blocked": ones}

    class Scaled:
        def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
            prepared = load("blas").prepare(gemm, config, sets)
            return replace(prepared, scales=scales_of[config.kernel])

    monkeypatch.setattr(measurement, "load", lambda name: Scaled())
    kernels = ("numpy", "blocked", "blocked", "numpy")
    live = LiveInstrument(make_backend(device, depth=1), device, Procedure(), "me")
    cells = [make_cell(m=24, kernel=kernel) for kernel in kernels]
    statuses = [event.row["status"] for event in live.measure_all(cells)]
    assert statuses == ["ok"] * 4
    assert len(references) == 3


def test_what_was_computed_for_cold_operands_is_not_taken_for_warm_ones(
    device: Device, make_cell: MakeCell, make_backend: MakeBackend, references: list[Gemm]
) -> None:
    live = LiveInstrument(make_backend(device), device, Procedure(), "me")
    assert {
        live.measure(make_cell(cache=cache)).row["status"] for cache in ("cold", "warm", "warm")
    } == {"ok"}
    assert len(references) == 2


def test_a_reference_that_could_not_be_computed_is_tried_again(
    device: Device,
    make_cell: MakeCell,
    make_backend: MakeBackend,
    references: list[Gemm],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = LiveInstrument(make_backend(device), device, Procedure(), "me")
    with monkeypatch.context() as patch:
        patch.setattr(np, "matmul", lambda *_, **__: (_ for _ in ()).throw(MemoryError("no room")))
        assert live.measure(make_cell()).row["status"] == "out_of_memory"
    assert live.measure(make_cell()).row["status"] == "ok"
    assert len(references) == 2


def test_for_a_neighbour_that_has_stayed_the_next_cells_do_not_wait_again(
    make_backend: Any, make_cell: MakeCell, device: Device
) -> None:
    waited: list[float] = []
    # Through all the waits of the first cell, and there for two more.
    busy = ["busy"] * (len(CONTENTION_WAITS_S) + 1 + 2)
    instrument = LiveInstrument(
        make_backend(device, busy=busy), device, Procedure(), "me", wait=waited.append
    )
    statuses = [instrument.measure(make_cell(m=8 * i)).row["status"] for i in range(1, 5)]
    assert statuses == ["contended", "contended", "contended", "ok"]
    assert tuple(waited) == CONTENTION_WAITS_S
