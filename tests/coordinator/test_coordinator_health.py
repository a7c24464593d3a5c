"""The judgement of boards: faults mixed into readings of boards that are well."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from coordinator.health.cells import check_plan
from coordinator.health.findings import Verdict
from coordinator.health.judge import judge
from coordinator.health.readings import kinds_of
from coordinator.health.reference import read_reference
from coordinator.health.since import since
from coordinator.plan.cells import plan_cells
from gemmcast import Predictor
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.rows import Row

Measure = Callable[..., Row]
Change = Callable[[Row], Row]
SICK = "GPU-2"
NOISE = 0.003
"""Between two readings of a cell."""
H100 = "GPU-640beb2f-b61e-0259-d52a-c16218cfa519"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor()


@pytest.fixture(scope="module")
def cells(gpu: Device) -> list[Cell]:
    """Those of a check; of the same ids for all boards, so that the paper's law is the same."""
    planned = plan_cells(check_plan("cuda"), gpu).cells
    known = [cell for cell in planned if cell.gemm.dtype in gpu.peak_tflops]
    return [replace(cell, device_key="any") for cell in known]


@pytest.fixture
def boards(measure: Measure, cells: list[Cell], gpu: Device) -> Callable[..., pa.Table]:
    """Rows of equal boards; those of SICK are changed, and some other rows may be too."""

    def rows_of(change: Change = dict, count: int = 8, others: Change = dict) -> pa.Table:
        rows: list[Row] = []
        for number in range(count):
            board = replace(gpu, uuid=f"GPU-{number}")
            rng = np.random.default_rng(number)
            for cell in cells:
                row = measure(cell, board) | {
                    "clock_mhz": 1965.0,
                    "clock_start_mhz": 1975.0,
                    "temperature_c": 50.0,
                    "capped": False,
                }
                row["runtime_us"] *= float(np.exp(NOISE * rng.standard_normal()))
                rows.append(change(row) if board.uuid == SICK else others(row))
        return to_table(rows)

    return rows_of


def verdict_on(board: str, table: pa.Table, predictor: Predictor) -> Verdict:
    """The others must be well."""
    verdicts = {verdict.board: verdict for verdict in judge(table, predictor)}
    sick = {name for name, verdict in verdicts.items() if verdict.findings}
    assert sick <= {board}
    return verdicts[board]


KINDS: dict[tuple[object, ...], str] = {}


def kind_of(row: Row) -> str:
    key = tuple(row[name] for name in ("family", "dtype", "m", "n", "k"))
    if key not in KINDS:
        KINDS[key] = str(kinds_of(to_table([row]))[0])
    return KINDS[key]


def slower(percent: float, *kinds: str) -> Change:
    def change(row: Row) -> Row:
        is_meant = not kinds or kind_of(row) in kinds
        factor = 1 + percent / 100 if is_meant else 1.0
        return row | {"runtime_us": row["runtime_us"] * factor}

    return change


def at_clock(mhz: float, **columns: object) -> Change:
    """Compute-bound cells follow the clock, others do so in part."""
    follows = {"compute": 1.0, "memory": 0.3, "small": 0.5}

    def change(row: Row) -> Row:
        factor = (row["clock_mhz"] / mhz) ** follows[kind_of(row)]
        state = {"runtime_us": row["runtime_us"] * factor, "clock_mhz": mhz, **columns}
        return row | state

    return change


