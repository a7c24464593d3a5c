"""What each kernel family makes of a problem: its configurations, or a reason why it has none.

    tiled      its six tiles
    cublas     the library's choice
    cublaslt   the library's choice, and the rest of its heuristic's list by place
    cutlass    the kernels of every set of the architecture, each with every number of slices of k
    triton     the set `usual` of one kernel
    blas       NumPy's BLAS and the blocked loop over it, with all cores or fewer

The default comes first. What depends on dtype, layout and architecture alone is made once. Limits
of a configuration are in gemmcast/feasible.py; here are those of a whole family.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

from gemmcast import triton_sets
from gemmcast.config import TRITON_KERNELS, KernelConfig
from gemmcast.cutlass import sets as cutlass_sets
from gemmcast.cutlass.kernel import CutlassKernel
from gemmcast.cutlass.sets import HOPPER
from gemmcast.device import Device
from gemmcast.feasible import (
    MAX_GRID_YZ,
    STREAM_K,
    capability,
    impossible,
    no_multiple,
    not_for_cublaslt,
)
from gemmcast.gemm import Gemm

TILES: Final = (16, 1, 2, 4, 8, 32)
"""Of the tiled kernel; the first is that of the CUDA C++ Programming Guide."""
HEURISTIC_ALGORITHMS: Final = 8
"""Algorithms that the heuristic of cuBLASLt returns at most, its default among them."""
SLICES: Final = (2, 4, 8, 16)
"""Of k, where a CUTLASS kernel splits it."""
BLOCKED_TILES: Final = (64, 128, 256)
"""Of the blocked loop over a CPU's BLAS."""
TRITON_SET: Final = "usual"
DEFAULT_CUTLASS_TILE: Final = (128, 128)
"""What CUTLASS' examples start from: of the kernels with it the first is the default."""
TRITON_MULTIPLE: Final = 16
"""n and k of a Triton kernel are multiples of it."""
TENSOR_CORES_SINCE: Final = 80
"""Compute capability, ten times, of the set `default`."""

Configs = tuple[KernelConfig, ...]


def architecture(device: Device) -> str:
    """`sm_90` of `sm_90a`; empty where it is unknown."""
    return (device.arch or "").rstrip("af")


