"""Triton kernels, compiled beforehand: `python -m agent.kernels.triton build --arch sm_90`.

`kernel` names one of ours (gemmcast.config.TRITON_KERNELS) or the TOML file of one in the project
(docs/triton.md). Here cubins are loaded and launched; Triton itself is needed only to build them.
A cubin takes the kernel's arguments and two pointers to scratch memory of Triton's runtime, which
no kernel that `build` accepts uses.

    description.py  the TOML file     fit.py       for one GEMM     sets.py   configurations
    compiler.py     Triton            build.py     the command      cubins.py what was compiled
    sources/        our kernels       scales.py    of scaled fp8    routing.py of experts
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.kernels import Prepared
from agent.kernels.described import PROJECT
from agent.kernels.triton.cubins import CubinFacts, Cubins, default_folder
from agent.kernels.triton.description import TritonKernel, read_triton
from agent.kernels.triton.fit import FittedKernel, fit
from gemmcast.config import KernelConfig
from gemmcast.errors import InputError, MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.rows import Row

if TYPE_CHECKING:
    import cupy

    from agent.kernels.triton.routing import Routing
    from agent.kernels.triton.scales import ScaleSets
    from agent.operands import Addresses, Operands

__all__ = ["FAMILY", "Triton", "read_triton"]

SCRATCH_POINTERS = 2
"""Of Triton 3: global and profile scratch, after the kernel's own arguments."""


class Triton:
    """The cubins of one folder.

    Args:
        folder: None for `default_folder()`.
        root: the project's folder, where kernels of others are described.
    """

    def __init__(self, folder: Path | None = None, root: Path = PROJECT) -> None:
        self._folder = folder
        self._root = root
        self._loaded: dict[str, tuple[cupy.RawKernel, Row]] = {}
        """By path of the cubin."""
        self._scaled: tuple[Gemm, int] | None = None
        self._scales: ScaleSets | None = None

    def prepare(self, gemm: Gemm, config: KernelConfig, sets: Sequence[Operands]) -> Prepared:
        """Fit the kernel to the GEMM and load its cubin."""
        import cupy

        from agent.kernels.launch import launcher
        from agent.kernels.triton.routing import Routing

        arch = f"sm_{cupy.cuda.Device().compute_capability}"
        kernel, fitted = self._fitted(gemm, config, arch)
        cubins = Cubins(self._folder or default_folder())
        built = cubins.compiled(fitted.compilation)
        loaded, facts = self._load(cubins.path(fitted.compilation), fitted, built)
        scales = self._scales_of(gemm, len(sets)) if kernel.description.is_scaled else None
        routing = None
        if kernel.description.is_grouped:
            routing = Routing(cupy, gemm, fitted.knobs["tile_m"])
        numbers = [ctypes.c_int(number) for number in fitted.numbers]
        scratch = [ctypes.c_longlong(0)] * SCRATCH_POINTERS
        launch = launcher(
            loaded,
            fitted.grid,
            (fitted.threads, 1, 1),
            _pointers(fitted, sets, scales, routing),
            (*numbers, *scratch),
            built.smem_bytes,
            (scales, routing),
        )
        columns: Row = {
            **facts,
            **fitted.knobs,
            "kernel": kernel.name,
            "library": f"triton {built.triton}, source {kernel.digest}",
            "split_k": 1,
        }
        columns["workspace_bytes"] = sum(one.bytes for one in (scales, routing) if one is not None)
        return Prepared(launch, columns, scales.first if scales is not None else None)

    def _fitted(
        self, gemm: Gemm, config: KernelConfig, arch: str
    ) -> tuple[TritonKernel, FittedKernel]:
        try:
            kernel = read_triton(config.kernel, self._root)
            return kernel, fit(kernel, gemm, config, arch)
        except InputError as error:
            raise MeasurementError("unsupported", f"{config.kernel}: {error}") from None

    def _load(
        self, cubin: Path, fitted: FittedKernel, built: CubinFacts
    ) -> tuple[cupy.RawKernel, Row]:
        """The function and its columns; each cubin is loaded once."""
        key = f"{cubin} {built.triton}"
        if key not in self._loaded:
            self._loaded[key] = _loaded(cubin, fitted, built)
        return self._loaded[key]

    def _scales_of(self, gemm: Gemm, sets: int) -> ScaleSets:
        """Those of the last problem where it is the same: cells of one problem share them."""
        import cupy

        from agent.kernels.triton.scales import ScaleSets

        if self._scales is None or self._scaled != (gemm, sets):
            # The old ones' memory is free before there are new ones.
            self._scales = None
            self._scales = ScaleSets(cupy, gemm, sets)
            self._scaled = (gemm, sets)
        return self._scales


def _loaded(cubin: Path, fitted: FittedKernel, built: CubinFacts) -> tuple[cupy.RawKernel, Row]:
    import cupy

    from agent.kernels.launch import check_resources, kernel_facts

    name = str(fitted.compilation)
    try:
        kernel = cupy.RawModule(path=str(cubin)).get_function(built.entry)
    except cupy.cuda.driver.CUDADriverError as error:
        raise MeasurementError("cuda_error", f"{name} does not load: {error}") from None
    check_resources(kernel, name, fitted.threads, built.smem_bytes)
    if built.smem_bytes:
        kernel.max_dynamic_shared_size_bytes = built.smem_bytes
    return kernel, kernel_facts(kernel, fitted.threads, built.smem_bytes)


def _pointers(
    fitted: FittedKernel,
    sets: Sequence[Operands],
    scales: ScaleSets | None,
    routing: Routing | None = None,
) -> Addresses:
    """uint64[sets, pointers] in the order of the kernel's arguments."""
    import numpy as np

    from agent.operands import address_of, addresses

    columns = dict(zip("abc", addresses(sets).T, strict=True))
    if scales is not None:
        for name, array in (("a_scales", scales.a), ("b_scales", scales.b)):
            index = np.arange(len(sets), dtype=np.uint64)
            columns[name] = np.uint64(address_of(array)) + index * np.uint64(array[0].nbytes)
    if routing is not None:
        # One routing for all sets: it is small, and depends on no operand.
        for name, array in vars(routing).items():
            columns[name] = np.full(len(sets), address_of(array), np.uint64)
    return np.stack([columns[name] for name in fitted.pointers], axis=1)


FAMILY = Triton()
