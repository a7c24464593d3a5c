"""The configurations that can run a GEMM on a device, made by the kernel families themselves.

    candidates(gemm, device, ["triton", "cublas"])   what a tuner or a ranking chooses from
    default_config("triton", gemm, device)           what one gets without tuning
    refusal("triton", gemm, device)                  why a family has no candidate

Only what can run that problem there: dtype, layout, alignment, shared memory, clusters, slices.
`custom` and Triton kernels of a project have descriptions that only agents read, so nothing is made
of them. What each family makes is in gemmcast/candidate_makers.py. Does not know a model, nor which
kernels are built on a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from gemmcast.candidate_makers import MAKERS, architecture
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.cutlass.sets import SMEM_KIB
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.feasible import capability
from gemmcast.gemm import Gemm
from gemmcast.kernel_names import library_name
from gemmcast.triton_sets import is_default

SINCE: Final = {"tf32": 80, "bf16": 80, "fp8_e4m3": 89}
"""dtype -> the first compute capability that multiplies it, ten times (CUDA C++ Programming Guide,
"Compute Capabilities"); others run everywhere."""
BUILT: Final = ("cutlass", "triton")
"""Families whose kernels are built for one architecture."""


class NamedFamily(NamedTuple):
    """A family, or one kernel of it: `triton:scaled_block`."""

    family: str
    """One of FAMILIES."""
    kernel: str
    """Empty: those that compute the plain product, in any way."""

    def __str__(self) -> str:
        return f"{self.family}:{self.kernel}" if self.kernel else self.family


def candidates(
    gemm: Gemm, device: Device, families: Sequence[str] | None = None
) -> list[KernelConfig]:
    """Every configuration that can run the GEMM on the device, the families one after the other.

    The default of a family is its first. A family that cannot run the problem has none; `refusal`
    says why.

    Args:
        gemm: the problem.
        device: where it runs.
        families: FAMILY or FAMILY:KERNEL, such as `triton:grouped`; None for all of the device's
            kind. `triton` alone is its kernel `matmul`, because the others compute something else.

    Raises:
        InputError: an unknown family or kernel, or one that runs on another kind of device.
    """
    chosen: list[KernelConfig] = []
    for named in named_families(device, families):
        if _refusal(named, gemm, device) is None:
            chosen += MAKERS[named.family].configs(named.kernel, gemm, device)
    return chosen


class Predictable(NamedTuple):
    """What a model may choose from."""

    configs: Sequence[KernelConfig]
    default: KernelConfig
    """What one gets without tuning: of a library before that of an engine."""


def predictable(gemm: Gemm, device: Device, families: Sequence[str] | None = None) -> Predictable:
    """The candidates that a model can tell apart: of cuBLASLt only the library's choice.

    Which kernels the rest of its list are, the library alone says, on a node with the GPU.

    Raises:
        InputError: there is none, with every family's reason; or what `candidates` raises.
    """
    made: dict[str, Sequence[KernelConfig]] = {}
    reasons: list[str] = []
    for named in named_families(device, families):
        reason = _refusal(named, gemm, device)
        if reason is not None:
            reasons.append(reason)
            continue
        configs = MAKERS[named.family].configs(named.kernel, gemm, device)
        made[str(named)] = configs[:1] if named.family == "cublaslt" else configs
    if not made:
        rule = f"no family can run it on {device.name}: {'; '.join(reasons)}"
        raise InputError("gemm", str(gemm), rule, "name other families")
    first = min(made, key=_libraries_first)
    chosen = [config for configs in made.values() for config in configs]
    return Predictable(chosen, default=made[first][0])


def _libraries_first(written: str) -> int:
    """Place of FAMILY or FAMILY:KERNEL among the makers."""
    return list(MAKERS).index(written.partition(":")[0])


def default_among(configs: Sequence[KernelConfig]) -> int | None:
    """Place of what one gets without tuning: of a library's choice before an engine's.

    None where the list has neither.
    """
    library, engine = None, None
    for place, config in enumerate(configs):
        if config.family == "cublas":
            return place
        if config.family == "cublaslt" and library is None:
            library = place if library_name(config.kernel) == library_name("") else None
        elif config.family == "triton" and engine is None and is_default(config):
            engine = place
    return engine if library is None else library


def default_config(family: str, gemm: Gemm, device: Device, kernel: str = "") -> KernelConfig:
    """What a user of the library or of the engine gets without tuning: a candidate like others.

    Args:
        family: FAMILY or FAMILY:KERNEL.
        gemm: the problem.
        device: where it runs.
        kernel: which kernel of the family; empty for its first.

    Raises:
        InputError: the family cannot run the GEMM there; or what `candidates` raises.
    """
    written = f"{family}:{kernel}" if kernel else family
    (named,) = named_families(device, [written])
    reason = _refusal(named, gemm, device)
    if reason is not None:
        raise InputError("family", written, f"{reason} ({gemm})", "name another family")
    return MAKERS[named.family].configs(named.kernel, gemm, device)[0]


def refusal(family: str, gemm: Gemm, device: Device) -> str | None:
    """Why a family, or FAMILY:KERNEL, has no candidate for the GEMM; None where it has some.

    Raises:
        InputError: as `candidates` does.
    """
    (named,) = named_families(device, [family])
    return _refusal(named, gemm, device)


def named_families(device: Device, families: Sequence[str] | None = None) -> list[NamedFamily]:
    """The families of a list, each once; of None all that make candidates for such a device.

    Raises:
        InputError: as `candidates` does.
    """
    if families is None:
        own_kind = (name for name in MAKERS if FAMILIES[name].device_kind == device.kind)
        return [NamedFamily(name, "") for name in own_kind]
    if not families:
        raise InputError("families", families, "names no family", "leave it out for all")
    return [_named(text, device) for text in dict.fromkeys(families)]


def _named(text: str, device: Device) -> NamedFamily:
    family, _, kernel = text.partition(":")
    if family not in FAMILIES:
        way_out = f"use one of {', '.join(MAKERS)}"
        raise InputError("families", text, "unknown kernel family", way_out)
    if family not in MAKERS:
        rule = "its kernels are described in a project, so nothing is made of them"
        raise InputError("families", text, rule, "name the configurations")
    runs_on = FAMILIES[family].device_kind
    if runs_on != device.kind:
        rule = f"this family runs on {runs_on}, {device.name} is of kind {device.kind}"
        raise InputError("families", text, rule, "name another family or another device")
    kernels = MAKERS[family].kernels
    if kernel and kernel not in kernels:
        listed = ", ".join(f"{family}:{name}" for name in kernels)
        raise InputError("families", text, "no such kernel", f"use {listed or family}")
    return NamedFamily(family, kernel)


def _refusal(named: NamedFamily, gemm: Gemm, device: Device) -> str | None:
    family = named.family
    if gemm.dtype not in FAMILIES[family].dtypes:
        return f"family {family} has no {gemm.dtype}"
    if device.kind == "cuda" and capability(device.arch) < SINCE.get(gemm.dtype, 0):
        return f"{device.arch} does not multiply {gemm.dtype}"
    if family in BUILT and architecture(device) not in SMEM_KIB:
        arch = device.arch or "unknown"
        return f"{family} is not built for the architecture of {device.name}: {arch}"
    return MAKERS[family].refusal(named.kernel, gemm, device)
