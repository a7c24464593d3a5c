"""The seam of kernel families: a new family is one new file in this folder, with a `FAMILY` in it.

A family turns (gemm, config, operands) into something that can be launched. It knows nothing of time, power, Ray or the store;
the bench that launches it knows nothing of what is launched.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

if TYPE_CHECKING:
    from agent.operands import Operands
# families are listed and compiled where there is no NumPy


@dataclass(frozen=True, slots=True)
class Prepared:
    """A kernel ready to run. `launch(i)` multiplies operand set i; on a GPU it only enqueues, on the current stream.

    It may know the operands' addresses alone: whoever launches keeps the operands.
    """

    launch: Callable[[int], None]
    facts: dict[str, Any] = field(default_factory=dict)
    # columns of the sample: the knobs that the kernel turned out to have, regs, smem_bytes, occupancy, spill_bytes, kernel, library, ...


class Family(Protocol):
    """One way to multiply."""

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Compile, look up, warm: all that must not be timed. Raises MeasurementError("unsupported", ...) for what it can't do."""


def load(name: str) -> Family:
    """The family of that name. Its file imports CUDA (or not) when it is first asked for. Raises MeasurementError where there is none."""
    module = f"agent.kernels.{name}"
    try:
        family: Family = importlib.import_module(module).FAMILY
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MeasurementError("unsupported", f"family {name} can be recorded and predicted, but this version has no kernel for it") from None
    return family


def refuse(gemm: Gemm, config: KernelConfig, device_kind: str) -> None:
    """Raises MeasurementError for a family that has no business on this device or with this dtype."""
    facts = FAMILIES[config.family]
    if facts.device_kind != device_kind:
        raise MeasurementError("unsupported", f"family {config.family} runs on {facts.device_kind}, this device is {device_kind}")
    if gemm.dtype not in facts.dtypes:
        raise MeasurementError("unsupported", f"family {config.family} has no {gemm.dtype} (it has {', '.join(facts.dtypes)})")
