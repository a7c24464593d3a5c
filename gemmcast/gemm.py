"""The problem: C = alpha · A·B + beta · C.

A is m x k, B is k x n, C is m x n, row-major; `batch` independent problems of that shape lie one
behind the other. flops = 2·m·n·k·batch. Knows nothing of kernels or devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Final

from gemmcast.errors import InputError


@dataclass(frozen=True, slots=True)
class DType:
    """How numbers are stored and multiplied under one dtype name."""

    in_bytes: int
    """Storage of one element of A and of B. [bytes]"""
    out_bytes: int
    """Storage of one element of C. [bytes]"""
    unit_roundoff: float
    """Of the factors as the multiplier sees them; tolerances of correctness scale with it."""


DTYPES: Final[dict[str, DType]] = {
    "fp64": DType(8, 8, 2.0**-53),
    "fp32": DType(4, 4, 2.0**-24),
    # Stored as fp32, multiplied with 10 bits of mantissa.
    "tf32": DType(4, 4, 2.0**-11),
    # The three below are accumulated in fp32.
    "fp16": DType(2, 2, 2.0**-11),
    "bf16": DType(2, 2, 2.0**-8),
    "fp8_e4m3": DType(1, 2, 2.0**-4),
    # Multiplied and added without rounding, C in int32.
    "int8": DType(1, 4, 0.0),
}
"""The order is part of the ONNX contract: append, never reorder."""
RESULTS: Final = {"fp8_e4m3": "bf16", "int8": "int32"}
"""dtype -> number format of C, where it differs from that of A and B."""
LAYOUTS: Final = ("nn", "nt", "tn", "tt")
MAX_DIM: Final = 2**24
"""float32 holds every whole number up to here, and the row of a query is float32."""


# Without slots: leases are pickled in half the time.
@dataclass(frozen=True, kw_only=True)
class Gemm:
    """One matrix multiplication. Sizes are whole numbers from 1 to MAX_DIM."""

    m: int
    """Rows of C and A. [elements]"""
    n: int
    """Columns of C and B. [elements]"""
    k: int
    """Columns of A, rows of B. [elements]"""
    batch: int = 1
    """Independent problems of this shape in one launch."""
    dtype: str = "fp32"
    """One of DTYPES."""
    layout: str = "nn"
    """One of LAYOUTS, a letter for A and one for B: n row-major as above, t stored transposed."""
    alpha: float = 1.0
    """Factor of A·B; finite."""
    beta: float = 0.0
    """Factor of C; finite."""

    def __post_init__(self) -> None:
        for field in ("m", "n", "k", "batch"):
            _check_size(field, getattr(self, field))
        if self.dtype not in DTYPES:
            raise InputError("dtype", self.dtype, "unknown dtype", _one_of(DTYPES))
        if self.layout not in LAYOUTS:
            raise InputError("layout", self.layout, "unknown layout", _one_of(LAYOUTS))
        # 1 and 1.0 are one problem and must give one cell_id, hence always a float.
        for field in ("alpha", "beta"):
            object.__setattr__(self, field, _checked_scale(field, getattr(self, field)))

    @property
    def flops(self) -> int:
        """Multiplications and additions: 2·m·n·k·batch."""
        return 2 * self.m * self.n * self.k * self.batch

    @property
    def operand_bytes(self) -> int:
        """Bytes of one operand set: A, B and C, each once."""
        stored = DTYPES[self.dtype]
        a_and_b = (self.m * self.k + self.k * self.n) * stored.in_bytes
        c = self.m * self.n * stored.out_bytes
        return self.batch * (a_and_b + c)

    @property
    def c_dtype(self) -> str:
        """The number format of C."""
        return RESULTS.get(self.dtype, self.dtype)

    @property
    def shape_key(self) -> str:
        """Names the shape: the unit that a grouped split never parts, over all configurations."""
        return f"{self.m}x{self.n}x{self.k}x{self.batch}"

    def __str__(self) -> str:
        batch = f"{self.batch}x " if self.batch > 1 else ""
        return f"{batch}{self.m}x{self.n}x{self.k} {self.dtype} {self.layout}"


def _one_of(names: dict[str, DType] | tuple[str, ...]) -> str:
    return f"use one of {', '.join(names)}"


def _check_size(field: str, value: object) -> None:
    # `type` and not `isinstance`: True is an int, too.
    if type(value) is not int or not 1 <= value <= MAX_DIM:
        rule = f"must be a whole number from 1 to {MAX_DIM}"
        raise InputError(field, value, rule, "correct the shape")


def _checked_scale(field: str, value: object) -> float:
    if not isinstance(value, Real) or not isfinite(value):
        raise InputError(field, value, "must be finite", "give a number")
    return float(value)
