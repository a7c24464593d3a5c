"""How sure a health check is: faults mixed into the readings of boards that are well.

    .venv/bin/python benchmarks/health_curves.py [--checks 200] [--healthy 4000]

Needs no GPU.

Recorded boards that have measured the same cells stand for a fleet. A check draws a board, and some
of its cells as a check has them; a fault is mixed into its rows, and it is judged as the product
does (coordinator/health/judge.py). Three settings, in each of which the judged board is left out of
what it is held against:

    sisters  other boards at the same cells: a fleet, or one board beside the recorded reference
    alone    one board and the model, of a type that it knows; boards of the exam, on which it was
             never trained
    sweep    some hundred rows of a sweep, none of which another board has measured

Printed are the shares of checks that find something, and that name the fault; `none` has the false
alarms. What is recorded are H100s and H200s in good health: how they differ is measured, what a
fault does to a board is assumed (`FAULTS`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coordinator.health.judge import judge
from coordinator.health.readings import CELL, codes, column, kinds_of, numbers
from gemmcast import Predictor
from gemmcast.arrow import SCHEMA, read_samples
from gemmcast.cli_parser import Parser
from gemmcast.program import json_line, run_script

SISTERS = (
    "h100_demo",
    "h100_demo_again",
    "h100_sxm",
    "h100_sxm_again",
    "h200_holes",
    "h200_holes_again",
    "h200_sxm",
    "h200_sxm_again",
    "h200_exam",
    "h200_exam_again",
)
EXAM = ("h200_exam", "h200_exam_again")
SWEEP = ("h100_sxm",)
CELLS = {"compute": 16, "memory": 8, "small": 11}
"""Kind -> cells of a check (coordinator/health/cells.py)."""
SWEEP_ROWS = 300
OTHER_ROWS = 1_500
FOLLOWS = {"compute": 1.0, "memory": 0.3, "small": 0.5}
"""How far the assumed faults let runtimes follow the clock."""
THERMAL = 0x20
SEED = 7

Rng = np.random.Generator
Column = npt.NDArray[np.float64]
Fault = Callable[[pa.Table, Rng], pa.Table]
"""Puts a fault into the rows of a board."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The rows of one board at cells that others have too, and theirs."""

    own: pa.Table
    others: pa.Table


def slower(percent: float) -> Fault:
    """All cells take longer."""
    factor = 1 + percent / 100
    return lambda table, _: _with(table, "runtime_us", _read(table, "runtime_us") * factor)


def half_memory(table: pa.Table, _: Rng) -> pa.Table:
    """Half of the memory bandwidth: a roofline whose memory side has doubled."""
    times = _read(table, "runtime_us")
    factors = np.where(kinds_of(table) == "memory", 1.9, 1.0)
    return _with(table, "runtime_us", times * factors)


def clock_at(share: float) -> Fault:
    """No clock above a share of the highest one."""

    def capped(table: pa.Table, _: Rng) -> pa.Table:
        """The rows under the cap."""
        cap = share * _read(table, "clock_max_mhz")
        clock = _read(table, "clock_mhz")
        held = np.minimum(clock, cap)
        start = np.minimum(_read(table, "clock_start_mhz"), cap)
        follows = np.array([FOLLOWS[kind] for kind in kinds_of(table)])
        times = _read(table, "runtime_us") * (clock / held) ** follows
        slow = _with(table, "runtime_us", times)
        slow = _with(slow, "clock_mhz", held)
        return _with(slow, "clock_start_mhz", start)

    return capped


def hot(table: pa.Table, rng: Rng) -> pa.Table:
    """35 °C more, a tenth of the clock less, and the driver says why."""
    slow = clock_at(0.88)(table, rng)
    warm = _with(slow, "temperature_c", _read(table, "temperature_c") + 35)
    bits = pa.array(np.full(len(table), THERMAL))
    return _replaced(warm, "throttle_reasons", bits)


def hungry(table: pa.Table, _: Rng) -> pa.Table:
    """A fifth more power for the same work."""
    return _with(table, "power_w", _read(table, "power_w") * 1.2)


def wrong(table: pa.Table, rng: Rng) -> pa.Table:
    """Two cells with a wrong result."""
    statuses = column(table["status"])
    two = rng.choice(len(table), 2, replace=False)
    statuses[two] = "incorrect"
    return _replaced(table, "status", pa.array(statuses.tolist()))


def healthy(table: pa.Table, _: Rng) -> pa.Table:
    """No fault."""
    return table


FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "none": (healthy, ()),
    "2 % slower": (slower(2), ("slow",)),
    "3 % slower": (slower(3), ("slow",)),
    "5 % slower": (slower(5), ("slow",)),
    "10 % slower": (slower(10), ("slow",)),
    "20 % slower": (slower(20), ("slow",)),
    "half the memory bandwidth": (half_memory, ("memory",)),
    "clock capped at 80 %": (clock_at(0.8), ("capped",)),
    "hot": (hot, ("hot",)),
    "20 % more power": (hungry, ("power",)),
    "wrong results": (wrong, ("wrong",)),
}
"""Name -> the fault, and the findings that name it."""


