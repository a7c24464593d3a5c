"""Run after run on a cluster of three nodes, with a random fault every 20 seconds.

    python benchmarks/fleet_soak.py [--minutes 30] [--every 20] [--seed 1]

Takes as long as it is given, then until the run under way has ended; on this host's CPU alone. A
Ray head with a token and two more nodes measure small plans, one after another into one workspace.
Meanwhile one of these happens every --every seconds:

    child          a measuring child is killed (-9)
    agent          an agent is killed (-9)
    all agents     every agent is killed (-9)
    stopped        an agent is stopped (SIGSTOP) for ten seconds
    node           a node's raylet is killed (-9), and a new node joins
    coordinator    the coordinator is killed (-9), and the same command started again

Printed is one JSON object: the faults, the runs, and the cells of their plans beside those in the
store. Exit code 1 where a cell is lost or there twice, or where a run fails or does not go on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic, sleep

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.trial.head import Head, TrialError, children_of, last_lines
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import read_plan
from coordinator.samples.store import SampleStore
from gemmcast.cli_parser import Parser
from gemmcast.program import json_line, run_script

ROOT = Path(__file__).resolve().parent.parent
PLAN = """
name = "soak"
seed = SEED
[devices]
kind = "cpu"
second_board = 0
[measure]
target_rse = 0.0001
burst_s = 0.1
[[sweep]]
family = "blas"
kernel = "numpy"
shapes = { sample = 600, min = 16, max = 500 }
knobs = { cpu_threads = [1] }
"""
NODES = 3
STOPPED_S = 10.0
PROGRESS_LIMIT_S = 300.0
"""So long a run may commit no cell before it counts as hanging."""
LOOK_S = 0.5


@dataclass
class Figures:
    """What a soak came to."""

    seed: int
    faults: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    """That have ended with every cell of their plan."""
    starts: int = 0
    """Of a coordinator: one a run, and one more after each time that it was killed."""
    cells_planned: int = 0
    """Different cells of all plans."""
    cells_committed: int = 0
    """Different cells of them with an answer in the store."""
    rows: int = 0
    """Answers in the store: as many, if each cell is there once."""
    longest_pause_s: float = 0.0
    """The longest time without a new cell."""
    left_after_stop: list[str] = field(default_factory=list)
    failure: str | None = None
    minutes: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, done twice or left behind."""
        is_exact = self.cells_planned == self.cells_committed == self.rows
        return is_exact and self.runs > 0 and not self.left_after_stop and self.failure is None


