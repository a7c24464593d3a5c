"""What one coordinator carries: rows a second, lag, memory and CPU time, from 1 to 1,024 agents.

    .venv/bin/python benchmarks/fleet_scale.py            7 minutes; JSON on the last line
    .venv/bin/python benchmarks/fleet_scale.py --quick    to try it: seconds a point
    .venv/bin/python benchmarks/fleet_scale.py --long     10 minutes of 64 agents: flat memory
    .venv/bin/python benchmarks/fleet_scale.py --ray      what Ray adds, at 8 to 32 real actors

The coordinator is the real one (benchmarks/fleet/point.py); the agents replay recorded rows from a
process of their own, so neither Ray nor what agents cost is in `coordinator_cpu_s`. Each point
offers 20 rows a second of each agent for a minute; `saturated` offers batches of 100 rows as fast
as they are taken. A row's lag is the time from its measurement to the end of its commit.
docs/scaling.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gemmcast.cli_parser import Parser
from gemmcast.program import json_line, run_script

AGENTS = (1, 8, 64, 256, 1024)
RAY_AGENTS = (8, 16, 32)
ROWS_PER_S = 20.0
"""Of each agent; an H100 measures about as many cells a second."""
SECONDS = 60.0
QUICK_SECONDS = 5.0
LONG_SECONDS = 600.0
LONG_AGENTS = 64
SATURATED_AGENTS = 64
SATURATED_SECONDS = 20.0
SATURATED_ROWS_PER_S = 30_000.0
"""So many times its seconds are offered."""

Figures = dict[str, float]
"""See `benchmarks.fleet.point.Figures`."""


def main() -> int:
    """Measure and print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=AGENTS, metavar="N")
    parser.add_argument("--quick", action="store_true", help="a few seconds a point")
    parser.add_argument("--long", action="store_true", help="only ten minutes of 64 agents")
    parser.add_argument("--ray", action="store_true", help="only what Ray adds")
    # One run in a process by itself: its memory and CPU time are the coordinator's.
    parser.add_argument("--one", choices=("paced", "saturated", "ray"), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json_line(_run(args.one, args.agents[0], args.seconds)))
        return 0
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    if args.long:
        print(json_line({"long": _in_a_process("paced", LONG_AGENTS, LONG_SECONDS)}))
    elif args.ray:
        print(json_line({"ray": [_with_and_without_ray(agents, seconds) for agents in RAY_AGENTS]}))
    else:
        print(json_line(_points(args.agents, seconds)))
    return 0


def _points(agents: list[int], seconds: float) -> dict[str, object]:
    points = [_in_a_process("paced", count, seconds) for count in agents]
    saturated = _in_a_process("saturated", SATURATED_AGENTS, min(SATURATED_SECONDS, seconds))
    rows_per_s = saturated["committed_rows"] / saturated["seconds"]
    return {
        "points": points,
        "saturated": {"agents": SATURATED_AGENTS, "rows_per_s": rows_per_s, **saturated},
    }


def _with_and_without_ray(agents: int, seconds: float) -> dict[str, object]:
    """The same fleet behind Ray and behind a pipe."""
    return {
        "agents": agents,
        "with_ray": _in_a_process("ray", agents, seconds),
        "without": _in_a_process("paced", agents, seconds),
    }


def _in_a_process(sort: str, agents: int, seconds: float) -> Figures:
    command = [sys.executable, __file__, "--one", sort]
    command += ["--agents", str(agents), "--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{sort} {json_line(figures)}", file=sys.stderr)
    return figures


def _run(sort: str, agents: int, seconds: float) -> object:
    from benchmarks.fleet.point import Offer, run_point

    offer = Offer.paced(agents, ROWS_PER_S, seconds)
    if sort == "saturated":
        offer = Offer.saturated(agents, round(SATURATED_ROWS_PER_S * seconds))
    with TemporaryDirectory() as folder:
        return run_point(offer, Path(folder), is_behind_ray=sort == "ray")


if __name__ == "__main__":
    run_script(main)
