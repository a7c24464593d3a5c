"""Record the cells of plans on this machine without Ray: a process and a file for each of its GPUs.

    python benchmarks/record.py PLAN... --out DIR --limit-s SECONDS [--skip DATASET.parquet ...]

Needs the devices of the plans; takes SECONDS at the longest.

The cells are those of `python -m coordinator run`, with the same ids, measured by the same
supervisor. Plans come one after another, each in random order, so that any part of a recording is a
fair sample; the configurations of a problem stay together. What a skipped dataset or a file in DIR
has is left out: started again, the command goes on. Every half minute the file is replaced by a
longer one, so that a kill loses no more than that. Contended cells are left out and stay due.

The plan's share of cells for a second board is measured on the next GPU too, where a machine has
several, and on this one where a skipped dataset has them from another board.

Needs CuPy, NumPy, pyarrow, nvidia-ml-py and pydantic, for cuBLASLt nvmath-python: no Ray, no store.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa
import pyarrow.parquet as pq

from agent.devices.visible import VARIABLE, visible_gpus
from agent.spec import AgentSpec
from agent.supervisor import ChildSupervisor
from coordinator.plan.schema import Devices, Plan, read_plan
from coordinator.plan.sizing import measurable
from coordinator.samples.answers import CONTENDED
from gemmcast.arrow import read_samples, to_table
from gemmcast.cell import Cell
from gemmcast.cli_parser import Parser
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.modeldir import write_atomically
from gemmcast.program import FAILED, run_command, run_script
from gemmcast.rows import Row

WRITE_EVERY_S = 30.0
SAY_EVERY_S = 15.0
NODE = Path(tempfile.gettempdir()) / "gemmcast-record"
"""Keeps the descriptions of this machine's devices from call to call."""

Boards = Mapping[str, set[str]]
"""Id of a recorded cell -> UUIDs of the boards that it was measured on."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Which of the processes this is."""

    index: int = 0
    """From 0."""
    count: int = 1
    """How many there are: one for each GPU."""

    def takes(self, number: int) -> bool:
        """Whether the problem of that number is this one's: they are dealt in turn."""
        return number % self.count == self.index


@dataclass(slots=True)
class Recording:
    """The rows of this process. Its file is replaced as a whole, so that it is always complete."""

    path: Path
    """The file."""
    cells: int
    """How many there are to measure."""
    end_s: float
    """When to stop, by `monotonic`."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Status -> rows."""
    _rows: list[Row] = field(default_factory=list)
    _tables: list[pa.Table] = field(default_factory=list)
    _began_s: float = field(default_factory=monotonic)
    _written_s: float = field(default_factory=monotonic)
    _said_s: float = field(default_factory=monotonic)

    def add(self, row: Row) -> None:
        """One more row."""
        self.statuses[row["status"]] += 1
        if row["status"] != CONTENDED:
            self._rows.append(row)

    def is_over(self) -> bool:
        """Write and say what is due; whether the time is up."""
        now_s = monotonic()
        if now_s - self._written_s > WRITE_EVERY_S:
            self.write()
        if now_s - self._said_s > SAY_EVERY_S:
            self.say()
        return now_s >= self.end_s

    def write(self) -> None:
        """Put all rows into the file; none, no file."""
        self._written_s = monotonic()
        if self._rows:
            self._tables.append(to_table(self._rows))
            self._rows = []
        if not self._tables:
            return
        buffer = BytesIO()
        pq.write_table(pa.concat_tables(self._tables), buffer, compression="zstd")
        write_atomically(self.path, buffer.getvalue())

    def say(self) -> None:
        """Print one line of progress."""
        self._said_s = now_s = monotonic()
        done = self.statuses.total()
        rate = done / max(now_s - self._began_s, 1e-9)
        statuses = ", ".join(f"{status} {count}" for status, count in self.statuses.most_common())
        words = [
            f"{self.path.stem}: {done} of {self.cells} cells",
            f"{rate:.1f} a second",
            statuses or "no row yet",
            f"{max(self.end_s - now_s, 0):.0f} s left",
        ]
        print("; ".join(words), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: _run(words))


