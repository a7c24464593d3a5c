"""What the parts of a run have in common: events, the fleet, the trainer, the display.

A scheduler sees the cluster only as a `Fleet`, training only as a `Trainer`, the registry only as
`Champions`, the terminal only as a `Display`. Tests replace each by a fake;
tests/coordinator/test_coordinator_fleet.py runs the contracts of fleet and trainer over Ray and
over the fakes. Knows nothing of Ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from coordinator.fleet.delivery import Delivery
from coordinator.samples.snapshot import Snapshot
from gemmcast.card import ModelCard
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.modeldir import ShippedModel
from gemmcast.tabledir import Shipped

NO_LEASE = -1
"""Lease of an event `Ended` that reports an agent which cannot start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """An agent has started."""

    agent: str
    device: Device
    host: str
    local: bool
    """Whether the agent runs on the host of the coordinator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One batch of a lease."""

    agent: str
    lease: int
    table: pa.Table
    """Samples with the columns of gemmcast.arrow.SCHEMA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A lease is over: all its samples have come, or its agent died."""

    agent: str
    lease: int
    """NO_LEASE: the agent cannot start, and `error` says why."""
    error: str | None = None
    """None: all samples have come."""
    is_cells_doing: bool = True
    """With an error: whether the cell that was being measured may be the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """An agent is gone for good, with its node; all of its leases have ended."""

    agent: str


Event = Ready | Samples | Ended | Left


@dataclass(slots=True)
class Progress:
    """The state of a run, for display."""

    cells: int = 0
    """Of all devices that have joined; with a budget, as many as it has room for."""
    in_plan: int = 0
    """The same without a budget."""
    budget: str = ""
    """What is spent of it, for people; of each type of device. Empty without one."""
    done: int = 0
    """Cells that have an answer, from this run or earlier."""
    committed_now: int = 0
    """Rows that were committed in this run, without records that an answer has replaced."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Status -> rows of this run."""
    agents: int = 0
    training: bool = False
    """Whether a training is running."""
    waiting: dict[str, str] = field(default_factory=dict)
    """Agent that waits for other processes to leave its device -> what it says of them."""
    faults: dict[str, str] = field(default_factory=dict)
    """Agent that gets no cells, or hardly any -> why."""
    second_due: int = 0
    """Cells that wait for a second board of their type."""
    closed: str = ""
    """Outside the plan's hours: `until 22:00 (Europe/Berlin)`."""
    lag_s: float | None = None
    """What the oldest row of the last commit had waited, or waits by now."""
    champion: str | None = None
    """The model version that every agent should have."""
    refused: int = 0
    """Rows that agents have sent and that were not taken (docs/security.md)."""


class Fleet(Protocol):
    """The agents of a cluster. Only one thread calls it.

    Every lease ends with at most one `Ended`, after all its `Samples`; that of an agent which hangs
    may never end. Samples of an agent that died may be missing; a cell may be measured by two
    agents. A lease is never repeated by the fleet. An agent that died and is back is another
    `Ready`.
    """

    delivery: Delivery
    """Which agents have taken the model that was pushed last; `poll` keeps it up to date."""
    tables_delivery: Delivery
    """The same of the tuned tables."""

    def ready_agents(self) -> list[Ready]:
        """The agents that take leases: a `Ready` was their event, and they answer."""

    def starting(self) -> int:
        """How many agents are about to start; their devices may add cells."""

    def faults(self) -> dict[str, str]:
        """Agent that has not started, or was lost -> why."""

    def poll(self, timeout_s: float) -> list[Event]:
        """New events; waits up to `timeout_s` for the first one.

        Raises:
            GemmcastError: the cluster is gone.
        """

    def lease(self, agent: str, lease: int, cells: Sequence[Cell]) -> None:
        """Send cells to an agent. `lease` is a number that was not used before."""

    def push(self, model: ShippedModel, version: str) -> None:
        """Send a model to every agent, and to those that start later; again where it fails."""

    def push_tables(self, tables: Sequence[Shipped], version: str) -> None:
        """Send all tuned tables in the same way; `version` is `tabledir.version_of(tables)`."""

    def rest(self, *, now: bool) -> None:
        """Give the devices back: `Left` of every agent comes next, and none starts before
        `rest(now=False)`."""

    def close(self) -> None:
        """Kill the agents."""


class Trainer(Protocol):
    """Trains and publishes in the background, one model at a time."""

    @property
    def busy(self) -> bool:
        """Whether a training is running."""

    def join(self, device: Device) -> None:
        """A device takes part: begin to publish what its models start from. Never waits."""

    def start(self, samples: Snapshot) -> None:
        """Begin to train on these samples. Must not be called while busy. Never waits."""


class Champions(Protocol):
    """Whichever model version is champion. What a training made is here when it is not busy."""

    def newest(self) -> tuple[ShippedModel, str] | None:
        """The champion and its version, once after each change. Never waits."""


class TableChampions(Protocol):
    """Whichever tuned tables are champions."""

    def newest(self) -> tuple[Sequence[Shipped], str] | None:
        """All of them and the version of the set, once after each change. Never waits."""


Show = Callable[[Progress], None]


class Display(Protocol):
    """Where a run shows how far it is; the command line supplies one."""

    def show_model(self, card: ModelCard, version: str | None) -> None:
        """A model was trained; `version` is None if the gate refused it. Called from any thread."""

    def progress(self, label: str) -> AbstractContextManager[Show]:
        """A progress bar, and the function that updates it."""


def show_nothing(_: Progress) -> None:
    """The display of a run that nobody watches."""
