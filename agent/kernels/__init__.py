"""The seam of kernel families: a new family is one new module here, with a `FAMILY` in it.

A family turns (gemm, config, operand sets) into something that can be launched. It knows nothing of
time, power, Ray or the store; the backend that launches a kernel does not look inside it.
tests/agent/test_agent_families.py runs the contract below over every family.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError, MeasurementError
from gemmcast.feasible import check_family, check_knobs
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

if TYPE_CHECKING:
    # Families are listed and compiled where there is no NumPy.
    from agent.operands import Array, Operands

Launch = Callable[[int], None]
"""launch(i) multiplies operand set i; on a GPU it only enqueues, on the current stream."""


@dataclass(frozen=True, slots=True)
class BlockScales:
    """Factors of blocks of one operand set, which the product contains."""

    a: Array
    """[m, blocks along k]: of `length` elements of a row of A."""
    b: Array
    """[blocks along n, blocks along k]: of `length` x `length` elements of B."""
    length: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A kernel ready to run.

    It may hold no more of the operands than their addresses: the caller keeps the operands alive.
    """

    launch: Launch
    facts: Row = field(default_factory=dict)
    """Columns of the sample: the resolved knobs, regs, smem_bytes, spill_bytes, occupancy, kernel,
    library, workspace_bytes; those that the family can read."""
    scales: BlockScales | None = None
    """Of set 0, where the kernel multiplies scaled operands."""


class Family(Protocol):
    """One way to multiply."""

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Do all that must not be timed: compile, look up, allocate, load.

        `launch` may be called any number of times for any set. It computes C of that set from its
        A, B and C, and changes nothing else. Where beta is 0, C may hold NaN and is not read.

        Raises:
            MeasurementError: "unsupported" for what the family cannot do, "cuda_error" for a fault.
        """


def load(name: str) -> Family:
    """The family of that name; its module, and with it CUDA, is imported on first use.

    Raises:
        MeasurementError: "unsupported" where this version has no such family.
    """
    module = f"agent.kernels.{name}"
    try:
        family: Family = importlib.import_module(module).FAMILY
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        reason = (
            f"family {name} can be recorded and predicted, but this version has no kernel for it"
        )
        raise MeasurementError("unsupported", reason) from None
    return family


def refuse(gemm: Gemm, config: KernelConfig, device: Device) -> None:
    """Check that the device can run the configuration, and that the family has the dtype.

    Raises:
        MeasurementError: "unsupported" where it does not.
    """
    try:
        check_family(config, device)
        check_knobs(gemm, config, device.arch)
    except InputError as error:
        raise MeasurementError("unsupported", f"{error.value}: {error.rule}") from None
    facts = FAMILIES[config.family]
    if gemm.dtype not in facts.dtypes:
        known = ", ".join(facts.dtypes)
        raise MeasurementError(
            "unsupported", f"family {config.family} has no {gemm.dtype} (it has {known})"
        )
