"""One GPU's board through NVML: energy counter, clocks, temperature, throttle reasons, processes.

Opened by PCI bus id, never by index: Ray sets CUDA_VISIBLE_DEVICES, which NVML ignores. (Nor by the
UUID of CuPy's device properties: CuPy 14 cuts those 16 bytes off at the first zero among them. The
UUID is NVML's.)
A reading that this board or driver does not have is None.
Of a MIG slice the UUID and the processes are its own; all else is the board's, which the slices
share.

On a Grace superchip the energy counter is that of the whole module, with the CPU and its memory
(seen on GH200: github.com/ml-energy/zeus/pull/172). NVML has no counter of the GPU alone: only its
power has a scope (nvmlPowerScopeType_t: GPU, module, memory). So energy is refused there, by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

import pynvml

from agent.devices.visible import used_slice
from gemmcast.errors import MeasurementError

T = TypeVar("T")
POWER_CAP_REASONS = (
    pynvml.nvmlClocksThrottleReasonSwPowerCap | pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
)
GRACE_SUPERCHIP: Final = re.compile(r"\bG[HB]\d+|\bGrace\b", re.IGNORECASE)
"""In the name of a product: GH200, GB200, GB300, GB10. Only GH200's counter was seen; those of the
others are not known to be the GPU's."""


def module_energy(name: str) -> str | None:
    """Why a product's energy counter is not its GPU's; None where it is.

    Args:
        name: from the driver, as `NVIDIA GH200 480GB`.
    """
    if GRACE_SUPERCHIP.search(name) is None:
        return None
    return f"the energy counter of {name} is the whole module's, with the CPU and its memory"


class NvmlBoard:
    """A board; also the `Board` of agent/power.py.

    Raises:
        MeasurementError: "unsupported" where the driver refuses to open it.
    """

    def __init__(self, bus_id: str) -> None:
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByPciBusId(bus_id)
            self._used = (used_slice() if self.mig() else None) or self._handle
            self.uuid = str(pynvml.nvmlDeviceGetUUID(self._used))
        except pynvml.NVMLError as error:
            reason = f"NVML can't open the GPU at {bus_id}: {error}"
            raise MeasurementError("unsupported", reason) from None

    def energy_mj(self) -> float:
        """Energy since the driver was loaded.

        Raises:
            MeasurementError: "cuda_error" where the driver refuses: a row, not the process's end.
        """
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except pynvml.NVMLError as error:
            reason = f"NVML can't read the energy counter: {error}"
            raise MeasurementError("cuda_error", reason) from None

    def has_energy(self) -> bool:
        """Whether the board has a counter of total energy."""
        counter = _or_none(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return counter is not None

    def capped(self) -> bool:
        """Whether the driver reports a power cap, now or a moment ago."""
        reasons = self.throttle_reasons() or 0
        return bool(reasons & POWER_CAP_REASONS)

    def clock_mhz(self) -> float | None:
        """The SM clock's target, not a reading (docs/measuring.md)."""
        return _number(lambda: pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_SM))

    def clock_max_mhz(self) -> float | None:
        """The highest SM clock."""
        return _number(lambda: pynvml.nvmlDeviceGetMaxClockInfo(self._handle, pynvml.NVML_CLOCK_SM))

    def temperature_c(self) -> float | None:
        """Of the GPU."""
        return _number(
            lambda: pynvml.nvmlDeviceGetTemperature(self._handle, pynvml.NVML_TEMPERATURE_GPU)
        )

    def throttle_reasons(self) -> int | None:
        """NVML's bit mask."""
        mask = _number(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))
        return None if mask is None else int(mask)

    def power_instant_w(self) -> float | None:
        """Power now; NVML's usual reading is averaged over a second on recent boards."""
        field = pynvml.NVML_FI_DEV_POWER_INSTANT
        values = _or_none(lambda: pynvml.nvmlDeviceGetFieldValues(self._handle, [field]))
        if not values or values[0].nvmlReturn:
            return None
        milliwatts: int = values[0].value.uiVal
        return milliwatts / 1e3

    def power_limit_w(self) -> float | None:
        """The limit that the driver enforces."""
        milliwatts = _number(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(self._handle))
        return None if milliwatts is None else milliwatts / 1e3

    def mig(self) -> bool:
        """Whether the board is split into slices now."""
        mode = _or_none(lambda: pynvml.nvmlDeviceGetMigMode(self._handle))
        return bool(mode and mode[0])

    def process_ids(self) -> list[int] | None:
        """Processes that hold a context here, in most places this one too (neighbours.py).

        A container has other process ids than NVML.
        """
        processes = _or_none(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(self._used))
        if processes is None:
            return None
        return [process.pid for process in processes]

    @staticmethod
    def driver() -> str:
        """Version of the driver."""
        return str(pynvml.nvmlSystemGetDriverVersion())


def _number(call: Callable[[], float]) -> float | None:
    value = _or_none(call)
    return None if value is None else float(value)


def _or_none(call: Callable[[], T]) -> T | None:
    """None where this board or driver does not have the reading."""
    try:
        return call()
    except pynvml.NVMLError:
        return None