def main() -> None:
    """The command."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=200, help="of each fault and setting")
    parser.add_argument("--healthy", type=int, default=4000, help="checks without a fault")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    predictor = Predictor()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for setting in args.settings:
        checks = SETTINGS[setting]()
        results[setting] = curves(checks, predictor, args.checks, args.healthy)
        if not args.json:
            _show(setting, results[setting])
    if args.json:
        print(json_line(results))


def curves(
    checks: Iterator[Shared], predictor: Predictor, count: int, healthy_count: int
) -> dict[str, dict[str, float]]:
    """Fault -> shares of checks that find something, and that name it."""
    rng = np.random.default_rng(SEED)
    shares: dict[str, dict[str, float]] = {}
    for name, (fault, sorts) in FAULTS.items():
        total = count if sorts else healthy_count
        alarms = named = 0
        for _ in range(total):
            check = next(checks)
            own = fault(check.own, rng)
            verdicts = judge(own, predictor, check.others)
            seen = {finding.sort for finding in verdicts[0].findings}
            alarms += bool(seen)
            named += bool(seen.intersection(sorts))
        shares[name] = {"checks": total, "found": alarms / total, "named": named / total}
    return shares


def shared_checks(table: pa.Table) -> Iterator[Shared]:
    """Checks of boards that share cells: as many of each kind as a check has, where there are."""
    rng = np.random.default_rng(SEED)
    cells = codes([table[name] for name in (*CELL, "device")])
    boards = column(table["device_uuid"])
    kinds = _kinds_by_type(table)
    on_two = _cells_on_two(cells, boards)
    places: dict[str, npt.NDArray[np.int64]] = {}
    for board in sorted(set(boards.tolist())):
        rows = np.flatnonzero((boards == board) & on_two)
        if _has_enough(kinds[rows]):
            places[board] = rows
    judged = list(places)
    while True:
        board = judged[rng.integers(len(judged))]
        own = _drawn(places[board], kinds, CELLS, rng)
        is_there = np.isin(cells, cells[own])
        others = np.flatnonzero(is_there & (boards != board))
        yield _shared(table, own, others)


def alone_checks(table: pa.Table) -> Iterator[Shared]:
    """The same without any sister."""
    for check in shared_checks(table):
        yield Shared(check.own, check.others.slice(0, 0))


def sweep_checks(table: pa.Table) -> Iterator[Shared]:
    """Rows of one board of a sweep, and rows of others, in the mix of that board's families."""
    rng = np.random.default_rng(SEED)
    boards = column(table["device_uuid"])
    names = sorted(set(boards.tolist()))
    alike = codes([table["family"], table["dtype"]])
    while True:
        board = names[rng.integers(len(names))]
        of_board = np.flatnonzero(boards == board)
        own = rng.choice(of_board, SWEEP_ROWS, replace=False)
        is_alike = np.isin(alike, alike[own])
        elsewhere = np.flatnonzero(is_alike & (boards != board))
        others = rng.choice(elsewhere, OTHER_ROWS, replace=False)
        yield _shared(table, own, others)


def _shared(table: pa.Table, own: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> Shared:
    return Shared(table.take(pa.array(own)), table.take(pa.array(others)))


def _cells_on_two(
    cells: npt.NDArray[np.int64], boards: npt.NDArray[np.object_]
) -> npt.NDArray[np.bool_]:
    pairs = set(zip(cells.tolist(), boards.tolist(), strict=True))
    counts = np.zeros(cells.max() + 1, dtype=np.int64)
    for cell, _ in pairs:
        counts[cell] += 1
    return counts[cells] > 1


def _kinds_by_type(table: pa.Table) -> npt.NDArray[np.object_]:
    """[n_rows] what bounds each row on its own type of device."""
    devices = column(table["device"])
    kinds = np.empty(len(table), dtype=object)
    for device in set(devices.tolist()):
        rows = np.flatnonzero(devices == device)
        kinds[rows] = kinds_of(table.take(pa.array(rows)))
    return kinds


def _has_enough(kinds: npt.NDArray[np.object_]) -> bool:
    return all(np.sum(kinds == kind) >= count for kind, count in CELLS.items())


def _drawn(
    rows: npt.NDArray[np.int64], kinds: npt.NDArray[np.object_], wanted: dict[str, int], rng: Rng
) -> npt.NDArray[np.int64]:
    drawn = []
    for kind, count in wanted.items():
        of_kind = rows[kinds[rows] == kind]
        drawn.append(rng.choice(of_kind, min(count, len(of_kind)), replace=False))
    return np.concatenate(drawn)


def _tables(names: Sequence[str]) -> pa.Table:
    """The rows of these datasets that are ok."""
    root = Path(__file__).resolve().parent.parent / "datasets"
    table = pa.concat_tables([read_samples(root / f"{name}.parquet") for name in names])
    return table.filter(pc.equal(table["status"], "ok"))


def _read(table: pa.Table, name: str) -> Column:
    return numbers(table[name])


def _with(table: pa.Table, name: str, values: Column) -> pa.Table:
    return _replaced(table, name, pa.array(values, from_pandas=True))


def _replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = table.column_names.index(name)
    field = SCHEMA.field(name)
    return table.set_column(place, field, values.cast(field.type))


def _show(setting: str, shares: dict[str, dict[str, float]]) -> None:
    print(f"{setting:28}{'checks':>8}{'found %':>10}{'named %':>10}")
    for name, figures in shares.items():
        alarms = 100 * figures["found"]
        named = 100 * figures["named"]
        print(f"  {name:26}{figures['checks']:8.0f}{alarms:10.2f}{named:10.2f}", flush=True)


SETTINGS = {
    "sisters": lambda: shared_checks(_tables(SISTERS)),
    "alone": lambda: alone_checks(_tables(EXAM)),
    "sweep": lambda: sweep_checks(_tables(SWEEP)),
}
"""Name -> makes its checks."""

if __name__ == "__main__":
    run_script(main)