class Soak:
    """Runs and faults, until the time is over."""

    def __init__(self, head: Head, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        self._head = head
        self._folder = folder
        self._workspace = folder / "workspace"
        self._random = random.Random(seed)
        self._say = say
        self._run: subprocess.Popen[bytes] | None = None
        self._plans: list[Path] = []
        self._faults = {
            "child": self._kill_child,
            "agent": self._kill_agent,
            "all agents": self._kill_agents,
            "stopped": self._stop_agent,
            "node": self._kill_node,
            "coordinator": self._kill_coordinator,
        }
        self._stopped: dict[int, float] = {}
        """Stopped process -> when it goes on."""
        self.figures = Figures(seed)

    def run(self, minutes: float, every_s: float) -> None:
        """All of it. Raises TrialError where a run fails or hangs."""
        self._head.start("--num-cpus=1")
        for _ in range(NODES - 1):
            self._head.join()
        end_s = monotonic() + 60.0 * minutes
        fault_s = monotonic() + every_s
        try:
            while monotonic() < end_s:
                self._begin_plan()
                fault_s = self._until_complete(fault_s, every_s, end_s)
        finally:
            self._continue_stopped(monotonic() + STOPPED_S)
            if self._run is not None:
                self._run.kill()
                self._run.wait()

    def count(self) -> None:
        """Compare the store with the plans."""
        if not SampleStore.exists(self._workspace / "samples"):
            return
        store = SampleStore.open(self._workspace / "samples", create=False)
        (device,) = {one.name: one for one in store.measured_devices()}.values()
        planned: set[str] = set()
        for path in self._plans:
            planned |= {cell.cell_id for cell in plan_cells(read_plan(path), device).cells}
        statuses = store.columns("cell_id", "status").to_pylist()
        answers = [row["cell_id"] for row in statuses if row["status"] != "contended"]
        self.figures.cells_planned = len(planned)
        self.figures.cells_committed = len(planned & set(answers))
        self.figures.rows = len(answers)

    def _begin_plan(self) -> None:
        number = len(self._plans) + 1
        path = self._folder / f"plan-{number}.toml"
        path.write_text(PLAN.replace("SEED", str(number)))
        self._plans.append(path)
        self._start()

    def _start(self) -> None:
        """The coordinator with the newest plan."""
        command = [sys.executable, "-m", "coordinator", "run", str(self._plans[-1])]
        command += ["--workspace", str(self._workspace), "--address", self._head.address]
        command += ["--no-train"]
        with (self._folder / "run.log").open("ab") as log:
            self._run = subprocess.Popen(
                command, cwd=ROOT, env=self._head.env, stdout=log, stderr=subprocess.STDOUT
            )
        self.figures.starts += 1

    def _until_complete(self, fault_s: float, every_s: float, end_s: float) -> float:
        """Faults until the run has ended with every cell; returns when the next one is due."""
        committed, changed_s = self._committed(), monotonic()
        while not self._has_ended():
            sleep(LOOK_S)
            now_s = monotonic()
            self._continue_stopped(now_s)
            if now_s > fault_s and now_s < end_s:
                self._do_fault()
                fault_s = monotonic() + every_s
            now = self._committed()
            if now > committed:
                pause_s = now_s - changed_s
                self.figures.longest_pause_s = max(self.figures.longest_pause_s, round(pause_s, 1))
                committed, changed_s = now, now_s
            if now_s - changed_s > PROGRESS_LIMIT_S:
                raise TrialError(f"no new cell in {PROGRESS_LIMIT_S:.0f} s; {self._last_lines()}")
        return fault_s

    def _has_ended(self) -> bool:
        assert self._run is not None
        code = self._run.poll()
        if code is None:
            return False
        if code != 0:
            raise TrialError(f"a run ended with {code}: {self._last_lines()}")
        self.figures.runs += 1
        self._say(f"run {self.figures.runs} is complete: {self._committed()} cells in the store")
        return True

    def _do_fault(self) -> None:
        name = self._random.choice(list(self._faults))
        self._say(f"fault: {name}")
        self._faults[name]()
        self.figures.faults[name] = self.figures.faults.get(name, 0) + 1

    def _kill_child(self) -> None:
        self._signal(self._pick("pid"), signal.SIGKILL)

    def _kill_agent(self) -> None:
        self._signal(self._pick("agent_pid"), signal.SIGKILL)

    def _kill_agents(self) -> None:
        for child in children_of(self._workspace).values():
            self._signal(child.agent_pid, signal.SIGKILL)

    def _stop_agent(self) -> None:
        pid = self._pick("agent_pid")
        self._signal(pid, signal.SIGSTOP)
        if pid is not None:
            self._stopped[pid] = monotonic() + STOPPED_S

    def _kill_node(self) -> None:
        # The first is the head's own.
        self._signal(self._random.choice(self._head.raylets()[1:]), signal.SIGKILL)
        self._head.join()

    def _kill_coordinator(self) -> None:
        assert self._run is not None
        self._run.kill()
        self._run.wait()
        self._start()

    def _continue_stopped(self, now_s: float) -> None:
        for pid, until_s in list(self._stopped.items()):
            if now_s >= until_s:
                self._signal(pid, signal.SIGCONT)
                del self._stopped[pid]

    def _pick(self, process: str) -> int | None:
        """A process of a random agent; None while there is none."""
        children = children_of(self._workspace)
        if not children:
            return None
        name = self._random.choice(sorted(children))
        pid: int = getattr(children[name], process)
        return pid

    def _signal(self, pid: int | None, number: signal.Signals) -> None:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _committed(self) -> int:
        if not SampleStore.exists(self._workspace / "samples"):
            return 0
        return len(SampleStore.open(self._workspace / "samples", create=False).committed)

    def _last_lines(self) -> str:
        return last_lines((self._folder / "run.log").read_text(errors="replace"))


def main() -> int:
    """Run the soak, print its figures."""
    options = _options()
    head = Head()
    folder = Path(mkdtemp(prefix="fleet-soak-"))
    start_s = monotonic()

    def say(line: str) -> None:
        """Print a line with its time."""
        print(f"{(monotonic() - start_s) / 60:6.2f} min  {line}", file=sys.stderr, flush=True)

    soak = Soak(head, folder, options.seed, say)
    figures = soak.figures
    try:
        soak.run(options.minutes, options.every)
    except (TrialError, KeyboardInterrupt) as error:
        figures.failure = str(error) or "interrupted"
    finally:
        figures.left_after_stop = head.stop()
    soak.count()
    figures.minutes = round((monotonic() - start_s) / 60, 1)
    if figures.is_good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"kept: {folder}")
    print(json_line({**asdict(figures), "good": figures.is_good}))
    return 0 if figures.is_good else 1


def _options() -> argparse.Namespace:
    parser = Parser(description="Faults at random in runs of a fleet; see the head of this file.")
    parser.add_argument("--minutes", type=float, default=30.0, help="of faults (30)")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults (20)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (1)")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
