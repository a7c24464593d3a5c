"""A `Fleet` of replayed agents that live in other processes: what Ray does, a pipe does here.

Batches come as bytes and are unpacked here, as they are behind Ray; cells are pickled here. So what
the coordinator's process spends is all of its work but Ray's own part.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import sleep

from benchmarks.fleet.host import serve
from benchmarks.fleet.messages import Batch, Done, Host, Lease, Model, Pace, Pipe, Take, Taken
from coordinator.fleet.delivery import Delivery
from coordinator.fleet.interface import Ended, Event, Ready, Samples
from coordinator.fleet.pacing import Gathering
from gemmcast.arrow import from_bytes
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import ShippedModel
from gemmcast.tabledir import Shipped

MOST_EVENTS = 2_000
"""Of one poll."""


class ReplayedFleet:
    """See the head of this file.

    Args:
        agents: name -> its device.
        recording: what their rows hold.
        folder: for the model directories of the nodes.
        processes: that the agents are divided among.
    """

    def __init__(
        self,
        agents: Mapping[str, Device],
        recording: Path,
        pace: Pace,
        folder: Path,
        processes: int = 1,
    ) -> None:
        self.folder = folder
        self.delivery = Delivery()
        self.tables_delivery = Delivery(what="table set")
        self.offered_rows = 0
        """Rows that have come, new or not."""
        self._ready = {name: _ready(name, device) for name, device in agents.items()}
        self._joining: list[Event] = list(self._ready.values())
        self._pipes: dict[str, Pipe] = {}
        self._newest = Model(b"", "")
        self._gathering = Gathering()
        self._outgoing: SimpleQueue[tuple[Pipe, bytes] | None] = SimpleQueue()
        self._sender = Thread(target=self._send_all, daemon=True)
        self._sender.start()
        names = list(agents)
        for number in range(processes):
            part = {name: agents[name] for name in names[number::processes]}
            host = Host(
                agents=part,
                recording=recording,
                pace=pace,
                node_dirs=folder,
            )
            pipe = _start(host)
            self._pipes |= dict.fromkeys(part, pipe)

    def ready_agents(self) -> list[Ready]:
        """All agents."""
        return list(self._ready.values())

    def starting(self) -> int:
        """None."""
        return 0

    def faults(self) -> dict[str, str]:
        """None."""
        return {}

    def poll(self, timeout_s: float) -> list[Event]:
        """What has come; see `Fleet`."""
        events, self._joining = self._joining, []
        for event in events:
            assert isinstance(event, Ready)
            self.delivery.join(event.agent, event.agent.partition("/")[0])
        self._deliver()
        pipes = set(self._pipes.values())
        if not events and wait(pipes, timeout_s):
            sleep(self._gathering.left_s)
        while len(events) < MOST_EVENTS and (full := wait(pipes, 0)):
            for pipe in full:
                assert isinstance(pipe, Pipe)
                events += self._events(pipe.recv())
        if events:
            self._gathering.polled()
        return events

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        """Send cells to an agent."""
        self._send(self._pipes[agent], Lease(agent, lease, list(cells)))

    def push(self, model: ShippedModel, version: str) -> None:
        """Send a model to every agent."""
        self._newest = Model(model.data, version)
        for pipe in set(self._pipes.values()):
            self._send(pipe, self._newest)
        self.delivery.want(version)

    def push_tables(self, tables: Sequence[Shipped], version: str) -> None:
        """There are none."""

    def rest(self, *, now: bool) -> None:
        """The plan has no hours."""

    def close(self) -> None:
        """The processes of the agents end with their pipes."""
        self._outgoing.put(None)
        self._sender.join()
        for pipe in set(self._pipes.values()):
            pipe.close()

    def _send(self, pipe: Pipe, message: object) -> None:
        """Never waits: pickled here, written by a thread, as Ray does it."""
        self._outgoing.put((pipe, pickle.dumps(message)))

    def _send_all(self) -> None:
        while (message := self._outgoing.get()) is not None:
            pipe, data = message
            pipe.send_bytes(data)

    def _deliver(self) -> None:
        for name in self.delivery.due():
            self._send(self._pipes[name], Take(name, self._newest.version))
            self.delivery.sent(name)

    def _events(self, messages: Sequence[Batch | Done | Taken]) -> list[Event]:
        events: list[Event] = []
        for message in messages:
            if isinstance(message, Batch):
                table = from_bytes(message.data)
                self.offered_rows += len(table)
                events.append(Samples(agent=message.agent, lease=message.lease, table=table))
            elif isinstance(message, Done):
                events.append(Ended(agent=message.agent, lease=message.lease))
            else:
                self.delivery.answered(message.agent, message.version)
        return events


def _ready(name: str, device: Device) -> Ready:
    return Ready(agent=name, device=device, host=name.partition("/")[0], local=False)


def _start(host: Host) -> Pipe:
    """A process of agents, and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=serve, args=(host, theirs), daemon=True).start()
    theirs.close()
    return ours
