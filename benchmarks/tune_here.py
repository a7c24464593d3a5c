"""Tune on this machine's first GPU without Ray, then see what the table is worth.

    python benchmarks/tune_here.py --out DIR [--gemms FILE.csv --families triton] [--json]

Rounds, decisions, tables and records are those of `python -m coordinator tune`; samples go to
DIR/samples.parquet, every round and every five seconds. Killed and started again, it goes on
there. Without --gemms the list is fp8 with block scales: six layers of DeepSeek-V3 at 18 numbers of
tokens.

Then fresh turns show what is true of the table: the winner beside the default on every GEMM, and on
a tenth of them the winner beside the best of up to --best-of configurations, of which the first
four are read five times more: the best of 200 single readings is the luckiest.

Needs CuPy, NumPy, ONNX Runtime, pyarrow, nvidia-ml-py and pydantic. `--devices replay:FILE` and
`--devices cpu` try it without a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from math import exp, log
from pathlib import Path
from statistics import mean, median
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa
import pyarrow.parquet as pq

from agent.spec import AgentSpec
from agent.supervisor import ChildSupervisor
from coordinator.samples.answers import CONTENDED
from coordinator.tune.devices import parse_devices
from coordinator.tune.families import parse_families, runnable
from coordinator.tune.request import Request, parse_budget
from coordinator.tune.result import TuneResult
from coordinator.tune.tuning import Tuning
from gemmcast.arrow import SCHEMA, read_samples, to_table
from gemmcast.cell import Cell
from gemmcast.cli_parser import Parser
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.draw import shuffled
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm, read_gemms
from gemmcast.modeldir import write_atomically
from gemmcast.objective import Objective
from gemmcast.predictor import Predictor
from gemmcast.program import json_line, run_command, run_script
from gemmcast.rows import Row
from gemmcast.tuned_entry import TunedEntry

NODE = Path(tempfile.gettempdir()) / "gemmcast-tune"
WRITE_EVERY_S = 5.0
LAYERS = ((2112, 7168), (24576, 1536), (7168, 16384), (36864, 7168), (7168, 18432), (4096, 7168))
"""(n, k) of linear layers of DeepSeek-V3 (config.json of deepseek-ai/DeepSeek-V3)."""
TOKENS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1536, 2048, 3072, 4096)
CHECK_SERIES = 2**40
"""The first turn of the check: no tuning has such numbers."""
CHECK_TURNS = 3
BEST_TURNS = 5
BEST_READ_AGAIN = 4
SLOWER = log(1.003)
"""A winner that is slower than this beside its default is worse: below, a board can't tell."""


