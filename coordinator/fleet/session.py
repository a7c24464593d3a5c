"""One run of a plan in a workspace, from lock to last push: what `run` and `demo` do.

Ctrl-C and SIGTERM end it within two seconds: what has arrived is committed, the rest is measured
next time. Does not know how progress is shown: the command line supplies a `Display`.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import pyarrow as pa
import ray
from ray.util import metrics

from agent.devices.local import local_device
from coordinator.fleet.bases import read_bases
from coordinator.fleet.champion import ChampionWatch, TableWatch
from coordinator.fleet.cluster import ClusterLostError, RayFleet
from coordinator.fleet.connection import EMBEDDED, cluster_address, connect
from coordinator.fleet.delivery import Delivered, write_record
from coordinator.fleet.fresh_errors import FreshErrors
from coordinator.fleet.interface import Display, Progress
from coordinator.fleet.live import utc_now
from coordinator.fleet.meters import ExportedMeters
from coordinator.fleet.record import Recorder, RunRecord
from coordinator.fleet.run_watch import RunNote, RunWatch
from coordinator.fleet.scheduler import Scheduler, Stopped
from coordinator.fleet.shipping import check_temporary_directory
from coordinator.fleet.signals import Stop, stopping
from coordinator.fleet.tally import Tally
from coordinator.fleet.trainer import RayTrainer
from coordinator.health.record import HealthRecord
from coordinator.health.screen import screened
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.plan.sizing import measurable
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from gemmcast.card import ModelCard
from gemmcast.cell import Cell
from gemmcast.errors import GemmcastError, WorkspaceError
from gemmcast.modeldir import write_atomically
from gemmcast.program import FAILED, leave
from registry.registry import Registry
from registry.signatures import Signatures
from registry.tables import TableRegistry

PUSH_LIMIT_S = 30.0
"""The run ends after this time even if an agent has not taken the last model: many times what one
takes on a busy host."""
LOOK_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""After a model was published and the registry does not give it; then the watch goes on trying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a run reads and writes, if not in the workspace."""

    store: str | None = None
    """Path or URI of the sample store."""
    registry: str | None = None
    """Directory or URI of the registry."""
    model_dir: Path | None = None
    """The model directory of each node."""
    signing_key: Path | None = None
    """The private key that signs champions; None: that of the environment, if it names one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run came to; the result of `run --json`."""

    cells: int
    """Of all devices that took part; with a budget, as many as it has room for."""
    left_out: int
    """Cells of the plan beyond its budget."""
    done: int
    """Cells that have an answer, from this run or earlier."""
    committed_now: int
    """Rows that were committed in this run, without records that an answer has replaced."""
    statuses: dict[str, int]
    """Status -> rows of this run."""
    agents: int
    training: bool
    """Whether a training was still running."""
    complete: bool
    """Whether nothing was left that it could measure; False: it was stopped."""
    contended_due: int
    """Cells that it left, because others used the devices."""
    second_due: int
    """Cells that wait for a second board of their type."""
    refused: int
    """Rows that agents have sent and that were not taken (docs/security.md)."""
    store_version: int
    model: Delivered
    """How far the champion has come."""
    tables: Delivered
    """How far the tuned tables have come."""

    @property
    def left(self) -> RunRecord:
        """What stays due."""
        return RunRecord(contended_due=self.contended_due, second_due=self.second_due)

    def lines(self) -> list[str]:
        """For people: how much is done, what this run added, what stays due."""
        state = "the rest stays due" if self.contended_due else "all committed"
        if not self.complete:
            state = "stopped; start it again to go on"
        statuses = [f"{count} {status}" for status, count in sorted(self.statuses.items())]
        counts = ", ".join(statuses) or "nothing new"
        line = f"{self.done} of {self.cells} cells: {state}. This run: {counts}."
        if self.left_out:
            line += f" Beyond the budget: {self.left_out} cells of the plan."
        if self.refused:
            line += f" Refused: {self.refused} rows of agents, see the log."
        return [line, *self.left.lines()]

    @property
    def ok(self) -> int:
        """Rows of this run with status ok."""
        return self.statuses.get("ok", 0)

    @property
    def failed(self) -> int:
        """Rows of this run with another status."""
        return sum(self.statuses.values()) - self.ok


