"""Configurations that no device of a kind can run, whoever asks: agent, importer or predictor.

    threads of a block          at most 1,024
    tile                        its accumulators fit into the registers of an SM: 65,536 of 32 bits
    stages x tiles of A and B   fit into the shared memory that a block may use
    cluster                     at most 16 blocks, sm_90 and newer
    split_k                     of CUTLASS: no slice without a step along k

and a named CUTLASS kernel needs its alignment, with wgmma sm_90, and stream-k to split k; cuBLASLt
reads operands of 8 bits along k, in whole pieces. A knob that is 0 is unknown and breaks no rule.
What is not built or was never recorded is another matter: the agent says the one, `extrapolating`
the other. Limits: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
Every row of the datasets keeps them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gemmcast import triton_sets
from gemmcast.config import FAMILIES, TRITON_KERNELS, KernelConfig
from gemmcast.cutlass.kernel import OUT_BYTES, TENSOR_ALIGNMENT_BYTES, CutlassKernel
from gemmcast.cutlass.sets import HOPPER, SMEM_KIB
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import DTYPES, Gemm
from gemmcast.kernel_names import contradiction, resolved

MAX_THREADS: Final = 1024
"""Of one thread block."""
ACCUMULATORS: Final = 2**16
"""Registers of an SM, or columns times lanes of its tensor memory; each holds one element of C."""
MAX_CLUSTER: Final = 16
"""Thread blocks; more than 8 need a special attribute of the kernel."""
STREAM_K: Final = "streamk"
CLUSTERS_SINCE: Final = 90
"""Compute capability, ten times."""
NEWEST: Final = 1000
"""In place of an unknown compute capability."""
MAX_GRID_YZ: Final = 65535
"""CUDA's limit of thread blocks along y and along z of a grid."""
MOST_SMEM_KIB: Final = max(SMEM_KIB.values())
"""Of an architecture that is not in the table."""
LT_MULTIPLES: Final = {"fp8_e4m3": 16, "int8": 4}
"""dtype -> what n and k are multiples of, of the dtypes that cuBLASLt reads along k
(docs.nvidia.com/cuda/cublas, cublasLtMatmul)."""
CORRECT_IT: Final = "correct the configuration, or leave it out"


class Limits(NamedTuple):
    """All of a problem that `impossible` looks at."""

    dtype: str
    layout: str
    k: int
    lda: int
    """Leading dimension of A over the widest alignment: what is left. [elements]"""
    ldb: int
    ldc: int


def check_family(config: KernelConfig, device: Device) -> None:
    """Refuse a family that runs on another kind of device.

    Raises:
        InputError: it names the family.
    """
    runs_on = FAMILIES[config.family].device_kind
    if runs_on != device.kind:
        rule = f"this family runs on {runs_on}, {device.name} is of kind {device.kind}"
        raise InputError("family", config.family, rule, "name another family or another device")


def check_knobs(gemm: Gemm, config: KernelConfig, arch: str | None) -> None:
    """Refuse what `impossible` has a reason for.

    Raises:
        InputError: it names the configuration and the limit.
    """
    reason = impossible(gemm, config, arch)
    if reason is not None:
        raise InputError("config", str(config), reason, CORRECT_IT)


def impossible(gemm: Gemm, config: KernelConfig, arch: str | None) -> str | None:
    """Why no GPU of the architecture (None: of any) can run it; None where one may."""
    if FAMILIES[config.family].device_kind != "cuda":
        return None
    reason = _beyond_an_sm(gemm, config, arch)
    if reason is None and config.family == "cutlass":
        reason = contradiction(gemm, config)
        reason = reason or _not_for_cutlass(gemm, resolved(gemm, config), arch)
    if reason is None and config.family == "cublaslt":
        reason = not_for_cublaslt(gemm)
    return reason


def not_for_cublaslt(gemm: Gemm) -> str | None:
    """Why cuBLASLt does not multiply it, of the dtypes with 8 bits; None where it does."""
    multiple = LT_MULTIPLES.get(gemm.dtype)
    if multiple is None:
        return None
    if gemm.layout != "nt":
        return f"cublaslt multiplies {gemm.dtype} in layout nt only, not {gemm.layout}"
    return no_multiple(gemm, multiple, f"cublaslt in {gemm.dtype}")


