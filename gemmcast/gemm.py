"""The problem: C = alpha · A·B + beta · C.

A is m x k, B is k x n, C is m x n, row-major; `batch` independent problems of that shape lie one behind the other.
flops = 2·m·n·k·batch. Knows nothing of kernels or devices.
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
    # storage of one element of A and of B
    out_bytes: int
    # storage of one element of C
    unit_roundoff: float
    # of the multiplicands as the multiplier sees them: what correctness tolerances scale with


DTYPES: Final[dict[str, DType]] = {
    "fp64": DType(8, 8, 2.0**-53),
    "fp32": DType(4, 4, 2.0**-24),
    "tf32": DType(4, 4, 2.0**-11),  # stored as fp32, multiplied with 10 mantissa bits
    "fp16": DType(2, 2, 2.0**-11),  # accumulated in fp32, as bf16 and fp8 are
    "bf16": DType(2, 2, 2.0**-8),
    "fp8_e4m3": DType(1, 2, 2.0**-4),  # C is bf16
}
RESULTS: Final = {"fp8_e4m3": "bf16"}
# dtype of C, where it is another than that of A and B
LAYOUTS: Final = ("nn", "nt", "tn", "tt")
MAX_DIM: Final = 2**24
# float32 holds every integer up to here, and the ONNX question is float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """One matrix multiplication."""

    m: int
    n: int
    k: int
    batch: int = 1
    dtype: str = "fp32"
    # one of DTYPES
    layout: str = "nn"
    # A then B: n = row-major as written above, t = stored transposed
    alpha: float = 1.0
    beta: float = 0.0

    def __post_init__(self) -> None:
        for field in ("m", "n", "k", "batch"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DIM:
                raise InputError(field, value, f"must be a whole number from 1 to {MAX_DIM}", "correct the shape")
        if self.dtype not in DTYPES:
            raise InputError("dtype", self.dtype, "unknown dtype", f"use one of {', '.join(DTYPES)}")
        if self.layout not in LAYOUTS:
            raise InputError("layout", self.layout, "unknown layout", f"use one of {', '.join(LAYOUTS)}")
        for field in ("alpha", "beta"):
            value = getattr(self, field)
            if type(value) is not float and isinstance(value, Real):  # 1 and 1.0 are one problem, so they must give one cell_id
                object.__setattr__(self, field, value := float(value))
            if not isinstance(value, float) or not isfinite(value):
                raise InputError(field, value, "must be finite", "give a number")

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k * self.batch

    @property
    def operand_bytes(self) -> int:
        """Bytes of one operand set: A, B and C, each once."""
        t = DTYPES[self.dtype]
        return self.batch * ((self.m * self.k + self.k * self.n) * t.in_bytes + self.m * self.n * t.out_bytes)

    @property
    def c_dtype(self) -> str:
        return RESULTS.get(self.dtype, self.dtype)

    @property
    def shape_key(self) -> str:
        """What a grouped split keeps together: every configuration and dtype of one shape."""
        return f"{self.m}x{self.n}x{self.k}x{self.batch}"

    def __str__(self) -> str:
        batch = f"{self.batch}x " if self.batch > 1 else ""
        return f"{batch}{self.m}x{self.n}x{self.k} {self.dtype} {self.layout}"