class RunSession:
    """A connected cluster, a store and a registry. Use it inside `with session.open()`."""

    def __init__(self, plan: Plan, workspace: Workspace, places: Places, display: Display) -> None:
        self.plan = plan
        self.workspace = workspace
        self.model_dir = places.model_dir or workspace.node
        self._places = places
        self._display = display
        self._registry_uri = places.registry or workspace.registry
        self._signatures = Signatures(places.signing_key)

    @contextmanager
    def open(self, address: str | None = None, *, without_token: bool = False) -> Iterator[Stop]:
        """Lock the workspace, connect to Ray, catch signals.

        Args:
            address: of a Ray cluster; None: that of the environment, or a cluster of our own.
            without_token: use all of its nodes though it asks for no token.

        Raises:
            InputError: a key or a base can't be used, or this machine can't measure the plan.
        """
        self._signatures.load()
        self._bases = read_bases(self.plan.train.base)
        target = cluster_address(address)
        if target == EMBEDDED:
            check_temporary_directory()
            self._refuse_unmeasurable()
        with stopping() as stop, self.workspace.locked(), self._places_open():
            only_here = connect(target, stop.end_at_once, without_token=without_token)
            stop.listen()
            self.fleet = RayFleet(self.plan, self.model_dir, only_here=only_here)
            self._meters = ExportedMeters(metrics.Gauge, metrics.Counter)
            self._read_boards()
            self._fresh = FreshErrors()
            self._opened_at = utc_now()
            self._trained_rows = self._watch_champion()
            try:
                yield stop
            except ClusterLostError:
                # Ray's own exit would look for the head once more, and end in a stack trace.
                atexit.register(leave, FAILED)
                raise
            finally:
                self._champions.close()
                self._tables.close()
                self._leave_cluster(stop)

    def _leave_cluster(self, stop: Stop) -> None:
        """Agents, and a cluster of our own, end with this process.

        After a signal that is quicker than ray.shutdown(), and `ray job stop` waits for 3 s only.
        """
        if self.fleet.is_lost:
            return
        self.fleet.close()
        if not stop():
            ray.shutdown()

    def run(
        self,
        stop: Stopped,
        *,
        cells: Sequence[Cell] | None = None,
        train: bool = True,
        label: str = "measuring",
    ) -> RunSummary:
        """Measure the plan's cells, or the given ones, and train as the plan says."""
        tally = Tally(fresh=self._fresh)
        trainer = self._trainer(tally) if train else None
        scheduler = Scheduler(
            self.plan,
            self.store,
            self.fleet,
            trainer,
            champions=self._champions,
            tables=self._tables,
            cells=cells,
            trained_rows=self._trained_rows,
            tally=tally,
        )
        note = RunNote(self.plan.name, self._opened_at, self.workspace.live)
        watch = RunWatch(note, self.fleet, self._meters, tally, lambda: self._boards)
        with self._display.progress(label) as show_progress:
            recorder = Recorder(self.fleet, self.workspace)

            def show(progress: Progress) -> None:
                """Show how far the run is, and keep it for `status` and the metrics."""
                recorder.note(progress)
                watch.look(progress)
                show_progress(progress)

            with watch.noting_failure(scheduler.progress):
                complete = scheduler.run(stop=stop, show=show)
                if complete:
                    scheduler.train_once_more(stop=stop, show=show)
                    scheduler.deliver(PUSH_LIMIT_S, stop=stop, show=show)
            progress = scheduler.progress
            show(progress)
            recorder.keep(progress)
            watch.end(progress, is_complete=complete)
        left = RunRecord.of(progress, is_at_end=complete)
        write_record(self.workspace.run, left.to_json())
        return RunSummary(
            cells=progress.cells,
            left_out=progress.in_plan - progress.cells,
            done=progress.done,
            committed_now=progress.committed_now,
            statuses=dict(progress.statuses),
            agents=progress.agents,
            training=progress.training,
            complete=complete,
            contended_due=left.contended_due,
            second_due=left.second_due,
            refused=progress.refused,
            store_version=self.store.version,
            model=self.fleet.delivery.state(),
            tables=self.fleet.tables_delivery.state(),
        )

    def _trainer(self, tally: Tally) -> RayTrainer:
        self.registry.check()
        return RayTrainer(
            self.plan.train.settings(),
            self.registry,
            self.workspace.kept,
            self._note_training,
            self._bases,
            self._screened,
            tally.note_training,
        )

    def _refuse_unmeasurable(self) -> None:
        """Raise InputError for a plan that this machine can't measure; nothing is written yet."""
        devices = self.plan.devices
        if devices.kind != "replay":
            measurable(self.plan, local_device(devices.kind))
            return
        different = list(dict.fromkeys(devices.recordings()))
        for recorded in different[:-1]:
            if plan_cells(self.plan, local_device("replay", *recorded)).cells:
                return
        measurable(self.plan, local_device("replay", *different[-1]))

    @contextmanager
    def _places_open(self) -> Iterator[None]:
        """The registry, and the store under its lock; the plan is noted last."""
        self.registry = Registry(self._registry_uri, self._signatures)
        uri = self._places.store or self.workspace.samples
        with SampleStore.writing(uri, self.workspace.path) as self.store:
            self._note_plan()
            yield

    def _note_plan(self) -> None:
        plan = self.plan.model_dump_json(indent=1)
        try:
            write_atomically(self.workspace.plan, plan.encode())
        except OSError as error:
            rule = f"{self.workspace.plan} can't be written ({error.strerror})"
            raise WorkspaceError(f"{rule}: free some space, or name another --workspace") from None

    def _watch_champion(self) -> int:
        """Begin to follow the champion; returns the rows of the newest version trained here."""
        self._champions = ChampionWatch(self.registry, self._display.show_model)
        self._tables = TableWatch(TableRegistry(self._registry_uri, self._signatures))
        self._tables.look_or_warn()
        self._tables.start()
        try:
            self._champions.look()
            return self._rows_of_newest()
        except GemmcastError:
            # Measuring needs no model; the watch says what is wrong, and tries again. Where models
            # are trained, `run` refuses a registry that does not work.
            return 0
        finally:
            self._champions.start()

    def _rows_of_newest(self) -> int:
        if self.registry.champion_number() is None:
            return 0
        bases = {base.sha256 for base in self._bases}
        trained = [one.rows for one in self.registry.list() if one.sha256 not in bases]
        return max(trained, default=0)

    def _note_training(self, card: ModelCard, version: str | None) -> None:
        """Called from the trainer's thread, which may wait for the registry."""
        self._display.show_model(card, version)
        if version is None:
            return
        for pause_s in LOOK_PAUSES_S:
            try:
                self._champions.look()
                return
            except GemmcastError:
                # The trainer is busy until then: a run that ends now would not push it.
                sleep(pause_s)

    def _screened(self, table: pa.Table) -> pa.Table:
        """The samples to train on: of boards while they were well. From the trainer's thread."""
        healthy = screened(table, self.workspace)
        self._read_boards()
        return healthy

    def _read_boards(self) -> None:
        """Which boards are not well, for the metrics."""
        try:
            self._boards = HealthRecord.read(self.workspace.health).labels()
        except GemmcastError:
            # The next training refuses the record, and says so.
            self._boards = []