def _tiled(_kernel: str, gemm: Gemm, _device: Device) -> Configs:
    fitting = (tile for tile in TILES if -(-gemm.m // tile) <= MAX_GRID_YZ)
    return tuple(_tiled_config(tile) for tile in fitting)


@lru_cache
def _tiled_config(tile: int) -> KernelConfig:
    return KernelConfig(family="tiled", tile_m=tile, tile_n=tile, tile_k=tile)


def _tiled_refusal(_kernel: str, gemm: Gemm, device: Device) -> str | None:
    if gemm.layout != "nn":
        return f"tiled reads row-major operands (nn), not {gemm.layout}"
    if gemm.batch > MAX_GRID_YZ or not _tiled("", gemm, device):
        return f"its grid is over CUDA's limit of {MAX_GRID_YZ} blocks in y and z"
    return None


def _cublas(_kernel: str, _gemm: Gemm, _device: Device) -> Configs:
    return _library("cublas", ("",))


def _cublaslt(_kernel: str, _gemm: Gemm, _device: Device) -> Configs:
    further = (f"heuristic-{place}" for place in range(1, HEURISTIC_ALGORITHMS))
    return _library("cublaslt", ("default", *further))


@lru_cache
def _library(family: str, names: tuple[str, ...]) -> Configs:
    return tuple(KernelConfig(family=family, kernel=name) for name in names)


def _cublaslt_refusal(_kernel: str, gemm: Gemm, _device: Device) -> str | None:
    reason = not_for_cublaslt(gemm)
    is_whole = gemm.alpha.is_integer() and gemm.beta.is_integer()
    if reason is None and gemm.dtype == "int8" and not is_whole:
        return "cublaslt multiplies int8 by whole numbers only"
    return reason


class CutlassConfigs(NamedTuple):
    """The kernels of one dtype and layout, with every number of slices."""

    configs: Configs
    whole_from_k: int
    """From this k on every kernel has a step along k for each of its slices. [elements]"""


def _cutlass(_kernel: str, gemm: Gemm, device: Device) -> Configs:
    made = _cutlass_configs(architecture(device), gemm.dtype, gemm.layout)
    if gemm.k >= made.whole_from_k:
        return made.configs
    return tuple(config for config in made.configs if config.split_k <= _steps(gemm, config))


@lru_cache
def _cutlass_configs(arch: str, dtype: str, layout: str) -> CutlassConfigs:
    kernels: dict[CutlassKernel, None] = {}
    for name in _sets_of(arch):
        kernels |= dict.fromkeys(cutlass_sets.kernels(name, arch))
    own = [kernel for kernel in kernels if (kernel.dtype, kernel.layout) == (dtype, layout)]
    own.sort(key=_default_first)
    configs = tuple(itertools.chain.from_iterable(map(_with_slices, own)))
    whole_from_k = max((config.split_k * config.tile_k for config in configs), default=0)
    return CutlassConfigs(configs, whole_from_k)


def _sets_of(arch: str) -> Sequence[str]:
    """Those that the architecture can run; `wide` contains `default`."""
    if arch == HOPPER:
        return "wide", "between", "paper"
    return ("default", "paper") if capability(arch) >= TENSOR_CORES_SINCE else ("paper",)


def _default_first(kernel: CutlassKernel) -> tuple[bool, bool]:
    """Sorts by: the usual tile with wgmma, the usual tile, others."""
    is_usual = kernel.tile[:2] == DEFAULT_CUTLASS_TILE
    return not (is_usual and kernel.schedule), not is_usual


def _with_slices(kernel: CutlassKernel) -> Iterator[KernelConfig]:
    """The kernel by itself, and with each number of slices if it splits k."""
    yield kernel.config
    if kernel.schedule in ("", STREAM_K):
        for slices in SLICES:
            yield replace(kernel.config, split_k=slices)


def _steps(gemm: Gemm, config: KernelConfig) -> int:
    """Steps of a kernel along k."""
    return -(-gemm.k // config.tile_k)


def _cutlass_refusal(_kernel: str, gemm: Gemm, device: Device) -> str | None:
    if gemm.batch > 1:
        return f"cutlass multiplies one matrix at a time, not {gemm.batch}"
    configs = _cutlass_configs(architecture(device), gemm.dtype, gemm.layout).configs
    if not configs:
        return f"no set of cutlass has {gemm.dtype} {gemm.layout} for {device.arch}"
    # The kernels of one dtype need one alignment.
    return impossible(gemm, configs[0], device.arch)


def _triton(kernel: str, gemm: Gemm, device: Device) -> Configs:
    name = kernel or TRITON_KERNELS[0]
    return _triton_configs(architecture(device), name, gemm.dtype, gemm.layout)


@lru_cache
def _triton_configs(arch: str, kernel: str, dtype: str, layout: str) -> Configs:
    return tuple(triton_sets.configs(TRITON_SET, arch, kernel, dtype, layout))


def _triton_refusal(kernel: str, gemm: Gemm, device: Device) -> str | None:
    name = kernel or TRITON_KERNELS[0]
    if (gemm.alpha, gemm.beta) != (1.0, 0.0):
        return f"{name} computes A·B, without alpha = {gemm.alpha:g} and beta = {gemm.beta:g}"
    if not _triton(kernel, gemm, device):
        return f"{name} has no {gemm.dtype} {gemm.layout} for {device.arch}"
    if name == "scaled_block" and gemm.batch > 1:
        return f"{name} multiplies one matrix at a time, not {gemm.batch}"
    if name == "matmul" and gemm.batch > MAX_GRID_YZ:
        return f"{name} multiplies at most {MAX_GRID_YZ} matrices, not {gemm.batch}"
    return no_multiple(gemm, TRITON_MULTIPLE, name)


def _blas(kernel: str, gemm: Gemm, device: Device) -> Configs:
    configs = _blas_configs(device.compute_units)
    if not kernel and gemm.batch == 1:
        return configs
    wanted = kernel or "numpy"
    return tuple(config for config in configs if config.kernel == wanted)


@lru_cache
def _blas_configs(cores: int) -> Configs:
    """With all cores, then with powers of two below; the blocked loop after NumPy's own."""
    threads = [cores, *(2**power for power in range((cores - 1).bit_length()))]
    configs = [KernelConfig(family="blas", kernel="numpy", cpu_threads=count) for count in threads]
    for tile, count in itertools.product(BLOCKED_TILES, threads):
        tiles = {"tile_m": tile, "tile_n": tile, "tile_k": tile}
        configs.append(KernelConfig(family="blas", kernel="blocked", cpu_threads=count, **tiles))
    return tuple(configs)


def _blas_refusal(kernel: str, gemm: Gemm, _device: Device) -> str | None:
    if (gemm.alpha, gemm.beta) != (1.0, 0.0):
        return f"NumPy computes A·B, without alpha = {gemm.alpha:g} and beta = {gemm.beta:g}"
    if kernel == "blocked" and gemm.batch > 1:
        return "the blocked loop has no batch"
    return None


def _no_refusal(_kernel: str, _gemm: Gemm, _device: Device) -> str | None:
    return None


class Maker(NamedTuple):
    """One family. Both functions take a kernel (or ""), the problem and the device."""

    configs: Callable[[str, Gemm, Device], Configs]
    """The configurations, of a problem that the family can run."""
    refusal: Callable[[str, Gemm, Device], str | None]
    """Why the family cannot run it; None where it can."""
    kernels: tuple[str, ...] = ()
    """Those that can be named."""


MAKERS: Final = {
    "cublas": Maker(_cublas, _no_refusal),
    "cublaslt": Maker(_cublaslt, _cublaslt_refusal),
    "cutlass": Maker(_cutlass, _cutlass_refusal),
    "triton": Maker(_triton, _triton_refusal, TRITON_KERNELS),
    "tiled": Maker(_tiled, _tiled_refusal),
    "blas": Maker(_blas, _blas_refusal, ("numpy", "blocked")),
}
"""Family -> what it makes. Libraries come before their rivals."""
