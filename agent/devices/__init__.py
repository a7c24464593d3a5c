"""The seam of devices: a bench holds operands, launches what a family prepared, and reads the instruments.

cpu.py     NumPy on this host's cores; no readable power
cuda.py    one GPU through CuPy, NVML found by PCI bus id (queue.py: what is enqueued; describe.py: what it can do)
replay.py  no bench: answers from a recorded dataset
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agent.kernels import Prepared
from agent.operands import Operands
from agent.power import PowerReading
from agent.timing import Burst, Pending, Steps
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure


class DeviceBackend(Protocol):
    """One device, ready to measure. Not for use by several threads."""

    xp: Any
    # the array module of its operands
    depth: int
    # cells that may be under way at once: on a device that works by itself, the host prepares the next ones meanwhile

    def identify(self) -> Device:
        """Cheap: what it is; measured descriptors may be missing (0)."""

    def characterise(self) -> Device:
        """Measures peaks, bandwidths, launch overhead and idle power; takes seconds."""

    def operands(self, gemm: Gemm, *, cold: bool) -> Sequence[Operands]:
        """Random normal operand sets; together beyond 3x the last-level cache when cold.

        The same sets as long as the problem is the same. Those of another problem may be windows of the same memory: A and B are
        never written, C is anybody's.
        """

    def pending(self) -> Pending:
        """What has been enqueued so far."""

    def read(self, array: Any) -> Any:
        """An array as NumPy's; its work must be done, what was enqueued later is not waited for."""

    def burst(self, prepared: Prepared, sets: int, procedure: Procedure, *, cold: bool) -> Steps[tuple[Burst, dict[str, Any]]]:
        """Times launches that rotate over the sets; also other columns (temperature_c, host_launch_us, ...)."""

    def no_power(self) -> str | None:
        """Why power can't be read here, if so."""

    def power(
        self, prepared: Prepared, sets: int, burst: Burst, procedure: Procedure, *, step_s: float | None, meanwhile: Callable[[], object]
    ) -> PowerReading:
        """Meters the kernel for a second; `meanwhile` is called while it settles, and may enqueue.

        Args:
            step_s: of the energy counter, where it was measured.
        """

    def contention(self) -> str | None:
        """Why the device is not ours alone just now, if so."""