def no_multiple(gemm: Gemm, multiple: int, kernel: str) -> str | None:
    """Which of n and k is no multiple; None where both are."""
    for name, size in (("n", gemm.n), ("k", gemm.k)):
        if size % multiple:
            return f"{kernel} needs a multiple of {multiple} as {name}, not {size}"
    return None


def limits_of(gemm: Gemm) -> Limits:
    """Problems with the same ones have the same impossible configurations."""
    lda, ldb, ldc = leading_dimensions(gemm)
    whole = TENSOR_ALIGNMENT_BYTES
    return Limits(gemm.dtype, gemm.layout, gemm.k, lda % whole, ldb % whole, ldc % whole)


def leading_dimensions(gemm: Gemm) -> tuple[int, int, int]:
    """Of A, B and C as they are stored."""
    lda = gemm.m if gemm.layout[0] == "t" else gemm.k
    ldb = gemm.k if gemm.layout[1] == "t" else gemm.n
    return lda, ldb, gemm.n


def _beyond_an_sm(gemm: Gemm, config: KernelConfig, arch: str | None) -> str | None:
    threads = config.block_threads
    if threads > MAX_THREADS:
        return f"a thread block has at most {MAX_THREADS} threads, not {threads}"
    if _is_described(config):
        return None
    tile = config.tile_m * config.tile_n
    if tile > ACCUMULATORS:
        return f"a tile of {config.tile_m}x{config.tile_n} is over the {ACCUMULATORS} registers"
    blocks = config.cluster_m * config.cluster_n
    if blocks > MAX_CLUSTER:
        return f"a cluster has at most {MAX_CLUSTER} thread blocks, not {blocks}"
    if blocks > 1 and capability(arch) < CLUSTERS_SINCE:
        return f"{arch} has no clusters"
    limit_kib = SMEM_KIB.get(arch or HOPPER, MOST_SMEM_KIB)
    needed_kib = _smem_bytes(gemm.dtype, config) / 1024
    if needed_kib > limit_kib:
        return f"its stages need {needed_kib:,.0f} KiB of shared memory, a block has {limit_kib}"
    return None


def _is_described(config: KernelConfig) -> bool:
    """Whether what the other knobs mean is written in the kernel's source alone."""
    if config.family == "triton":
        return config.kernel not in ("", *TRITON_KERNELS)
    return config.family == "custom"


def _smem_bytes(dtype: str, config: KernelConfig) -> int:
    """Shared memory of one block, at least: the tiles of all stages."""
    if config.family == "triton":
        return triton_sets.smem_bytes(config, dtype)
    elements = (config.tile_m + config.tile_n) * config.tile_k
    return config.stages * elements * DTYPES[dtype].in_bytes


def _not_for_cutlass(gemm: Gemm, config: KernelConfig, arch: str | None) -> str | None:
    if config.split_k > 1 and config.tile_k:
        steps = -(-gemm.k // config.tile_k)
        if config.split_k > steps:
            return f"k = {gemm.k} has {steps} steps of {config.tile_k}, fewer than slices"
    kernel = CutlassKernel.parse(config.kernel) if config.kernel else None
    if kernel is None:
        return None
    if kernel.schedule and arch and not arch.startswith(HOPPER):
        return f"it needs wgmma, which {arch} does not have"
    if kernel.schedule not in ("", STREAM_K) and config.split_k > 1:
        return f"of wgmma kernels only those with the schedule {STREAM_K} split k"
    if kernel.simt:
        return None
    lda, ldb, ldc = leading_dimensions(gemm)
    of_c = TENSOR_ALIGNMENT_BYTES // OUT_BYTES[kernel.dtype]
    for name, leading, alignment in (
        ("A", lda, kernel.alignment),
        ("B", ldb, kernel.alignment),
        ("C", ldc, of_c),
    ):
        if leading % alignment:
            return f"rows of {name} have {leading} elements, no multiple of {alignment}"
    return None


def capability(arch: str | None) -> int:
    """Ten times the compute capability, of `sm_90a` 90; NEWEST where it is unknown."""
    digits = (arch or "").removeprefix("sm_").rstrip("af")
    return int(digits) if digits.isdecimal() else NEWEST
