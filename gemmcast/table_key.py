"""What a tuned table holds for: the type of device, and the versions that it was measured with.

A table is stale where one of these differs: another driver, cuBLAS or Triton may run another
kernel, and another GPU has another best one. A field that one side does not know is None and not
compared. Knows no entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from math import isfinite
from typing import Final

from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.objective import Objective

IDENTITY: Final = ("device", "mig", "compute_units", "power_limit_w")
"""What tells types of device apart (gemmcast/descriptions.py)."""
VERSIONS: Final = ("driver", "cuda", "library", "kernel_set", "triton")
_WORDS: Final = {
    "device": "type of device",
    "mig": "slice of a GPU (MIG)",
    "compute_units": "compute units",
    "power_limit_w": "power limit",
    "driver": "driver version",
    "cuda": "CUDA version",
    "library": "library version",
    "kernel_set": "kernel set",
    "triton": "Triton version",
}


class StaleTableError(InputError):
    """A tuned table of another device, or of other versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableKey:
    """What a tuned table was measured on, and for what."""

    device: str
    """Name of the product, from the driver."""
    objective: str = "time"
    """What was minimised: `time`, `energy`, `edp`, or `time-under-watts=W`."""
    mig: bool | None = None
    """Whether the device is a slice of a GPU."""
    compute_units: int | None = None
    """Streaming multiprocessors; on a CPU, cores."""
    power_limit_w: float | None = None
    """Power limit. [W]"""
    driver: str | None = None
    """Version of the GPU driver."""
    cuda: str | None = None
    """Version of the CUDA runtime."""
    library: str | None = None
    """Name and version of the BLAS: cuBLAS on a GPU."""
    kernel_set: str | None = None
    """Name or digest of the kernels that were candidates; None where they are a library's alone."""
    triton: str | None = None
    """Version of Triton that compiled the kernels; None where no Triton kernel was a candidate."""

    def __post_init__(self) -> None:
        _check_text("device", self.device)
        _check_text("objective", self.objective)
        # 400 and 400.0 watts are one objective.
        object.__setattr__(self, "objective", str(Objective.parse(self.objective)))
        for name in VERSIONS:
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        if self.mig is not None and type(self.mig) is not bool:
            raise _wrong("mig", self.mig, "must be true, false or null")
        if self.compute_units is not None:
            _check_number("compute_units", self.compute_units, int)
        if self.power_limit_w is not None:
            _check_number("power_limit_w", self.power_limit_w, int, float)

    @staticmethod
    def of(
        device: Device,
        objective: str = "time",
        *,
        kernel_set: str | None = None,
        triton: str | None = None,
    ) -> TableKey:
        """The key of a device as it is now, with the versions of its driver and library."""
        return TableKey(
            device=device.name,
            objective=objective,
            mig=device.mig,
            compute_units=device.compute_units,
            power_limit_w=device.power_limit_w,
            driver=device.driver,
            cuda=device.cuda,
            library=_blas_of(device),
            kernel_set=kernel_set,
            triton=triton,
        )

    @property
    def identity(self) -> tuple[object, ...]:
        """Type of device and objective: a registry has one champion for each."""
        return (self.objective, *(getattr(self, name) for name in IDENTITY))

    def check(self, here: TableKey, source: str = "the table") -> None:
        """Refuse a table that is stale here.

        Args:
            here: the device and versions of this machine; what it does not know is None.
            source: the table's name, for messages.

        Raises:
            StaleTableError: a field differs; it names the field, both values and the way out.
        """
        name = self.difference(here)
        if name is None:
            return
        rule = f"{source} was tuned with another {_WORDS[name]}, here is {getattr(here, name)!r}"
        way_out = "tune again here, or take it as it is: allow_stale=True (--allow-stale)"
        raise StaleTableError(name, getattr(self, name), rule, way_out)

    def difference(self, here: TableKey) -> str | None:
        """The first field that differs; None where nothing that both sides know does."""
        return _first_difference(self, here, (*IDENTITY, *VERSIONS))

    def is_of(self, here: TableKey) -> bool:
        """Whether the type of device is this one, whatever the versions."""
        return _first_difference(self, here, IDENTITY) is None

    def check_same(self, other: TableKey) -> None:
        """Refuse to merge tables of different keys.

        Raises:
            InputError: it names the first field that differs, and both values.
        """
        for name in (field.name for field in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                rule = f"the other table has {theirs!r}: only tables of one key are merged"
                raise InputError(name, mine, rule, "keep the two tables apart")


def _blas_of(device: Device) -> str | None:
    """The BLAS of a device. A description made of recorded rows has the library of most of them:
    cuBLASLt, which is a part of cuBLAS, or none that is a BLAS."""
    if device.library is None or device.kind == "cpu":
        return device.library
    name, _, version = device.library.partition(" ")
    return f"cublas {version}" if name in ("cublas", "cublaslt") else None


def _first_difference(one: TableKey, other: TableKey, names: Sequence[str]) -> str | None:
    for name in names:
        then, now = getattr(one, name), getattr(other, name)
        if None not in (then, now) and then != now:
            return name
    return None


def key_here(here: Device | TableKey) -> TableKey:
    """What is known of this machine: of a device also the installed Triton. A key is itself."""
    return here if isinstance(here, TableKey) else with_installed_triton(TableKey.of(here))


def with_installed_triton(key: TableKey) -> TableKey:
    """The key with the Triton that is installed here, which is not imported for it."""
    try:
        return replace(key, triton=metadata.version("triton"))
    except metadata.PackageNotFoundError:
        return key


def check_one_of(key: TableKey, here: Sequence[TableKey], source: str) -> None:
    """Refuse a table that is stale for each device of a machine.

    Args:
        key: of the table.
        here: the devices; empty where nothing is known of them, and nothing is compared.
        source: the table's name, for messages.

    Raises:
        StaleTableError: as `TableKey.check`, for the device that is most like the table's.
    """
    if not here or any(key.difference(one) is None for one in here):
        return
    alike = [one for one in here if key.is_of(one)]
    key.check((alike or here)[0], source)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise _wrong(name, value, "must be a text that is not empty")


def _check_number(name: str, value: object, *types: type) -> None:
    # `type` and not `isinstance`: True is an int, too.
    if type(value) not in types or not isfinite(value) or value <= 0:  # type: ignore[arg-type,operator]
        raise _wrong(name, value, "must be a number above 0")


def _wrong(name: str, value: object, rule: str) -> InputError:
    return InputError(name, value, rule, "correct the key of the table")
