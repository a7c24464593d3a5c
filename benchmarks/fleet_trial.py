"""A trial of the whole fleet on one host: real processes, started by hand, killed in mid-run.

    python benchmarks/fleet_trial.py [--seconds 90] [--workspace FOLDER]

Takes 2 to 4 minutes on a host that has nothing else to do, with GPUs or without: an agent for each
GPU, else one for the CPU. Needs this environment alone: no `ray` on the PATH, no virtual
environment. In order:

    1. a Ray head with a token; a plan through `ray job submit`
    2. a measuring child is killed (-9), then an agent (of another GPU where there are two)
    3. the coordinator is killed, and the same plan submitted again
    4. a model that the run has trained arrives on every agent, and a second one
    5. `registry rollback`: the first one arrives again, while the sweep goes on
    6. the sweep ends; its store, its receipts and its processes are counted

Printed is one JSON object. Whatever does not happen in time, or a signal, ends the trial with exit
code 1; `failure` says what, and the figures until then are printed all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow.compute as pc

from agent.devices.visible import visible_gpus
from benchmarks.trial.figures import Figures
from benchmarks.trial.head import (
    Child,
    Head,
    TrialError,
    arguments_of,
    children_of,
    last_lines,
    process_ids,
    wait_until,
    words_of,
)
from benchmarks.trial.plans import plan_text
from coordinator.fleet.delivery import Receipt, read_receipts
from coordinator.samples.answers import CONTENDED
from coordinator.samples.store import SampleStore
from gemmcast.cli_parser import Parser
from gemmcast.errors import GemmcastError
from gemmcast.program import json_line, run_script
from registry.registry import Registry
from registry.versions import CHALLENGER, CHAMPION

START_LIMIT_S = 180.0
"""A coordinator and its agents start in 15 s, on a GPU that is new to them in a minute; several
times that on a busy host."""
STEP_LIMIT_S = 120.0
"""Until an agent measures again, or a model has arrived."""
GRACE_S = 20.0
"""After the run its agents and children may take so long to end."""


class Trial:
    """The steps, in the order of the head of this file."""

    def __init__(self, head: Head, workspace: Path, seconds: float, say: Callable[[str], None]):
        self._head = head
        self._workspace = workspace
        self._say = say
        self._jobs = 0
        gpus = len(visible_gpus())
        self.figures = Figures(gpus=gpus)
        self._plan = workspace.with_name(f"{workspace.name}-plan.toml")
        self._plan.write_text(plan_text(gpus, seconds))
        self._registry = Registry(workspace / "registry")

    def run(self) -> None:
        """All steps. Raises TrialError where one does not happen in time."""
        self._say("starting the head")
        self._head.start()
        start_s = monotonic()
        self._submit()
        self._until("every agent has committed rows", self._have_all_measured, START_LIMIT_S)
        self.figures.start_s = round(monotonic() - start_s, 2)
        self.figures.agents = sorted(self._rows())
        first, last = self.figures.agents[0], self.figures.agents[-1]
        self._kill("child", first, lambda child: child.pid)
        self._kill("agent", last, lambda child: child.agent_pid)
        self._kill_coordinator()
        self._see_model(1)
        self._see_model(2)
        self._roll_back()
        self._finish()

    def _submit(self) -> None:
        self._jobs += 1
        command = [sys.executable, "-m", "coordinator", "run", str(self._plan)]
        words = [*command, "--workspace", str(self._workspace), "--json"]
        self._say(f"submitting job {self._jobs}")
        self._head.submit(self._job, words)

    @property
    def _job(self) -> str:
        return f"trial-{self._jobs}"

    def _kill(self, what: str, agent: str, pid_of: Callable[[Child], int]) -> None:
        """Kill a process of an agent, and wait until that agent measures again."""
        before = self._children()[agent]
        self._say(f"killing the {what} of {agent}")
        start_s = monotonic()
        os.kill(pid_of(before), signal.SIGKILL)
        self._until(f"{agent} has another child", lambda: self._has_another_child(before))
        rows = self._rows()[agent]
        self._until(f"{agent} measures again", lambda: self._rows()[agent] > rows)
        self.figures.recovery_s[what] = round(monotonic() - start_s, 2)

    def _has_another_child(self, before: Child) -> bool:
        now = self._children().get(before.agent)
        return now is not None and now.pid != before.pid

    def _kill_coordinator(self) -> None:
        (coordinator,) = self._coordinators()
        self._say("killing the coordinator")
        start_s = monotonic()
        os.kill(coordinator, signal.SIGKILL)
        self._until("the coordinator has ended", lambda: not self._coordinators())
        rows = self._rows().total()
        self._submit()
        self._until("the second job measures", lambda: self._rows().total() > rows, START_LIMIT_S)
        self.figures.recovery_s["coordinator"] = round(monotonic() - start_s, 2)

    def _see_model(self, number: int) -> None:
        """Wait for a version, make it champion if the gate did not, and wait for its arrival."""
        self._say(f"waiting for model {number}")
        version = str(number)
        self._until(f"version {version} is registered", lambda: self._status(version) is not None)
        start_s = monotonic()
        if self._status(version) == CHALLENGER:
            self._registry.promote(version)
        self._until(f"every agent has model {version}", lambda: self._has_arrived(version))
        self.figures.push_s[version] = round(monotonic() - start_s, 2)

    def _status(self, version: str) -> str | None:
        """`champion` or `challenger`; None while there is no such version, or it is neither yet."""
        if self._registry.champion_number() is None and not self._registry_has_versions():
            return None
        statuses = {one.number: one.status for one in self._registry.list()}
        status = statuses.get(version)
        return status if status in (CHAMPION, CHALLENGER) else None

    def _registry_has_versions(self) -> bool:
        try:
            return bool(self._registry.list())
        except GemmcastError:
            return False

    def _roll_back(self) -> None:
        self._say("rolling back")
        before = self._registry.champion_number()
        command = [sys.executable, "-m", "registry", "rollback"]
        command += ["--workspace", str(self._workspace)]
        with subprocess.Popen(
            command, cwd=Path(__file__).resolve().parent.parent, stdout=subprocess.DEVNULL
        ):
            self._until("it is", lambda: self._registry.champion_number() != before)
            start_s = monotonic()
            version = str(self._registry.champion_number())
            self._until(f"every agent has model {version}", lambda: self._has_arrived(version))
            self.figures.rollback_s = round(monotonic() - start_s, 2)
        self.figures.rolled_back_to = version
        self.figures.committed_at_rollback = self._rows().total()

    def _finish(self) -> None:
        self._say("waiting for the last cell")
        limit_s = 2 * START_LIMIT_S
        self._until("the run has ended", lambda: not self._coordinators(), limit_s)
        wait_until(lambda: not self._left(), GRACE_S)
        self.figures.left_after_run = self._left()
        self._until("the job has ended", lambda: self._head.status(self._job) != "RUNNING")
        self.figures.job = self._head.status(self._job)
        log = self._head.log(self._job)
        results = [line for line in log.splitlines() if line.startswith("{")]
        if not results:
            raise TrialError(f"the run has no result: {last_lines(log)}")
        self.figures.cells_planned = json.loads(results[-1])["cells"]

    def count(self) -> None:
        """Note what is in the store and in the receipts, however far the trial has come."""
        self.figures.models = {one.agent: one.version for one in self._receipts()}
        if not SampleStore.exists(self._workspace / "samples"):
            return
        table = SampleStore.open(self._workspace / "samples", create=False).read()
        answers = table.filter(pc.not_equal(table["status"], CONTENDED))
        self.figures.answers = len(answers)
        self.figures.cells_committed = len(set(answers["cell_id"].to_pylist()))
        self.figures.rows_by_status = dict(Counter(table["status"].to_pylist()))
        self.figures.devices = sorted(set(table["device"].to_pylist()))

    def _until(self, what: str, is_so: Callable[[], bool], limit_s: float = STEP_LIMIT_S) -> None:
        if not wait_until(is_so, limit_s):
            said = last_lines(self._head.log(self._job))
            raise TrialError(f"not in {limit_s:.0f} s: {what}; the job says: {said}")

    def _have_all_measured(self) -> bool:
        return len(self._rows()) >= max(1, self.figures.gpus)

    def _rows(self) -> Counter[str]:
        """Agent -> committed rows."""
        if not SampleStore.exists(self._workspace / "samples"):
            return Counter()
        store = SampleStore.open(self._workspace / "samples", create=False)
        return Counter(store.columns("agent")["agent"].to_pylist())

    def _receipts(self) -> list[Receipt]:
        return read_receipts(self._workspace / "nodes.json")

    def _has_arrived(self, version: str) -> bool:
        receipts = self._receipts()
        is_everywhere = all(receipt.version == version for receipt in receipts)
        return is_everywhere and len(receipts) >= max(1, self.figures.gpus)

    def _children(self) -> dict[str, Child]:
        return children_of(self._workspace)

    def _coordinators(self) -> list[int]:
        return [pid for pid in process_ids() if self._is_coordinator(arguments_of(pid))]

    def _is_coordinator(self, words: Sequence[str]) -> bool:
        is_run = list(words[1:4]) == ["-m", "coordinator", "run"]
        return is_run and str(self._workspace) in words

    def _left(self) -> list[str]:
        """Agents, children and coordinators of this trial."""
        own = [child.pid for child in self._children().values()] + self._coordinators()
        agents = [pid for pid in self._head.pids() if "ray::Agent" in words_of(pid)]
        return [words_of(pid) for pid in (*own, *agents)]


def main() -> int:
    """Run the trial, print its figures."""
    options = _options()
    head = Head()
    start_s = monotonic()

    def say(step: str) -> None:
        """Print a step with its time."""
        print(f"{monotonic() - start_s:6.1f} s  {step}", file=sys.stderr, flush=True)

    with _workspace(options.workspace) as workspace:
        trial = Trial(head, workspace, options.seconds, say)
        figures = trial.figures
        try:
            trial.run()
        except (TrialError, KeyboardInterrupt) as error:
            figures.failure = str(error) or "interrupted"
        finally:
            figures.left_after_stop = head.stop()
        trial.count()
    figures.seconds = round(monotonic() - start_s, 1)
    print(json_line({**asdict(figures), "good": figures.is_good}))
    return 0 if figures.is_good else 1


def _options() -> argparse.Namespace:
    parser = Parser(
        description="Kill everything once in a run of a fleet; see the head of this file."
    )
    parser.add_argument("--seconds", type=float, default=90.0, help="of measuring, about (90)")
    help_text = "an empty folder that is kept; without it a temporary one"
    parser.add_argument("--workspace", type=Path, help=help_text)
    return parser.parse_args()


@contextlib.contextmanager
def _workspace(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve() / "workspace"
        return
    directory = Path(mkdtemp(prefix="fleet-trial-"))
    try:
        yield directory / "workspace"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    run_script(main)
