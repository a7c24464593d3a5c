"""The seam of devices: a bench holds operands, launches what a family prepared, and reads the instruments.

cpu.py     NumPy on this host's cores; no readable power
cuda.py    one GPU through CuPy, NVML found by PCI bus id
replay.py  no bench: answers from a recorded dataset
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from agent.kernels import Operands, Prepared
from agent.power import PowerReading
from agent.timing import Burst
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure


class Bench(Protocol):
    """One device, ready to measure. Not for use by several threads."""

    xp: Any
    # the array module of its operands

    def identify(self) -> Device:
        """Cheap: what it is; measured descriptors may be missing (0)."""

    def characterise(self) -> Device:
        """Measures peaks, bandwidth, launch overhead and idle power; takes a second or two."""

    def operands(self, gemm: Gemm, *, cold: bool) -> Sequence[Operands]:
        """Random normal operand sets; together beyond 3x the last-level cache when cold. Valid until the next call."""

    def burst(self, prepared: Prepared, sets: int, procedure: Procedure) -> tuple[Burst, dict[str, Any]]:
        """Times launches that rotate over the sets; also condition columns (clock_mhz, temperature_c, ...)."""

    def power(self, prepared: Prepared, sets: int, runtime_us: float, procedure: Procedure) -> PowerReading | None:
        """None where power can't be read."""

    def contention(self) -> str | None:
        """Why the device is not ours alone just now, if so."""