class Bench:
    """Measures on one device and keeps the rows."""

    def __init__(self, supervisor: ChildSupervisor, path: Path) -> None:
        self.device = supervisor.device
        self._supervisor = supervisor
        self._path = path
        self._tables = [read_samples(path)] if path.is_file() else [SCHEMA.empty_table()]
        self._answered = set(self._tables[0]["cell_id"].to_pylist())
        self.measuring_s = 0.0
        """Time in which cells were measured."""
        self.measured = 0

    def measure(self, cells: Sequence[Cell], label: str) -> bool:
        """Those of the cells that have no row yet."""
        due = [cell for cell in cells if cell.cell_id not in self._answered]
        began_s = written_s = monotonic()
        rows: list[Row] = []
        for row in self._supervisor.measure(due):
            if row is not None and row["status"] != CONTENDED:
                rows.append(row)
            if monotonic() - written_s > WRITE_EVERY_S:
                rows, written_s = self._keep(rows), monotonic()
        self._keep(rows)
        took_s = monotonic() - began_s
        self.measuring_s += took_s
        self.measured += len(due)
        print(f"{label}: {len(due)} of {len(cells)} cells in {took_s:.1f} s", file=sys.stderr)
        return True

    def rows(self) -> pa.Table:
        """All of them."""
        return pa.concat_tables(self._tables)

    def runtimes_us(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Cell -> runtime, of those that were measured well."""
        wanted = {cell.cell_id for cell in cells}
        columns = self.rows().select(["cell_id", "status", "runtime_us"]).to_pylist()
        return {
            row["cell_id"]: row["runtime_us"]
            for row in columns
            if row["cell_id"] in wanted and row["status"] == "ok"
        }

    def _keep(self, rows: list[Row]) -> list[Row]:
        """Write everything, whole or not at all; returns an empty list for further rows."""
        if not rows:
            return rows
        self._tables.append(to_table(rows))
        self._answered |= {row["cell_id"] for row in rows}
        buffer = BytesIO()
        pq.write_table(self.rows(), buffer, compression="zstd")
        write_atomically(self._path, buffer.getvalue())
        return []


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    args = _parser().parse_args(arguments)
    request = _request(args)
    args.out.mkdir(parents=True, exist_ok=True)
    began_s = monotonic()
    supervisor = ChildSupervisor(_spec(request))
    try:
        bench = Bench(supervisor, args.out / "samples.parquet")
        device = bench.device
        started_s = monotonic() - began_s
        model = [Predictor(args.model)]
        tuning = Tuning(request, args.out / "tune", {device.name: device}, lambda: model)
        ranked_s = monotonic() - began_s - started_s
        is_complete = tuning.run(bench.measure, bench.rows)
        result = tuning.write(args.out, is_complete)
        values = {**_tuned(result), **_spent(bench), "started_s": started_s, "ranked_s": ranked_s}
        print("\n".join(result.lines()), file=sys.stderr, flush=True)
        if not request.is_replay:
            values |= _check(result, request, bench, args)
    finally:
        supervisor.stop()
    print(json_line(values) if args.json else _text(values))


def _check(
    result: TuneResult, request: Request, bench: Bench, args: argparse.Namespace
) -> dict[str, object]:
    """What fresh readings say of the table."""
    (of_type,) = result.types
    entries = [outcome.entry for outcome in of_type.outcomes if outcome.entry.verified]
    checker = Checker(bench, bench.device)
    ratios = [checker.beside_default(entry) for entry in entries if not entry.keeps_default]
    known = [ratio for ratio in ratios if ratio is not None]
    by_gemm = {str(entry.gemm): entry for entry in entries}
    tenth = shuffled(by_gemm)[: max(1, round(args.check * len(by_gemm)))] if args.check else []
    regrets: dict[str, float] = {}
    for name in tenth:
        others = _others(by_gemm[name], request, checker, args.best_of)
        regret = checker.regret(by_gemm[name], others)
        if regret is not None:
            regrets[name] = regret
    return {
        "checked": len(known),
        "slower_than_default": sum(ratio > SLOWER for ratio in known),
        "mean_gain_checked": exp(-mean(known)) if known else 1.0,
        "mean_regret": mean(regrets.values()) if regrets else None,
        "worst_regret": max(regrets.values(), default=None),
        "regrets": regrets,
    }


class Checker:
    """Fresh turns of the entries of a table."""

    def __init__(self, bench: Bench, device: Device) -> None:
        self._bench = bench
        self.device = device

    def beside_default(self, entry: TunedEntry) -> float | None:
        """Logarithm of the winner's time over the default's."""
        logs = self._turns(entry.gemm, [entry.default, entry.winner], CHECK_TURNS, 0)
        default, winner = logs[entry.default], logs[entry.winner]
        pairs = [one - other for one, other in zip(winner, default, strict=False)]
        return median(pairs) if pairs else None

    def regret(self, entry: TunedEntry, others: Sequence[KernelConfig]) -> float | None:
        """How much longer the winner takes than the best; 0.01 is 1 %."""
        everyone = list(dict.fromkeys([entry.default, entry.winner, *others]))
        once = self._turns(entry.gemm, everyone, 1, CHECK_TURNS)
        known = [config for config in everyone if once[config]]
        first = sorted(known, key=lambda config: once[config][0])[:BEST_READ_AGAIN]
        again = list(dict.fromkeys([entry.winner, *first]))
        logs = self._turns(entry.gemm, again, BEST_TURNS, CHECK_TURNS + 1)
        medians = {config: median(values) for config, values in logs.items() if values}
        if entry.winner not in medians:
            return None
        return exp(medians[entry.winner] - min(medians.values())) - 1

    def _turns(
        self, gemm: Gemm, configs: Sequence[KernelConfig], turns: int, first: int
    ) -> dict[KernelConfig, list[float]]:
        """Configuration -> logarithms of its runtimes."""
        cells = list(self._cells(gemm, configs, turns, first))
        self._bench.measure(cells, f"check {gemm}")
        runtimes = self._bench.runtimes_us(cells)
        logs: dict[KernelConfig, list[float]] = {config: [] for config in configs}
        for cell in cells:
            if cell.cell_id in runtimes:
                logs[cell.config].append(log(runtimes[cell.cell_id]))
        return logs

    def _cells(
        self, gemm: Gemm, configs: Sequence[KernelConfig], turns: int, first: int
    ) -> Iterator[Cell]:
        for turn in range(first, first + turns):
            for config in configs:
                yield Cell(
                    gemm=gemm,
                    config=config,
                    device_key=self.device.name,
                    repeat=CHECK_SERIES + turn,
                )


def _others(entry: TunedEntry, request: Request, checker: Checker, most: int) -> list[KernelConfig]:
    """Some of all possible configurations, drawn by their names."""
    listed = next(one for one in request.gemms if one.gemm == entry.gemm)
    configs, _ = runnable(listed, request.families, checker.device, request.kernel_set)
    by_name = {str(config): config for config in configs}
    return [by_name[name] for name in shuffled(by_name)[:most]]


def _request(args: argparse.Namespace) -> Request:
    return Request(
        gemms=read_gemms(args.gemms) if args.gemms else _block_scaled(),
        objective=Objective.parse(args.objective),
        families=parse_families(args.families),
        kernel_set=args.kernel_set,
        top=args.top,
        budget_s=parse_budget(args.budget),
        devices=parse_devices(args.devices),
    )


def _block_scaled() -> list[ListedGemm]:
    listed: list[ListedGemm] = []
    for n, k in LAYERS:
        for m in TOKENS:
            gemm = Gemm(m=m, n=n, k=k, dtype="fp8_e4m3", layout="nt")
            listed.append(ListedGemm(gemm=gemm, kernel="scaled_block"))
    return listed


def _spec(request: Request) -> AgentSpec:
    """Of the first device; a replay answers from the first table."""
    kind = "cuda" if request.devices.kind == "auto" else request.devices.kind
    tables = request.devices.tables
    return AgentSpec(
        kind=kind,
        agent="tune",
        model_dir=NODE,
        procedure=request.plan().measure.procedure(),
        dataset=Path(tables[0].dataset) if tables else None,
        device_name=tables[0].device_name if tables else None,
    )


def _tuned(result: TuneResult) -> dict[str, object]:
    (of_type,) = result.types
    values = of_type.to_json()
    names = ("device", "table", "gemms", "kept_default", "uncertain", "mean_gain", "spent_s")
    return {name: values[name] for name in names}


def _spent(bench: Bench) -> dict[str, object]:
    return {"measuring_s": bench.measuring_s, "measured": bench.measured}


def _text(values: dict[str, object]) -> str:
    return "\n".join(f"{name:20} {value}" for name, value in values.items() if name != "regrets")


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gemms", type=Path, metavar="FILE", help="as for the command")
    parser.add_argument("--objective", default="time")
    parser.add_argument("--families", default="triton:scaled_block")
    parser.add_argument("--kernel-set", help="of Triton's configurations only those: short, usual")
    parser.add_argument("--top", type=int, default=8)
    parser.add_argument("--budget", metavar="TIME")
    parser.add_argument("--devices", default="cuda")
    parser.add_argument("--model", type=Path, help="in place of the one that comes with gemmcast")
    parser.add_argument("--out", type=Path, required=True, help="folder of tables and samples")
    parser.add_argument("--check", type=float, default=0.1, help="share that is compared with all")
    parser.add_argument("--best-of", type=int, default=200, help="configurations of that")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    run_script(main)
