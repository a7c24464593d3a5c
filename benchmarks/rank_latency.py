"""Latency of choosing among many configurations of one GEMM, with the shipped model.

    .venv/bin/python benchmarks/rank_latency.py [--model FILE] [--device h100] [--json]

Needs no GPU; takes half a minute, on one thread.

Each figure is the median of the thread's CPU time over `--runs` calls, and the least
time on the clock: on a busy machine other processes lengthen the clock's median. `graph` is ONNX
Runtime alone on the rows that a pick runs (the prefilter on all, the model on the first), in turns
with the calls: what is over it is encoding, sorting and objects. A list that comes again, as for
the GEMMs of a network, is prepared once; `prepared` is what that takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, thread_time
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gemmcast import Gemm, KernelConfig, Predictor
from gemmcast.candidates import candidates
from gemmcast.cli_parser import Parser
from gemmcast.config_table import _table, config_table
from gemmcast.device import Device
from gemmcast.program import json_line, run_script
from gemmcast.ranking import PICKED_FROM, PREFILTERED

COUNTS: Final = (256, 4000)
GEMM: Final = Gemm(m=512, n=4096, k=4096, dtype="bf16", layout="nt")
MADE = "candidates made"

Call = Callable[[], object]


class Times(NamedTuple):
    """Of one call."""

    cpu_us: float
    """Median of the thread's CPU time."""
    least_us: float
    """Least time on the clock."""


def main() -> int:
    """The command; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an .onnx file [default: the shipped one]")
    parser.add_argument("--device", default="h100", help="as gemmcast names it")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args = parser.parse_args()
    with Predictor(args.model) as predictor:
        figures = measure(predictor, predictor.device(args.device), args.runs)
    if args.json:
        print(json_line(figures))
        return 0
    print(f"{'':24} {'CPU us':>10} {'least us':>10} {'over graph':>11}")
    for name, (cpu_us, least_us, over_graph) in figures.items():
        print(f"{name:24} {cpu_us:10.0f} {least_us:10.0f} {over_graph:11.2f}")
    return 0


def measure(
    predictor: Predictor, device: Device, runs: int
) -> dict[str, tuple[float, float, float]]:
    """Name -> median CPU time and least time in us, and the first over that of the graph alone."""
    figures: dict[str, tuple[float, float, float]] = {}
    for count in COUNTS:
        configs = many(device, count)
        times = in_turns(_calls(predictor, configs, device), runs)
        graph_us = times["graph"].cpu_us
        for name, of_call in times.items():
            over_graph = of_call.cpu_us / graph_us
            figures[f"{name} {count}"] = of_call.cpu_us, of_call.least_us, over_graph
    made = in_turns({MADE: lambda: candidates(GEMM, device, ["cutlass", "triton"])}, runs)
    figures[MADE] = made[MADE].cpu_us, made[MADE].least_us, np.nan
    return figures


def _calls(
    predictor: Predictor, configs: Sequence[KernelConfig], device: Device
) -> Mapping[str, Call]:
    """What is timed: the graph alone first."""
    model = predictor._model
    rows = config_table(GEMM, configs, device).rows(GEMM, device, "cold")
    few = rows[: PICKED_FROM * PREFILTERED + 1]

    def graph() -> None:
        """What a pick runs, and nothing else."""
        model.estimate_us(rows)
        model.run(few)

    return {
        "graph": graph,
        "pick": lambda: predictor.pick(GEMM, configs, device=device),
        "prepared": lambda: prepare(configs, device),
        "rank, top 8": lambda: predictor.rank(GEMM, configs, device=device, top=8),
        "rank, all": lambda: predictor.rank(GEMM, configs, device=device),
    }


def in_turns(calls: Mapping[str, Call], runs: int) -> dict[str, Times]:
    """Name -> times of a call; all calls share what else the machine does."""
    cpu_us: dict[str, list[float]] = {name: [] for name in calls}
    clock_us: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(runs):
        for name, call in calls.items():
            start_s, start_cpu_s = perf_counter(), thread_time()
            call()
            cpu_s = thread_time() - start_cpu_s
            clock_s = perf_counter() - start_s
            cpu_us[name].append(cpu_s * 1e6)
            clock_us[name].append(clock_s * 1e6)
    times: dict[str, Times] = {}
    for name in calls:
        median_us = float(np.median(cpu_us[name]))
        times[name] = Times(cpu_us=median_us, least_us=min(clock_us[name]))
    return times


def many(device: Device, count: int) -> list[KernelConfig]:
    """Configurations of Triton and CUTLASS; beyond those of the sets with other groups."""
    made = candidates(GEMM, device, ["triton", "cutlass"])
    triton = [config for config in made if config.family == "triton"]
    configs = list(made)
    while len(configs) < count:
        base = triton[len(configs) % len(triton)]
        configs.append(replace(base, swizzle=100 + len(configs)))
    return configs[:count]


def prepare(configs: Sequence[KernelConfig], device: Device) -> None:
    """Make the table of a list that never came before."""
    _table.cache_clear()
    config_table(GEMM, configs, device)


if __name__ == "__main__":
    run_script(main)