def test_boards_that_are_well_have_no_finding(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    verdicts = judge(boards(), predictor)
    assert len(verdicts) == 8
    assert not [finding for verdict in verdicts for finding in verdict.findings]
    assert all(verdict.is_judged for verdict in verdicts)
    assert "GPU-0 (Paper GPU 80GB) is well: compute-bound" in verdicts[0].lines()[0]


@pytest.mark.parametrize("count", [3, 8])
def test_three_per_cent_slower_is_found(
    boards: Callable[..., pa.Table], predictor: Predictor, count: int
) -> None:
    verdict = verdict_on(SICK, boards(slower(3), count), predictor)
    (finding,) = verdict.findings
    assert finding.sort == "slow"
    assert finding.sigmas is not None
    assert finding.sigmas > 3.5
    assert f"% slower than {count - 1} sisters on" in finding.text
    assert verdict.shifts["compute"].percent == pytest.approx(3, abs=0.4)


def test_slow_memory_is_told_from_a_slow_board(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    verdict = verdict_on(SICK, boards(slower(90, "memory")), predictor)
    (finding,) = verdict.findings
    assert finding.sort == "memory"
    assert "compute-bound and small cells are as usual: the memory is slow" in finding.text


def test_a_low_clock_is_a_cap_and_not_slowness(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    verdict = verdict_on(SICK, boards(at_clock(1600.0)), predictor)
    (finding,) = verdict.findings
    assert finding.sort == "capped"
    assert re.search(r"2[23]\.\d % slower than 7 sisters on compute-bound cells", finding.text)
    assert "clock 1,600 of 1,980 MHz" in finding.text


def test_a_clock_that_the_power_cap_lowers_everywhere_is_no_fault(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    """Chips differ in the voltage that they need, so in the clock that 700 W allow."""

    def capped(mhz: float) -> Change:
        def change(row: Row) -> Row:
            if kind_of(row) == "small":
                return row
            return at_clock(mhz, capped=True)(row)

        return change

    table = boards(capped(1600.0), others=capped(1660.0))
    assert verdict_on(SICK, table, predictor).findings == ()


def test_without_sisters_a_low_clock_shows_before_the_kernel(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    table = boards(at_clock(1500.0, clock_start_mhz=1500.0, status="throttled"))
    alone = table.filter(pc.equal(table["device_uuid"], SICK))
    (finding,) = verdict_on(SICK, alone, predictor).findings
    assert (finding.sort, finding.text) == ("capped", "is capped: clock 1,500 of 1,980 MHz")


def test_a_lower_power_limit_is_named(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    verdict = verdict_on(SICK, boards(lambda row: row | {"power_limit_w": 560.0}), predictor)
    (finding,) = verdict.findings
    assert finding.text == "is capped: power limit 560 W, sisters have 700 W"


@pytest.mark.parametrize(
    "columns", [{"temperature_c": 90.0}, {"temperature_c": 70.0, "throttle_reasons": 0x20}]
)
def test_heat_is_named_with_the_clock_that_it_costs(
    boards: Callable[..., pa.Table], predictor: Predictor, columns: dict[str, object]
) -> None:
    verdict = verdict_on(SICK, boards(at_clock(1700.0, **columns)), predictor)
    (finding,) = verdict.findings
    assert finding.sort == "hot"
    assert f"{columns['temperature_c']:.0f} °C, sisters have 50 °C" in finding.text


def test_power_beyond_that_of_sisters_is_named(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    def hungry(row: Row) -> Row:
        return row | {"power_w": row["power_w"] and 1.25 * row["power_w"]}

    verdict = verdict_on(SICK, boards(hungry), predictor)
    (finding,) = verdict.findings
    assert (finding.sort, finding.text[:26]) == ("power", "takes 25.0 % more power th")


def wrong_in(dtype: str) -> Change:
    """Wrong in the first repeats of that dtype's cells."""

    def change(row: Row) -> Row:
        is_wrong = row["dtype"] == dtype and row["m"] == 656
        return row | ({"status": "incorrect", "reason": "off by 3 %"} if is_wrong else {})

    return change


def test_wrong_results_of_one_board_are_its_own(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    verdict = verdict_on(SICK, boards(wrong_in("bf16")), predictor)
    (finding,) = verdict.findings
    text = "computed 3 wrong results where other boards are right, as in cublaslt 656x7440x14048"
    assert (finding.sort, finding.text) == ("wrong", f"{text} bf16")


def test_wrong_results_of_a_board_alone_are_found(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    table = boards(wrong_in("bf16"))
    alone = table.filter(pc.equal(table["device_uuid"], SICK))
    (finding,) = verdict_on(SICK, alone, predictor).findings
    assert finding.sort == "wrong"


def test_a_kernel_that_is_wrong_on_every_board_makes_none_sick(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    table = boards(wrong_in("bf16"), others=wrong_in("bf16"))
    assert verdict_on(SICK, table, predictor).findings == ()


def test_errors_of_one_board_are_named_with_their_reason(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    def failing(row: Row) -> Row:
        if row["m"] != 1:
            return row
        return row | {"status": "cuda_error", "reason": "uncorrectable ECC", "runtime_us": None}

    (finding,) = verdict_on(SICK, boards(failing), predictor).findings
    assert finding.sort == "failing"
    assert "uncorrectable ECC" in finding.text


def test_a_board_that_ends_every_cell_in_an_error_is_failing(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    def failing(row: Row) -> Row:
        return row | {"status": "crashed", "reason": "died twice", "runtime_us": None}

    (finding,) = verdict_on(SICK, boards(failing), predictor).findings
    assert finding.sort == "failing"
    table = boards(failing)
    alone = table.filter(pc.equal(table["device_uuid"], SICK))
    verdict = verdict_on(SICK, alone, predictor)
    assert not verdict.is_judged
    assert "is not judged" in verdict.lines()[0]


def test_a_board_that_others_use_is_not_judged(
    boards: Callable[..., pa.Table], predictor: Predictor
) -> None:
    def shared(row: Row) -> Row:
        is_disturbed = kind_of(row) != "small"
        status = {"status": "contended", "reason": "process 17 computes"}
        return slower(40)(row) | (status if is_disturbed else {})

    verdict = verdict_on(SICK, boards(shared), predictor)
    assert [finding.sort for finding in verdict.findings] == ["shared"]
    assert "process 17 computes" in verdict.findings[0].text
    assert not verdict.is_sick
    assert not verdict.is_judged


@pytest.mark.parametrize(("percent", "sorts"), [(0, []), (3, ["slow"])])
def test_one_board_alone_is_held_against_the_recorded_ones(
    predictor: Predictor, percent: float, sorts: list[str]
) -> None:
    """An H100 that the reference holds: it is left out of what it is held against."""
    reference = read_reference()
    own = reference.filter(pc.equal(reference["device_uuid"], H100)).to_pylist()
    table = to_table([slower(percent)(row) for row in own])
    (verdict,) = judge(table, predictor, reference)
    assert [finding.sort for finding in verdict.findings] == sorts
    assert {verdict.shifts[kind].sisters for kind in ("compute", "memory", "small")} == {1}


def test_a_board_that_describes_itself_as_slow_is_slow_still(predictor: Predictor) -> None:
    """Its own peak and bandwidth would explain the fault away; the model reads the type's."""

    def sick(row: Row) -> Row:
        row = slower(25)(row)
        own = {name: row[name] / 1.25 for name in ("peak_tflops", "dram_gbps", "l2_gbps")}
        return row | own

    reference = read_reference()
    own = reference.filter(pc.equal(reference["device_uuid"], H100)).to_pylist()
    (verdict,) = judge(to_table([sick(row) for row in own]), predictor)
    (finding,) = verdict.findings
    assert "% slower than the model says" in finding.text
    assert verdict.shifts["compute"].percent == pytest.approx(25, abs=4)
    (verdict,) = judge(to_table(own), predictor)
    assert verdict.findings == ()


def test_a_run_does_not_call_a_board_slow_by_the_model_alone(predictor: Predictor) -> None:
    reference = read_reference()
    own = reference.filter(pc.equal(reference["device_uuid"], H100)).to_pylist()
    table = to_table([slower(25)(row) for row in own])
    (verdict,) = judge(table, predictor, model_alone=False)
    assert not verdict.is_sick


def test_boards_of_a_sweep_are_held_against_cells_that_are_alike(predictor: Predictor) -> None:
    """No cell is on two boards."""
    reference = read_reference()
    h100 = reference.filter(pc.equal(reference["device"], "NVIDIA H100 80GB HBM3")).to_pylist()
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for number in range(1_000):
        row = h100[number % len(h100)]
        noise = float(np.exp(NOISE * rng.standard_normal()))
        board = f"GPU-{number % 4}"
        factor = 1.05 if board == SICK and number >= 500 else 1.0
        rows.append(
            row
            | {
                "device_uuid": board,
                "alpha": 1.0 + number,
                "runtime_us": row["runtime_us"] * noise * factor,
                "measured_at": f"2026-01-01T12:{number // 60:02}:{number % 60:02}.000+00:00",
            }
        )
    verdict = verdict_on(SICK, to_table(rows[500:]), predictor)
    assert verdict.shifts["compute"].against == "alike"
    (finding,) = verdict.findings
    assert finding.sort == "slow"


def test_since_is_where_the_readings_rise() -> None:
    rng = np.random.default_rng(1)
    values = 0.02 * rng.standard_normal(200)
    moments = np.array([f"2026-01-01T{i:05}" for i in range(200)], dtype=object)
    assert since(values, moments) == moments[0]
    values[120:] += 0.05
    shuffled = rng.permutation(200)
    found = since(values[shuffled], moments[shuffled])
    assert abs(int(found[-5:]) - 120) <= 3
