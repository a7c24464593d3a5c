"""The seam of kernel families: a new family is one new file in this folder, with a `FAMILY` in it.

A family turns (gemm, config, operands) into something that can be launched. It knows nothing of time, power, Ray or the store;
the bench that launches it knows nothing of what is launched.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

ALIGNMENT = 256
# elements
Array = Any
# numpy.ndarray or cupy.ndarray; a[batch, m, k] or, stored transposed, a[batch, k, m]; likewise b; c[batch, m, n]


@dataclass(frozen=True, slots=True)
class Operands:
    """One set: A and B as they are stored (layout applied), and C."""

    a: Array
    b: Array
    c: Array


@dataclass(frozen=True, slots=True)
class Prepared:
    """A kernel ready to run. `launch(i)` multiplies operand set i; on a GPU it only enqueues, on the current stream.

    It may know the operands' addresses alone: whoever launches keeps the operands.
    """

    launch: Callable[[int], None]
    facts: dict[str, Any] = field(default_factory=dict)
    # columns of the sample: the knobs that the kernel turned out to have, regs, smem_bytes, occupancy, spill_bytes, kernel, library, ...


def input_elements(gemm: Gemm) -> int:
    """Of an arena, for A and B of one set."""
    return _padded(gemm.batch * gemm.m * gemm.k) + _padded(gemm.batch * gemm.k * gemm.n)


def output_elements(gemm: Gemm) -> int:
    """Of an arena, for C of one set."""
    return _padded(gemm.batch * gemm.m * gemm.n)


def carve(gemm: Gemm, inputs: Array, outputs: Array, sets: int) -> list[Operands]:
    """Operand sets as windows of two flat arenas: A and B from `inputs`, C from `outputs`.

    Each starts on a boundary of 256 elements, as a matrix of its own would: libraries choose their kernels by the alignment too.
    """
    a_size, b_size, c_size = (gemm.batch * size for size in (gemm.m * gemm.k, gemm.k * gemm.n, gemm.m * gemm.n))
    a_shape = (gemm.batch, gemm.k, gemm.m) if gemm.layout[0] == "t" else (gemm.batch, gemm.m, gemm.k)
    b_shape = (gemm.batch, gemm.n, gemm.k) if gemm.layout[1] == "t" else (gemm.batch, gemm.k, gemm.n)
    made = []
    for i in range(sets):
        a_at, c_at = i * input_elements(gemm), i * output_elements(gemm)
        b_at = a_at + _padded(a_size)
        a, b = inputs[a_at : a_at + a_size].reshape(a_shape), inputs[b_at : b_at + b_size].reshape(b_shape)
        made.append(Operands(a, b, outputs[c_at : c_at + c_size].reshape((gemm.batch, gemm.m, gemm.n))))
    return made


def _padded(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT


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
