"""What an agent is given when it starts, and what it answers first.

Both values travel through Ray and to the measuring child as they are. Knows nothing of Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemmcast.device import Device
from gemmcast.procedure import Procedure


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One agent: which device it measures, and how."""

    kind: str
    """Kind of device: cuda, cpu or replay."""
    agent: str
    """The agent's name; it stands in every row."""
    model_dir: Path
    """The node's model directory; measured device descriptions are kept there too."""
    procedure: Procedure
    """Bounds of one measurement, the limit of a cell's time among them."""
    dataset: Path | None = None
    """Replay only: the Parquet file that answers."""
    device_name: str | None = None
    """Replay only: which device of the dataset, where it holds several."""
    only_idle: bool = False
    """Whether a GPU is left alone while others use it."""
    depth: int | None = None
    """Cells under way at once, where fewer than the device's own number are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A started agent's first answer."""

    device: Device
    host: str
    """Name of the host that the agent runs on."""
