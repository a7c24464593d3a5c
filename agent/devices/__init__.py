"""The seam of devices: a backend holds operands, times and meters prepared kernels.

    cpu.py     NumPy on this host's cores; no readable power
    cuda.py    one GPU through CuPy; NVML finds its board by PCI bus id
    replay.py  no backend: an instrument that answers from a recorded dataset

tests/agent/test_agent_seams.py runs the contract below over every backend and its fake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from agent.kernels import Prepared
from agent.operands import Array, ArrayModule, Operands
from agent.power import PowerReading
from agent.timing import Burst, Pending, Steps
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure
from gemmcast.rows import Row


class DeviceBackend(Protocol):
    """One device, ready to measure. Not for use by several threads."""

    xp: ArrayModule
    """The array module of its operands."""
    depth: int
    """Cells that may be under way at once; more than 1 where the device works beside the host."""

    def identify(self) -> Device:
        """What the device is; cheap. Descriptors that must be measured are absent or 0."""

    def characterise(self) -> Device:
        """The same with measured peaks, bandwidths, launch overhead and idle power; seconds."""

    def operands(self, gemm: Gemm, *, cold: bool, metered: bool = False) -> Sequence[Operands]:
        """Operand sets of standard normal numbers: one, or where `cold` more than 3x the cache.

        The same sets as long as the problem is the same. Those of another problem may be windows of
        the same memory: A and B are never written, C by every kernel.

        Args:
            metered: power will be metered; small problems get more sets.

        Raises:
            MeasurementError: "out_of_memory".
        """

    def pending(self) -> Pending:
        """What has been enqueued so far."""

    def read(self, array: Array) -> Array:
        """Copy a finished array to the host, without waiting for what was enqueued later."""

    def burst(
        self,
        prepared: Prepared,
        sets: Sequence[Operands],
        procedure: Procedure,
        *,
        cold: bool,
        window_mhz: float | None = None,
    ) -> Steps[tuple[Burst, Row]]:
        """Time launches that rotate over the sets; also other columns (temperature_c, ...).

        Args:
            window_mhz: mean clock of the same kernel in its power window, where it had one.
        """

    def no_power(self) -> str | None:
        """Why power cannot be read here; None where it can."""

    def power(
        self,
        prepared: Prepared,
        sets: Sequence[Operands],
        burst: Burst,
        procedure: Procedure,
        *,
        cold: bool,
        step_s: float | None,
        meanwhile: Callable[[], object],
    ) -> PowerReading:
        """Meter the kernel for about a second.

        Args:
            burst: of the same kernel, just before.
            step_s: length of the energy counter's steps, where it was measured.
            meanwhile: called once while the power settles; it may enqueue.

        Raises:
            MeasurementError: "unsupported" where `no_power` has a reason.
        """

    def contention(self) -> str | None:
        """Why the device is shared just now; None where it is not."""
