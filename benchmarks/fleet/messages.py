"""What the coordinator's process and the process of the replayed agents send each other."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from gemmcast.cell import Cell
from gemmcast.device import Device

Pipe = Connection
"""One end of a duplex pipe; each message is one object, or from the agents a list of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How agents send rows."""

    rows_per_s: float
    """Of each agent; infinite: as fast as they are taken."""
    batch_rows: int
    """Rows of a batch; the last one of a lease may have fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The replayed agents of one process."""

    agents: dict[str, Device]
    recording: Path
    """Parquet file of samples: what the rows hold."""
    pace: Pace
    node_dirs: Path
    """Folder of the nodes' model directories; an agent's name begins with its node."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Cells for an agent."""

    agent: str
    number: int
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Model:
    """A model for all agents of the process: sent once, as Ray does it for a node."""

    data: bytes
    version: str


@dataclass(frozen=True, slots=True)
class Take:
    """An agent should make that model the one of its node."""

    agent: str
    version: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a lease, as an agent sends them."""

    agent: str
    lease: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """All rows of a lease were sent."""

    agent: str
    lease: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What an agent has read from the model directory of its node."""

    agent: str
    version: str