def _run(words: list[str]) -> int:
    began_s = monotonic()
    args = _parser().parse_args(words)
    plans = [read_plan(path) for path in args.plans]
    _check_alike(plans)
    devices = _with_share(plans[0].devices, args.second_board)
    kind, gpus = _devices(plans[0])
    if args.worker is None and len(gpus) > 1:
        return _on_every(gpus, words)
    recorded = _recorded([*args.skip, *sorted(args.out.glob("*.parquet"))])
    supervisor = ChildSupervisor(_spec(plans[0], kind))
    try:
        device = supervisor.device
        due = Due(device, _share_of(plans[0], args.worker), recorded, devices)
        cells: list[Cell] = []
        for plan in plans:
            planned = measurable(plan, device).cells
            cells += due.of(_shuffled(planned, f"{args.seed} {plan.name}"))
        path = _free_path(args.out, device)
        _measure(supervisor, cells, Recording(path, len(cells), began_s + args.limit_s))
    finally:
        supervisor.stop()
    return 0


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", type=Path, metavar="PLAN")
    parser.add_argument("--out", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument(
        "--limit-s",
        type=float,
        required=True,
        help="stop after so many seconds, everything written",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument(
        "--skip", type=Path, nargs="+", default=[], help="datasets whose cells are left out"
    )
    parser.add_argument(
        "--second-board", type=float, metavar="SHARE", help="0 to 1, in place of the plan's"
    )
    # One process of several, which sees one GPU: INDEX/COUNT.
    parser.add_argument("--worker", type=_worker, help=argparse.SUPPRESS)
    return parser


def _worker(text: str) -> Worker:
    index, count = text.split("/")
    return Worker(int(index), int(count))


def _check_alike(plans: Sequence[Plan]) -> None:
    """One child measures all of them."""
    first = plans[0]
    for plan in plans[1:]:
        same_bounds = plan.measure.procedure() == first.measure.procedure()
        if not same_bounds or plan.devices != first.devices:
            rule = f"its [devices] or bounds of [measure] are not those of {first.name}"
            raise InputError("PLAN", plan.name, rule, "record it in a call of its own")


def _with_share(devices: Devices, share: float | None) -> Devices:
    """With another share of cells for a second board, if one is given."""
    if share is None:
        return devices
    if not 0 <= share <= 1:
        raise InputError("--second-board", share, "must be a share from 0 to 1", "write 0.05")
    return devices.model_copy(update={"second_board": share})


def _share_of(plan: Plan, worker: Worker | None) -> Worker:
    """Equal GPUs divide the cells, unless the plan has each of them measured on every one."""
    if worker is None or plan.devices.replicate == "per_gpu":
        return Worker()
    return worker


def _devices(plan: Plan) -> tuple[str, list[str]]:
    """The kind of device that is measured, and the GPUs if it is cuda."""
    kind = plan.devices.kind
    gpus = visible_gpus() if kind in ("cuda", "auto") else []
    if kind == "cuda" and not gpus:
        rule = "the plan measures GPUs, and there is none here"
        raise InputError("devices.kind", kind, rule, "record it on a machine with a GPU")
    if kind == "auto":
        kind = "cuda" if gpus else "cpu"
    return kind, gpus


def _on_every(gpus: Sequence[str], words: Sequence[str]) -> int:
    """One process for each GPU; ends when all have ended."""
    processes = []
    for i, gpu in enumerate(gpus):
        command = [sys.executable, __file__, *words, "--worker", f"{i}/{len(gpus)}"]
        processes.append(subprocess.Popen(command, env={**os.environ, VARIABLE: gpu}))
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    return FAILED if any(codes) else 0


def _spec(plan: Plan, kind: str) -> AgentSpec:
    devices = plan.devices
    datasets = devices.datasets()
    return AgentSpec(
        kind=kind,
        agent="record",
        model_dir=NODE,
        procedure=plan.measure.procedure(),
        dataset=Path(datasets[0]) if datasets else None,
        device_name=devices.device_name,
    )


def _recorded(paths: Sequence[Path]) -> dict[str, set[str]]:
    """See `Boards`."""
    boards: dict[str, set[str]] = {}
    for path in paths:
        for row in read_samples(path, ["cell_id", "device_uuid", "status"]).to_pylist():
            if row["status"] != CONTENDED:
                boards.setdefault(row["cell_id"], set()).add(row["device_uuid"])
    return boards


def _shuffled(cells: Sequence[Cell], seed: str) -> list[list[Cell]]:
    """The cells by problem, because an agent then keeps its operands, in random order."""
    problems: dict[Gemm, list[Cell]] = {}
    for cell in cells:
        problems.setdefault(cell.gemm, []).append(cell)
    shuffled = list(problems.values())
    random.Random(seed).shuffle(shuffled)
    return shuffled


@dataclass(frozen=True, slots=True)
class Due:
    """Which cells this process has to measure: new ones of its share, and some of other boards'."""

    device: Device
    """What this process measures."""
    worker: Worker
    """Which process this is."""
    recorded: Boards
    """What is left out."""
    devices: Devices
    """Say which cells are measured on two boards."""

    def of(self, problems: Sequence[Sequence[Cell]]) -> Iterator[Cell]:
        """The cells of these problems that this process measures."""
        for number, problem in enumerate(problems):
            for cell in problem:
                if self._is_due(number, cell):
                    yield cell

    def _is_due(self, number: int, cell: Cell) -> bool:
        boards = self.recorded.get(cell.cell_id)
        if boards is None and self.worker.takes(number):
            return True
        if not self.devices.has_second_board(cell):
            return False
        if boards is None:
            # The neighbour is the first board.
            return self.worker.takes(number + 1)
        is_another = len(boards) == 1 and self.device.uuid not in boards
        return is_another and self.worker.takes(number)


def _free_path(folder: Path, device: Device) -> Path:
    """A file that is not there yet, named by the board."""
    board = device.uuid.removeprefix("GPU-").replace("/", "_")[:8]
    number = 0
    while (folder / f"{board}-{number}.parquet").exists():
        number += 1
    return folder / f"{board}-{number}.parquet"


def _measure(supervisor: ChildSupervisor, cells: Sequence[Cell], recording: Recording) -> None:
    """Until all is measured or the time is up; what was measured is written in any case."""
    recording.say()
    try:
        for row in supervisor.measure(cells):
            if row is not None:
                recording.add(row)
            if recording.is_over():
                break
    finally:
        recording.write()
        recording.say()


if __name__ == "__main__":
    run_script(main)
