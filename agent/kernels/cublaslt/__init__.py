"""cuBLASLt, algorithm by algorithm: its default, the rest of its heuristic's list, and all others.

The `kernel` of a configuration selects one:

    "" or "default"     the heuristic's first choice, what users of the library get today
    "heuristic-1" ...   its further choices
    "enumerated-0" ...  others that the library accepts, in a fixed order (candidates.py)
    "" with knobs       the first algorithm that has them

What it resolved to is in the facts. fp8 accumulates accurately and is unscaled (matrices.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import gcd
from types import ModuleType
from typing import Final, Protocol

import numpy as np

from agent.kernels import Prepared
from agent.kernels.cublaslt.attributes import failed
from agent.kernels.cublaslt.candidates import AlgorithmSpace
from agent.kernels.cublaslt.library import (
    WORKSPACE_BYTES,
    ConfiguredAlgorithm,
    Problem,
    capabilities,
)
from agent.kernels.cublaslt.matrices import ALONG_K, MATMUL_TYPES, Alignment
from agent.kernels.cublaslt.names import Capabilities, IdDecoder
from agent.operands import Operands, addresses
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

MAX_SPACES: Final = 16
"""Problems whose algorithms are kept: all configurations of a problem come in one run."""
WIDEST_ALIGNMENT: Final = 256
"""Bytes; what cudaMalloc gives, and all that the heuristic looks at."""


class DeviceMemory(Protocol):
    """What cupy.cuda.alloc returns."""

    ptr: int


@dataclass(frozen=True, slots=True)
class MatmulLaunch:
    """One call of the library per launch, its arguments ready as integers."""

    lt: ModuleType
    cuda: ModuleType
    calls: Sequence[tuple[int, ...]]
    """The arguments of cublasLtMatmul, without the stream."""
    kept_alive: tuple[object, ...]
    """What those integers point to."""

    def __call__(self, i: int) -> None:
        try:
            self.lt.matmul(*self.calls[i], self.cuda.get_current_stream().ptr)
        except self.lt.cuBLASLtError as error:
            raise failed(error, "cublasLtMatmul") from None


class CublasLt:
    """The library, with one handle and one workspace.

    Args:
        lt: in place of nvmath.bindings.cublasLt; for tests.
        cuda: in place of cupy.cuda; for tests.
    """

    def __init__(self, lt: ModuleType | None = None, cuda: ModuleType | None = None) -> None:
        self._given_lt = lt
        self._given_cuda = cuda
        self._spaces: OrderedDict[tuple[Gemm, Alignment], AlgorithmSpace] = OrderedDict()
        self._capabilities: dict[str, list[Capabilities]] = {}
        """By dtype."""

    @cached_property
    def _lt(self) -> ModuleType:
        if self._given_lt is not None:
            return self._given_lt
        try:
            from nvmath.bindings import cublasLt
        except (ImportError, RuntimeError) as error:
            reason = f"family cublaslt needs nvmath-python ({error}); install gemmcast[cuda13]"
            raise MeasurementError("unsupported", reason) from None
        library: ModuleType = cublasLt
        return library

    @cached_property
    def _cuda(self) -> ModuleType:
        if self._given_cuda is not None:
            return self._given_cuda
        import cupy

        cuda: ModuleType = cupy.cuda
        return cuda

    @cached_property
    def _handle(self) -> int:
        try:
            return int(self._lt.create())
        except self._lt.cuBLASLtError as error:
            raise failed(error, "cublasLtCreate") from None
        except RuntimeError as error:
            # nvmath raises it where there is no such library or no driver.
            reason = f"family cublaslt cannot load cuBLASLt: {error}"
            raise MeasurementError("unsupported", reason) from None

    @cached_property
    def _workspace(self) -> DeviceMemory:
        memory: DeviceMemory = self._cuda.alloc(WORKSPACE_BYTES)
        return memory

    @cached_property
    def _decoder(self) -> IdDecoder:
        lt = self._lt
        return IdDecoder(lt.MatmulTile, lt.MatmulStages, lt.ClusterShape)

    @cached_property
    def version(self) -> str:
        """Name and version, as `cublaslt 13.1.0`."""
        return f"cublaslt {version_text(int(self._lt.get_version()))}"

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Select the algorithm and build the calls."""
        _check_supported(gemm)
        space = self._space(gemm, aligned(sets))
        selected = space.select(config)
        launch = self._launch(gemm, space.problem, selected.configured, sets)
        facts: Row = {
            **space.knobs(selected),
            "kernel": selected.name,
            "library": self.version,
            "workspace_bytes": selected.configured.workspace_bytes,
        }
        return Prepared(launch, facts)

    def _launch(
        self,
        gemm: Gemm,
        problem: Problem,
        configured: ConfiguredAlgorithm,
        sets: Sequence[Operands],
    ) -> MatmulLaunch:
        scalars = np.array(
            [gemm.alpha, gemm.beta], np.int32 if gemm.dtype == "int8" else np.float32
        )
        alpha = scalars.ctypes.data
        beta = alpha + scalars.itemsize
        before = (self._handle, problem.operation, alpha)
        after = (configured.blob.ctypes.data, int(self._workspace.ptr), WORKSPACE_BYTES)
        calls = []
        for a, b, c in addresses(sets).tolist():
            # Operands are swapped: C^T = B^T·A^T.
            factors = (b, problem.a, a, problem.b)
            result = (c, problem.c, c, problem.c)
            calls.append((*before, *factors, beta, *result, *after))
        kept_alive = (problem, configured, scalars, self._workspace, sets)
        return MatmulLaunch(self._lt, self._cuda, calls, kept_alive)

    def default_config(self, gemm: Gemm) -> KernelConfig:
        """What cuBLAS launches for a problem in memory that CUDA allocated, for use in a query.

        Nothing is launched; it takes a millisecond. Without knobs where they are not known
        (`default_knobs`).
        """
        widest = (WIDEST_ALIGNMENT, WIDEST_ALIGNMENT, WIDEST_ALIGNMENT)
        knobs: Row = {**self.default_knobs(gemm, widest)}
        return KernelConfig(family="cublas", **knobs)

    def resolve(self, gemm: Gemm, config: KernelConfig) -> KernelConfig:
        """The configuration with its name and every knob that the library reveals, for a query.

        A model reads knobs, not names. As in `default_config`, nothing is launched.

        Raises:
            MeasurementError: "unsupported" where the library is not here or has no such algorithm.
        """
        space = self._space(gemm, (WIDEST_ALIGNMENT, WIDEST_ALIGNMENT, WIDEST_ALIGNMENT))
        selected = space.select(config)
        return KernelConfig(family="cublaslt", kernel=selected.name, **space.knobs(selected))

    def default_knobs(
        self, gemm: Gemm, alignment: Alignment, version: str | None = None
    ) -> dict[str, int]:
        """The knobs of what cuBLAS launches: it leaves the choice to this library's heuristic.

        Empty where they are not known: without this library, for a dtype or problem that the
        library does not have, or where cuBLAS is of another version.

        Args:
            alignment: of the operands (`aligned`).
            version: of cuBLAS, as "13.1.0"; None if it is this library's.
        """
        if gemm.dtype not in MATMUL_TYPES:
            return {}
        try:
            if version not in (None, self.version.split()[1]):
                return {}
            space = self._space(gemm, alignment)
            return space.knobs(space.select(KernelConfig(family="cublaslt")))
        except MeasurementError as error:
            if error.status != "unsupported":
                raise
            return {}

    def _space(self, gemm: Gemm, alignment: Alignment) -> AlgorithmSpace:
        """The problem's algorithms; those of the last MAX_SPACES problems are kept.

        The heuristic goes by the alignment of the operands, but not by alpha and beta.
        """
        gemm = replace(gemm, alpha=1.0, beta=0.0)
        key = (gemm, alignment)
        if key not in self._spaces:
            self._spaces[key] = AlgorithmSpace(
                Problem(self._lt, self._handle, gemm, alignment),
                self._decoder,
                partial(self._capabilities_of, gemm.dtype),
                f"{gemm} in {self.version}",
            )
        self._spaces.move_to_end(key)
        while len(self._spaces) > MAX_SPACES:
            self._spaces.popitem(last=False)
        return self._spaces[key]

    def _capabilities_of(self, dtype: str) -> list[Capabilities]:
        if dtype not in self._capabilities:
            self._capabilities[dtype] = capabilities(self._lt, self._handle, dtype)
        return self._capabilities[dtype]


def _check_supported(gemm: Gemm) -> None:
    if gemm.dtype in ALONG_K and gemm.layout != "nt":
        both = "sm_90 reads both operands along k"
        reason = f"cublaslt multiplies {gemm.dtype} in layout nt only ({both}), not {gemm.layout}"
        raise MeasurementError("unsupported", reason)
    is_whole = gemm.alpha.is_integer() and gemm.beta.is_integer()
    if gemm.dtype == "int8" and not is_whole:
        scalars = f"alpha = {gemm.alpha:g} and beta = {gemm.beta:g}"
        reason = f"cublaslt multiplies int8 by whole numbers only, not by {scalars}"
        raise MeasurementError("unsupported", reason)


def aligned(sets: Sequence[Operands]) -> Alignment:
    """Bytes that the operands of every set are aligned to, 256 at most."""
    a, b, c = (gcd(WIDEST_ALIGNMENT, *column) for column in addresses(sets).T.tolist())
    # The library's A is our B.
    return b, a, c


def version_text(number: int) -> str:
    """cuBLAS' version number as text: 130100 is 13.1.0."""
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


FAMILY = CublasLt()
