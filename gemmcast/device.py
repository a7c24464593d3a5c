"""The measured thing: a GPU, or the cores of a CPU.

The model learns from these descriptors, never from the name, so that it can speak about a device it has not seen. Peaks and
bandwidth are measured on the node (agent/devices), not copied from a datasheet. Absent readings are None, never 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf
from numbers import Real
from typing import Final

from gemmcast.errors import InputError
from gemmcast.renames import DEVICE_FIELDS, renamed

KINDS: Final = ("cuda", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What one device is and what it was measured to do."""

    name: str
    # the product's name as the driver gives it
    kind: str
    # one of KINDS
    uuid: str
    # of the very GPU; of the host on a CPU
    compute_units: int
    # streaming multiprocessors; cores this process may use on a CPU
    arch: str | None = None
    # sm_90, ...: what kernels are compiled for; None on a CPU
    clock_max_mhz: float | None = None
    power_limit_w: float | None = None
    idle_power_w: float | None = None
    # None: this machine has no readable power
    memory_bytes: int
    l2_bytes: int
    # L2 of a GPU, last-level cache of a CPU
    dram_gbps: float
    # GB/s, bytes read plus bytes written
    l2_gbps: float | None = None
    # GB/s read from L2
    empty_launch_us: float
    # a launch of an empty kernel (of the smallest GEMM on a CPU)
    peak_tflops: Mapping[str, float] = field(default_factory=dict)
    # dtype -> TFLOP/s of the best large GEMM seen, all cores
    driver: str | None = None
    cuda: str | None = None
    library: str | None = None
    # of the BLAS: name and version
    mig: bool = False
    counter_step_s: float | None = None
    # seconds between two steps of the board's energy counter

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("kind", self.kind, "unknown kind of device", f"use one of {', '.join(KINDS)}")
        for name in ("compute_units", "memory_bytes", "l2_bytes", "dram_gbps", "empty_launch_us"):
            _check(name, getattr(self, name))
        for name in ("clock_max_mhz", "power_limit_w", "idle_power_w", "l2_gbps", "counter_step_s"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name))
        for dtype, peak in self.peak_tflops.items():
            _check(f"peak_tflops[{dtype!r}]", peak)

    @property
    def has_power(self) -> bool:
        return self.idle_power_w is not None

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Device:
        """Raises InputError on anything that `to_json` did not write."""
        try:
            values = json.loads(text)
            known = {f.name for f in fields(Device)}
            values = renamed(values, DEVICE_FIELDS)
            return Device(**{name: value for name, value in values.items() if name in known})
        except (ValueError, TypeError, AttributeError) as error:
            rule, way_out = f"not a device description ({error})", "use one of the devices that `gemmcast info --json` prints"
            raise InputError("device", text, rule, way_out) from None


def _check(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < inf:
        raise InputError(name, value, "must be a finite number, not negative", "correct the device description")
