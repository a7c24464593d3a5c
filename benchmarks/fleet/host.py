"""Replayed agents by the hundred in one process: they answer leases with rows, and take models.

Each has `pace.rows_per_s` cells measured a second, and sends them in batches like an agent on a
node. What it costs to be many agents is thus not the coordinator's. Models are taken as nodes take
them (gemmcast/modeldir.py), by a thread, agent after agent.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, Queue, SimpleQueue
from time import monotonic
from typing import TypeVar

from benchmarks.fleet.messages import Batch, Done, Host, Lease, Model, Pipe, Take, Taken
from benchmarks.fleet.recording import Recording
from gemmcast import modeldir
from gemmcast.cell import Cell
from gemmcast.device import Device

TICK_S = 0.02
"""Batches that are due within this time are sent together."""
PASSING = 64
"""Batches of one message at most."""
MESSAGES = 8
"""That wait for the other end at most; then the agents wait, too."""

Sent = Batch | Done | Taken
T = TypeVar("T")


class ReplayedAgent:
    """One agent: its leases, and the moment of its next batch."""

    def __init__(self, name: str, device: Device, phase: float) -> None:
        self.name = name
        self.device = device
        self.next_s = 0.0
        self.is_busy = False
        self._phase = phase
        self._leases: deque[tuple[int, deque[Cell]]] = deque()

    def take(self, lease: Lease, batch_s: float) -> None:
        """Cells to measure, after those that it has."""
        self._leases.append((lease.number, deque(lease.cells)))
        if not self.is_busy:
            # Not all agents send at the same moment.
            late_s = batch_s * self._phase
            self._phase = 0.0
            self.next_s = monotonic() + batch_s + late_s

    def measured(self, rows: int) -> tuple[int, list[Cell], bool]:
        """The lease that runs, up to so many of its cells, and whether it ends with them."""
        number, cells = self._leases[0]
        taken = [cells.popleft() for _ in range(min(rows, len(cells)))]
        is_over = not cells
        if is_over:
            self._leases.popleft()
        return number, taken, is_over

    @property
    def has_cells(self) -> bool:
        """Whether it has something to measure."""
        return bool(self._leases)


class AgentHost:
    """All agents of a process."""

    def __init__(self, host: Host, pipe: Pipe) -> None:
        self._host = host
        self._pace = host.pace
        self._batch_s = host.pace.batch_rows / host.pace.rows_per_s
        self._pipe = pipe
        self._recording = Recording(host.recording)
        self._sample_ids = map("{:032x}".format, itertools.count())
        count = len(host.agents)
        self._agents = {
            name: ReplayedAgent(name, device, place / count)
            for place, (name, device) in enumerate(host.agents.items())
        }
        self._due: list[tuple[float, str]] = []
        self._leases: SimpleQueue[Lease] = SimpleQueue()
        self._takes: SimpleQueue[Model | Take] = SimpleQueue()
        self._taken: SimpleQueue[Taken] = SimpleQueue()
        self._outgoing: Queue[list[Sent]] = Queue(MESSAGES)
        self._is_over = threading.Event()

    def run(self) -> None:
        """Answer until the other end is closed."""
        for work in (self._listen, self._send_all, self._take_models):
            threading.Thread(target=work, daemon=True).start()
        while not self._is_over.is_set():
            self._accept()
            sent: list[Sent] = self._batches()
            taken: list[Taken] = _all_of(self._taken)
            sent.extend(taken)
            if sent:
                self._outgoing.put(sent)
            self._is_over.wait(self._pause_s())

    def _pause_s(self) -> float:
        if not self._due:
            return TICK_S
        return min(max(0.0, self._due[0][0] - monotonic()), TICK_S)

    def _listen(self) -> None:
        try:
            while True:
                message = self._pipe.recv()
                queue = self._leases if isinstance(message, Lease) else self._takes
                queue.put(message)
        except (EOFError, OSError):
            self._is_over.set()

    def _send_all(self) -> None:
        with suppress(OSError):
            while True:
                self._pipe.send(self._outgoing.get())
        self._is_over.set()

    def _accept(self) -> None:
        for lease in _all_of(self._leases):
            agent = self._agents[lease.agent]
            agent.take(lease, self._batch_s)
            if not agent.is_busy:
                agent.is_busy = True
                heapq.heappush(self._due, (agent.next_s, agent.name))

    def _batches(self) -> list[Sent]:
        """What is due now."""
        until_s = monotonic() + TICK_S / 2
        sent: list[Sent] = []
        while self._due and self._due[0][0] <= until_s and len(sent) < PASSING:
            _, name = heapq.heappop(self._due)
            agent = self._agents[name]
            sent += self._next_of(agent)
            agent.is_busy = agent.has_cells
            if agent.is_busy:
                heapq.heappush(self._due, (agent.next_s, name))
        return sent

    def _next_of(self, agent: ReplayedAgent) -> list[Sent]:
        number, cells, is_over = agent.measured(self._pace.batch_rows)
        agent.next_s += len(cells) / self._pace.rows_per_s
        batch = Batch(agent.name, number, self._rows(agent, cells))
        return [batch, Done(agent.name, number)] if is_over else [batch]

    def _rows(self, agent: ReplayedAgent, cells: list[Cell]) -> bytes:
        return self._recording.batch(cells, agent.name, agent.device, self._sample_ids, self._pace)

    def _take_models(self) -> None:
        model = Model(b"", "")
        while True:
            message = self._takes.get()
            if isinstance(message, Model):
                model = message
                continue
            version = self._take(message.agent, model)
            self._taken.put(Taken(message.agent, version))

    def _take(self, agent: str, model: Model) -> str:
        """See agent/actor.py."""
        directory = self._host.node_dirs / agent.partition("/")[0]
        modeldir.put_model(directory, model.data, model.version)
        current = modeldir.read_current(directory)
        modeldir.read_model(directory, current)
        return current.version


def serve(host: Host, pipe: Pipe) -> None:
    """The program of such a process."""
    AgentHost(host, pipe).run()


def _all_of(queue: SimpleQueue[T]) -> list[T]:
    found = []
    try:
        while True:
            found.append(queue.get_nowait())
    except Empty:
        return found
