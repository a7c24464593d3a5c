"""cuBLASLt, algorithm by algorithm: its default, the rest of its heuristic's list, and configurations beyond that list.

A configuration's `kernel` says which: "" or "default" is the heuristic's first choice, what users of the library get today;
"heuristic-1"... its further ones; "enumerated-0"... others that the library accepts, in a fixed order; with no name, the first that has
the given knobs. What it resolved to is in the facts. fp8 accumulates accurately and is unscaled (library.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import gcd
from typing import Any, Final

import numpy as np

from agent.kernels import Prepared
from agent.kernels.cublaslt.candidates import AlgorithmSpace
from agent.kernels.cublaslt.library import KINDS, WIDEST_ALIGNMENT, WORKSPACE_BYTES, Problem, algorithms, failed
from agent.kernels.cublaslt.names import Algorithm, Names
from agent.operands import Operands, addresses
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm

SPACES: Final = 16
# problems whose lists are kept: the configurations of one problem come one after the other


@dataclass(frozen=True, slots=True)
class Launch:
    """One call of the library per launch, its arguments ready as integers."""

    lt: Any
    cuda: Any
    calls: Sequence[tuple[int, ...]]
    # cublasLtMatmul's, without the stream
    kept: tuple[Any, ...]
    # what those integers point into

    def __call__(self, i: int) -> None:
        try:
            self.lt.matmul(*self.calls[i], self.cuda.get_current_stream().ptr)
        except self.lt.cuBLASLtError as error:
            raise failed(error, "cublasLtMatmul") from None


class CublasLt:
    """The library, with one handle and one workspace."""

    def __init__(self, lt: Any = None, cuda: Any = None) -> None:
        """Tests give stand-ins for nvmath.bindings.cublasLt and cupy.cuda."""
        self._given = lt, cuda
        self._offers: OrderedDict[tuple[Gemm, tuple[int, int, int]], AlgorithmSpace] = OrderedDict()
        self._algorithms: dict[str, list[Algorithm]] = {}

    @cached_property
    def _lt(self) -> Any:
        if self._given[0] is not None:
            return self._given[0]
        try:
            from nvmath.bindings import cublasLt
        except (ImportError, RuntimeError) as error:
            raise MeasurementError("unsupported", f"family cublaslt needs nvmath-python ({error}); install gemmcast[cuda13]") from None
        return cublasLt

    @cached_property
    def _cuda(self) -> Any:
        if self._given[1] is not None:
            return self._given[1]
        import cupy

        return cupy.cuda

    @cached_property
    def _handle(self) -> int:
        try:
            return int(self._lt.create())
        except self._lt.cuBLASLtError as error:
            raise failed(error, "cublasLtCreate") from None
        except RuntimeError as error:  # no such library, or no driver
            raise MeasurementError("unsupported", f"family cublaslt finds no cuBLASLt: {error}") from None

    @cached_property
    def _workspace(self) -> Any:
        return self._cuda.alloc(WORKSPACE_BYTES)

    @cached_property
    def _names(self) -> Names:
        return Names(self._lt.MatmulTile, self._lt.MatmulStages, self._lt.ClusterShape)

    @cached_property
    def version(self) -> str:
        number = int(self._lt.get_version())
        return f"cublaslt {number // 10_000}.{number // 100 % 100}.{number % 100}"

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        if gemm.dtype == "fp8_e4m3" and gemm.layout != "nt":
            raise MeasurementError("unsupported", f"cublaslt multiplies fp8 in layout nt only (sm_90 reads both operands along k), not {gemm.layout}")
        offer = self._offer(gemm, aligned(sets))
        choice = offer.choose(config)
        problem, chosen = offer.problem, choice.configured
        scalars = np.array([gemm.alpha, gemm.beta], np.float32)
        alpha = scalars.ctypes.data
        before = (self._handle, problem.operation, alpha)
        after = (chosen.blob.ctypes.data, int(self._workspace.ptr), WORKSPACE_BYTES)
        calls = [
            (*before, b, problem.a, a, problem.b, alpha + scalars.itemsize, c, problem.c, c, problem.c, *after)  # operands swapped: C^T = B^T·A^T
            for a, b, c in addresses(sets).tolist()
        ]
        launch = Launch(self._lt, self._cuda, calls, (problem, chosen, scalars, self._workspace, sets))
        return Prepared(launch, {**offer.knobs(choice), "kernel": choice.name, "library": self.version, "workspace_bytes": chosen.workspace_bytes})

    def choice(self, gemm: Gemm) -> KernelConfig:
        """What cuBLAS launches for that problem in memory that CUDA allocated, as a configuration to ask a model about.

        Nothing is launched: a millisecond. Without knobs where nobody tells (`chosen`).
        """
        knobs: dict[str, Any] = {**self.chosen(gemm, (WIDEST_ALIGNMENT, WIDEST_ALIGNMENT, WIDEST_ALIGNMENT))}
        return KernelConfig(family="cublas", **knobs)

    def chosen(self, gemm: Gemm, alignment: tuple[int, int, int], version: str | None = None) -> dict[str, int]:
        """The knobs of what cuBLAS launches, which leaves its choice to this library's heuristic.

        {} where nobody tells: without this library, or for a dtype or problem that it does not have, or where cuBLAS is of another version.

        Args:
            alignment: bytes, of the library's A, B and C (`aligned`).
            version: of cuBLAS, as "13.1.0"; None if it is this library's.
        """
        try:
            if gemm.dtype not in KINDS or version not in (None, self.version.split()[1]):
                return {}
            offer = self._offer(gemm, alignment)
            return offer.knobs(offer.choose(KernelConfig(family="cublaslt")))
        except MeasurementError as error:
            if error.status != "unsupported":
                raise
            return {}

    def _offer(self, gemm: Gemm, alignment: tuple[int, int, int]) -> AlgorithmSpace:
        """Of the last OFFERS problems, kept; alignment of the library's A, B and C counts, since the heuristic goes by it, alpha and beta do not."""
        gemm = replace(gemm, alpha=1.0, beta=0.0)
        key = (gemm, alignment)
        if key not in self._offers:
            problem = Problem(self._lt, self._handle, gemm, alignment)
            self._offers[key] = AlgorithmSpace(problem, self._names, partial(self._known, gemm.dtype), f"{gemm} in {self.version}")
        self._offers.move_to_end(key)
        while len(self._offers) > SPACES:
            self._offers.popitem(last=False)
        return self._offers[key]

    def _known(self, dtype: str) -> list[Algorithm]:
        if dtype not in self._algorithms:
            self._algorithms[dtype] = algorithms(self._lt, self._handle, dtype)
        return self._algorithms[dtype]


def aligned(sets: Sequence[Operands]) -> tuple[int, int, int]:
    """Bytes that every set's B, A and C (the library's A, B and C) are aligned to, 256 at most."""
    a, b, c = (gcd(WIDEST_ALIGNMENT, *column) for column in addresses(sets).T.tolist())
    return b, a, c


FAMILY = CublasLt()
