"""One GPU's board through NVML: energy counter, clocks, temperature, throttle reasons, neighbours.

Found by PCI bus id, never by index: Ray sets CUDA_VISIBLE_DEVICES, which CUDA heeds and NVML ignores. (Not by the UUID of CuPy's
device properties either: CuPy 14 cuts those 16 bytes off at the first zero among them. The UUID is NVML's.)
"""

from __future__ import annotations

from typing import Any

import pynvml

from gemmcast.errors import MeasurementError

POWER_CAP_REASONS = pynvml.nvmlClocksThrottleReasonSwPowerCap | pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown


class NvmlBoard:
    """A board; also the `Board` of agent/power.py. Raises MeasurementError where the driver refuses to open it."""

    def __init__(self, bus_id: str) -> None:
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByPciBusId(bus_id)
            self.uuid = str(pynvml.nvmlDeviceGetUUID(self._handle))
        except pynvml.NVMLError as error:
            raise MeasurementError("unsupported", f"NVML can't open the GPU at {bus_id}: {error}") from None

    def energy_mj(self) -> float:
        """Raises MeasurementError where the driver refuses: a row, not the end of the process."""
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except pynvml.NVMLError as error:
            raise MeasurementError("cuda_error", f"NVML can't read the energy counter: {error}") from None

    def capped(self) -> bool:
        return bool((self.throttle_reasons() or 0) & POWER_CAP_REASONS)

    def has_energy(self) -> bool:
        return _or_none(pynvml.nvmlDeviceGetTotalEnergyConsumption, self._handle) is not None

    def clock_mhz(self) -> float | None:
        return _number(pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_SM)

    def clock_max_mhz(self) -> float | None:
        return _number(pynvml.nvmlDeviceGetMaxClockInfo, self._handle, pynvml.NVML_CLOCK_SM)

    def temperature_c(self) -> float | None:
        return _number(pynvml.nvmlDeviceGetTemperature, self._handle, pynvml.NVML_TEMPERATURE_GPU)

    def throttle_reasons(self) -> int | None:
        mask = _number(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle)
        return None if mask is None else int(mask)

    def power_instant_w(self) -> float | None:
        """Not averaged over a second, as NVML's usual reading is on recent boards."""
        values = _or_none(pynvml.nvmlDeviceGetFieldValues, self._handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])
        return None if not values or values[0].nvmlReturn else values[0].value.uiVal / 1e3

    def power_limit_w(self) -> float | None:
        milliwatts = _or_none(pynvml.nvmlDeviceGetEnforcedPowerLimit, self._handle)
        return None if milliwatts is None else milliwatts / 1e3

    def mig(self) -> bool:
        mode = _or_none(pynvml.nvmlDeviceGetMigMode, self._handle)
        return bool(mode and mode[0])

    def compute_processes(self) -> int:
        """Processes that hold a context here, ours included. Counted, not named: a container sees other process ids than NVML."""
        return len(_or_none(pynvml.nvmlDeviceGetComputeRunningProcesses, self._handle) or ())

    @staticmethod
    def driver() -> str:
        return str(pynvml.nvmlSystemGetDriverVersion())


def _number(call: Any, *args: Any) -> float | None:
    value = _or_none(call, *args)
    return None if value is None else float(value)


def _or_none(call: Any, *args: Any) -> Any:
    """None where this board or driver does not have the reading."""
    try:
        return call(*args)
    except pynvml.NVMLError:
        return None
