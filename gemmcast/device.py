"""The measured thing: a GPU, or the cores of a CPU.

The model reads these numbers and never the name, so that it can predict for a device without
samples. Peaks and bandwidths are measured on the node (agent/devices), not taken from a datasheet.
An absent reading is None, never 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf
from numbers import Real
from pathlib import Path
from typing import Final

from gemmcast.errors import InputError
from gemmcast.renames import DEVICE_FIELDS, renamed, with_empty_kernel

DEVICE_KINDS: Final = ("cuda", "cpu")
_NUMBERS: Final = ("compute_units", "memory_bytes", "l2_bytes", "dram_gbps")
_OPTIONAL_NUMBERS: Final = (
    "clock_max_mhz",
    "power_limit_w",
    "idle_power_w",
    "l2_gbps",
    "empty_kernel_us",
    "empty_launch_us",
    "counter_step_s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device and what was measured of it."""

    name: str
    """Name of the product, from the driver."""
    kind: str
    """One of DEVICE_KINDS."""
    uuid: str
    """Identifies one GPU; on a CPU, the host."""
    compute_units: int
    """Streaming multiprocessors; on a CPU, the cores that this process may use."""
    arch: str | None = None
    """Architecture that kernels are compiled for: `sm_90`, ...; None on a CPU."""
    clock_max_mhz: float | None = None
    """Highest clock. [MHz]"""
    power_limit_w: float | None = None
    """Power limit. [W]"""
    idle_power_w: float | None = None
    """Power of the idle device; None where no power can be read. [W]"""
    memory_bytes: int
    """Memory of the device. [bytes]"""
    l2_bytes: int
    """L2 cache of a GPU, last-level cache of a CPU. [bytes]"""
    dram_gbps: float
    """Measured memory bandwidth, bytes read plus bytes written. [GB/s]"""
    l2_gbps: float | None = None
    """Measured bandwidth of reads from L2. [GB/s]"""
    empty_kernel_us: float | None = None
    """Time of an empty kernel on the GPU, as a runtime is timed; on a CPU, of the smallest GEMM.
    [us]"""
    empty_launch_us: float | None = None
    """Host time of one launch of an empty kernel; on a CPU, `empty_kernel_us`. A reading of the
    host: models of contract 4 and later do not read it. [us]"""
    peak_tflops: Mapping[str, float] = field(default_factory=dict)
    """dtype -> throughput of the best large GEMM measured on the whole device; of int8 in TOP/s.
    [TFLOP/s]"""
    driver: str | None = None
    """Version of the GPU driver."""
    cuda: str | None = None
    """Version of the CUDA runtime."""
    library: str | None = None
    """Name and version of the BLAS."""
    mig: bool = False
    """Whether the device is a slice of a GPU."""
    counter_step_s: float | None = None
    """Time between two steps of the board's energy counter. [s]"""

    def __post_init__(self) -> None:
        if self.kind not in DEVICE_KINDS:
            way_out = f"use one of {', '.join(DEVICE_KINDS)}"
            raise InputError("kind", self.kind, "unknown kind of device", way_out)
        for name in _NUMBERS:
            _check(name, getattr(self, name))
        for name in _OPTIONAL_NUMBERS:
            if getattr(self, name) is not None:
                _check(name, getattr(self, name))
        for dtype, peak in self.peak_tflops.items():
            _check(f"peak_tflops[{dtype!r}]", peak)

    def __hash__(self) -> int:
        # `peak_tflops` has none; boards that are equal have one UUID.
        return hash(self.uuid)

    @property
    def has_power(self) -> bool:
        """Whether power can be read."""
        return self.idle_power_w is not None

    def to_json(self) -> str:
        """One line of JSON, with the fields by name."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def read(path: Path, *, strict: bool = True) -> Device:
        """The description in the file that --device names; errors name the file.

        Raises:
            InputError: it can't be read, or as `from_json` does.
        """
        way_out = "name a file with a device description in JSON"
        try:
            return Device.from_json(path.read_text(encoding="utf-8"), strict=strict)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("--device", str(path), f"can't be read ({error})", way_out) from None
        except InputError as error:
            raise InputError("--device", str(path), error.rule, error.way_out) from None

    @staticmethod
    def from_json(text: str, *, strict: bool = False) -> Device:
        """The inverse of `to_json`, also of descriptions written before contract 4.

        Args:
            strict: refuse a key that no device has, because a person misspelt it. Otherwise it is
                one that a newer version added.

        Raises:
            InputError: the text is something else.
        """
        try:
            values = renamed(json.loads(text), DEVICE_FIELDS)
            values = with_empty_kernel(values, values.get("kind"))
            names = {field.name for field in fields(Device)}
            unknown = sorted(values.keys() - names)
            if strict and unknown:
                raise TypeError(f"no device has a key {unknown[0]!r}")
            return Device(**{name: value for name, value in values.items() if name in names})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            rule = f"not a device description ({error})"
            way_out = "use one of the devices that `gemmcast info --json` prints"
            raise InputError("device", text, rule, way_out) from None


def _check(name: str, value: object) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) < inf:  # type: ignore[arg-type]
        rule = "must be a finite number, not negative"
        raise InputError(name, value, rule, "correct the device description")
