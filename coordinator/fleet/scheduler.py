"""The scheduler: lease cells to agents, commit what comes back, train when it is due, push the
champion.

It has no state that the store lacks: a cell is done when its answer is committed, so the process
may be killed at any moment and started again. One thread; training and publishing happen elsewhere
(coordinator/fleet/trainer.py). A CPU that trains cannot measure: agents of this host's CPU get no
cells while a training waits or runs. Knows nothing of Ray, nor of the terminal.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic

from coordinator.fleet.admission import Admission
from coordinator.fleet.commits import CommitQueue
from coordinator.fleet.due import Due
from coordinator.fleet.events import agent_event
from coordinator.fleet.hope import NO_AGENT_S, Hope
from coordinator.fleet.interface import (
    NO_LEASE,
    Champions,
    Ended,
    Event,
    Fleet,
    Left,
    Progress,
    Ready,
    Samples,
    Show,
    TableChampions,
    Trainer,
    show_nothing,
)
from coordinator.fleet.leases import Leases
from coordinator.fleet.lost_cell import LostCell
from coordinator.fleet.opening import Opening, utc_now
from coordinator.fleet.rounds import HeldBack
from coordinator.fleet.sharing import MOST_PATIENCE_S
from coordinator.fleet.tally import Tally
from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import Plan
from coordinator.plan.sizing import refuse_empty
from coordinator.samples.answers import OK, Statuses
from coordinator.samples.store import SampleStore
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError

log = logging.getLogger(__name__)

POLL_S = 0.2
MAX_FAILED_STARTS = 3
"""Of an agent, where no other one has started."""

Stopped = Callable[[], bool]


class Scheduler:
    """One run of a plan over a store.

    Args:
        trainer: None: no training.
        champions: None: no model is pushed.
        tables: None: no tuned table is pushed.
        cells: measured in place of the plan's own cells.
        trained_rows: rows with status ok that the newest model version was made from.
        tally: counts what the run does, for those who watch it.
        now_s: a clock that only grows.
        today: the time of day, in whatever time zone; the plan's hours are read on it.
    """

    def __init__(
        self,
        plan: Plan,
        store: SampleStore,
        fleet: Fleet,
        trainer: Trainer | None,
        *,
        champions: Champions | None = None,
        tables: TableChampions | None = None,
        cells: Sequence[Cell] | None = None,
        trained_rows: int = 0,
        tally: Tally | None = None,
        now_s: Callable[[], float] = monotonic,
        today: Callable[[], datetime] = utc_now,
    ) -> None:
        self._plan = plan
        self._store = store
        self._fleet = fleet
        self._trainer = trainer
        self._champions = champions
        self._tables = tables
        self._given_cells = cells
        self._trained_rows = trained_rows
        self._now_s = now_s
        self._tally = tally or Tally(now_s)
        self._failed_starts = Counter[str]()
        self._refused: dict[str, int] = {}
        limit_s = MOST_PATIENCE_S if plan.politeness.only_idle else NO_AGENT_S
        self._hope = Hope(limit_s, now_s)
        self._commits = CommitQueue(store, now_s)
        self._admission = Admission(self._commits.is_answered, plan.devices.kind)
        self._leases = Leases(now_s, Due(self._commits), plan.measure.timeout_s)
        self._held_back = HeldBack(plan, self._leases)
        hours = plan.politeness.opening_hours()
        self._opening = Opening(hours, fleet, self._leases, today)
        # Those of this run.
        self._statuses = Statuses()
        self._trained_at = 0
        self.progress = Progress()

    def run(self, *, stop: Stopped, show: Show = show_nothing) -> bool:
        """Measure until `stop()`, or until nothing is left that these agents can measure.

        Cells that others leave no device for stay due, and so do those that wait for a second board
        where there is none.

        Returns:
            False: it was stopped.

        Raises:
            GemmcastError: for NO_AGENT_S no agent was likely to measure what is left.
            StoreLostError: the store has not worked for too long.
            InputError: the plan has no cell for any device that joined.
        """
        self._take(self._fleet.ready_agents())
        try:
            while not stop():
                self._take(self._fleet.poll(POLL_S))
                self._leases.note_answering([one.agent for one in self._fleet.ready_agents()])
                self._commit_lost_cells()
                self._push_champion()
                self._begin_rounds()
                self.progress.closed = self._opening.look()
                if self._training_is_due():
                    self._start_training()
                self.progress.waiting = self._leases.waiting()
                self.progress.faults = {**self._leases.faults(), **self._fleet.faults()}
                self.progress.faults |= self._admission.faults()
                self._look()
                show(self.progress)
                if self._is_over():
                    return True
                self._hand_out()
            return False
        finally:
            self._commit()
            if not self._commits.is_empty:
                log.warning("%d rows are lost: measured again by the next run", self._commits.rows)

    def train_once_more(self, *, stop: Stopped, show: Show = show_nothing) -> None:
        """After the last cell: wait for a training that is running, then train on all rows."""
        if self._trainer is None or not self._plan.train.at_end:
            return
        is_started = False
        while not stop():
            if self._commits.is_held_back and self._commits.is_due():
                self._commit()
            # In this order: what a training made is there as soon as it is not busy.
            is_busy = self._is_training()
            self._push_champion()
            if not is_busy and not self._commits.is_held_back:
                if is_started:
                    return
                is_started = self._start_training()
                if not is_started and not self._commits.is_held_back:
                    return
            self._look()
            show(self.progress)
            self._fleet.poll(POLL_S)

    def deliver(self, limit_s: float, *, stop: Stopped, show: Show = show_nothing) -> None:
        """At the end: wait until every agent has taken the champions, at most so long."""
        until_s = self._now_s() + limit_s
        while not stop():
            self._push_champion()
            if self._is_delivered() or self._now_s() > until_s:
                return
            self._look()
            show(self.progress)
            self._fleet.poll(POLL_S)

    def _is_delivered(self) -> bool:
        deliveries = (self._fleet.delivery, self._fleet.tables_delivery)
        return all(delivery.is_complete() for delivery in deliveries)

    def _is_over(self) -> bool:
        """Whether nothing is left to measure.

        Raises:
            GemmcastError: something is left, and no agent is likely to measure it.
        """
        if self.progress.closed:
            self._hope.renew()
            return self._is_all_answered()
        if self._fleet.starting():
            self._hope.renew()
            return False
        is_finished = self._leases.has_queues() and self._leases.is_finished()
        if is_finished and self._commits.is_empty:
            if not self.progress.in_plan and self._given_cells is None:
                refuse_empty(self._plan, "the fleet", self._refused)
            return True
        self._check_hope()
        return False

    def _is_all_answered(self) -> bool:
        """Whether no agent need come back for anything but second boards."""
        is_done = self.progress.done >= self.progress.cells and self._commits.is_empty
        return is_done and self._leases.has_queues() and not self._leases.is_any_leased()

    def _check_hope(self) -> None:
        """Raise GemmcastError where no agent was of use for too long."""
        is_hopeless = not self._leases.has_queues() or self._leases.is_hopeless()
        if is_hopeless and not self._commits.is_held_back:
            self._hope.check(self.progress.faults)
        else:
            self._hope.renew()

    def _take(self, events: Sequence[Event]) -> None:
        self._take_samples([event for event in events if isinstance(event, Samples)])
        for event in events:
            if isinstance(event, Ready) and self._admission.join(event):
                self._join(event)
            elif isinstance(event, Ended):
                self._end(event)
            elif isinstance(event, Left):
                self._leases.leave(event.agent)
                self._admission.leave(event.agent)
                self.progress.agents = len(self._leases.agents)
        # Nothing else will come: the last commit need not wait for its time.
        is_last = self._leases.is_finished() and not self._commits.is_held_back
        if is_last or self._commits.is_due():
            self._commit()

    def _look(self) -> None:
        commits = self._commits
        self._tally.look(self._leases.agents, commits.waiting_s(), commits.failures)

    def _take_samples(self, sent: Sequence[Samples]) -> None:
        for agent, rows in self._admission.admit_all(sent):
            self._commits.add(rows)
            self._leases.note_rows(agent, rows)
        self.progress.refused = self._admission.refused
        for lost in self._admission.lost_cells():
            self._give_up(lost)

    def _give_up(self, lost: LostCell) -> None:
        """The answer of a cell that nobody can measure."""
        self._commits.add(lost.row())
        self._leases.note_answer(lost.cell)

    def _commit(self) -> None:
        committed = self._commits.commit()
        if committed is None:
            return
        self._tally.note_commit(committed.rows, committed.waited_s)
        self._statuses.add(committed.rows)
        self.progress.statuses = +self._statuses.counts
        self.progress.committed_now = self.progress.statuses.total()
        self.progress.done += committed.cells
        self.progress.second_due = self._leases.second_due()

    def _join(self, ready: Ready) -> None:
        device = ready.device
        device_key = self._plan.devices.key_of(device)
        if not self._leases.has_queue(device_key):
            cells = self._cells_of(device, device_key)
            todo = [cell for cell in cells if cell.cell_id not in self._store.committed]
            self.progress.in_plan += len(cells)
            self.progress.done += len(cells) - len(todo)
            has_budget = self._plan.measure.budget_of(device) is not None
            if has_budget and self._given_cells is None:
                self._held_back.add(device_key, device, cells, self._store.committed)
                todo = []
            drawn = [cell for cell in cells if self._plan.devices.has_second_board(cell)]
            self._commits.take_each_board(cell.cell_id for cell in drawn)
            self._leases.add_queue(device_key, todo, drawn)
            self._note_budget()
            self.progress.second_due = self._leases.second_due()
        self._leases.join(ready)
        self._tally.join(ready.agent, device.name)
        if self._trainer is not None:
            self._trainer.join(device)
        self.progress.agents = len(self._leases.agents)
        fields = agent_event("agent_joined", ready.agent)
        text = "agent %s measures %s (%s)"
        log.info(text, ready.agent, device.name, device.uuid, extra=fields)

    def _begin_rounds(self) -> None:
        self._held_back.begin_rounds()
        self._note_budget()

    def _note_budget(self) -> None:
        self.progress.cells = self.progress.in_plan - self._held_back.left_out()
        self.progress.budget = self._held_back.text()

    def _cells_of(self, device: Device, device_key: str) -> list[Cell]:
        if self._given_cells is None:
            planned = plan_cells(self._plan, device)
            self._refused |= planned.refused
            return planned.cells
        return [cell for cell in self._given_cells if cell.device_key == device_key]

    def _end(self, ended: Ended) -> None:
        if ended.agent not in self._leases.agents:
            self._count_failed_start(ended)
            return
        if ended.lease == NO_LEASE:
            return
        self._leases.end(self._admission.end(ended))

    def _commit_lost_cells(self) -> None:
        for lost in self._leases.lost_cells():
            self._give_up(lost)

    def _count_failed_start(self, ended: Ended) -> None:
        self._failed_starts[ended.agent] += 1
        is_last = self._failed_starts[ended.agent] >= MAX_FAILED_STARTS
        others = self._fleet.starting() or self._fleet.ready_agents()
        if is_last and not others and not self._leases.has_queues():
            raise GemmcastError(f"agent {ended.agent} can't start: {ended.error}")

    def _hand_out(self) -> None:
        if self._commits.is_held_back or self.progress.closed:
            return
        cpu_is_taken = self._training_is_due() or self._is_training()
        answering = {ready.agent for ready in self._fleet.ready_agents()}
        for name, agent in self._leases.agents.items():
            if name not in answering or (cpu_is_taken and agent.shares_our_cpu):
                continue
            while lease := self._leases.next_lease(name):
                number, cells = lease
                self._admission.expect(name, cells)
                self._fleet.lease(name, number, cells)

    def _is_training(self) -> bool:
        return self._trainer is not None and self._trainer.busy

    def _training_is_due(self) -> bool:
        settings = self._plan.train
        ok_rows = self.progress.statuses["ok"]
        is_enough = ok_rows >= settings.min_rows
        return (
            self._trainer is not None and is_enough and ok_rows - self._trained_at >= settings.every
        )

    def _start_training(self) -> bool:
        """Begin a training, if the trainer and this CPU are free and there are new rows."""
        if self._trainer is None or self._trainer.busy:
            return False
        agents = self._leases.agents.values()
        if any(agent.leases for agent in agents if agent.shares_our_cpu):
            return False
        ok_rows = self._store.counts().get(OK, 0)
        self._trained_at = self.progress.statuses["ok"]
        if ok_rows < self._plan.train.min_rows or ok_rows == self._trained_rows:
            return False
        self._trained_rows = ok_rows
        self._trainer.start(self._store.snapshot())
        return True

    def _push_champion(self) -> None:
        self.progress.training = self._is_training()
        tables = self._tables.newest() if self._tables else None
        if tables is not None:
            self._fleet.push_tables(*tables)
        newest = self._champions.newest() if self._champions else None
        if newest is not None:
            model, version = newest
            self._fleet.push(model, version)
            self._tally.note_model(model.data, version)
            self._held_back.note_model(model.data, version)
