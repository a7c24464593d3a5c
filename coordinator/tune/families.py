"""Which kernel families compute what a line of the list means.

A line of a plain GEMM can be computed by any family. One of a mixture of experts, or with block
scales, names its Triton kernel: no other family computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gemmcast import triton_sets
from gemmcast.candidate_makers import architecture
from gemmcast.candidates import candidates, named_families, refusal
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm_list import ListedGemm

TRITON = "triton"


def parse_families(text: str | None) -> list[str] | None:
    """`triton:scaled_block,cublaslt` as a list; None stays None: all that can.

    Raises:
        InputError: an unknown family, or none.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word.partition(":")[0] not in FAMILIES:
            way_out = f"use some of {', '.join(FAMILIES)}, separated by commas"
            raise InputError("--families", word, "unknown kernel family", way_out)
    if not words:
        raise InputError("--families", text, "names no family", "leave it out for all")
    return words


def families_of(
    listed: ListedGemm, families: Sequence[str] | None, device: Device
) -> tuple[list[str], str]:
    """The families that compute a line on a device, and without any the reason.

    Args:
        families: those of the command line; None: all.

    Raises:
        InputError: a family has no such kernel.
    """
    named = named_families(device, _of_kind(families, device))
    if listed.kernel:
        able = [one for one in named if one.family == TRITON and one.kernel in ("", listed.kernel)]
        kernel = f"{TRITON}:{listed.kernel}"
        if able:
            return [kernel], ""
        return [], f"only {kernel} computes it, which --families leaves out or {device.kind} lacks"
    return [str(one) for one in named], ""


def runnable(
    listed: ListedGemm,
    families: Sequence[str] | None,
    device: Device,
    kernel_set: str | None = None,
) -> tuple[list[KernelConfig], str]:
    """Every configuration that computes a line there, the default first; else the reason.

    Args:
        kernel_set: of Triton's configurations only those of this set, which is what was built.

    Raises:
        InputError: as `families_of`.
    """
    able, reason = families_of(listed, families, device)
    if reason:
        return [], reason
    configs = candidates(listed.gemm, device, able)
    if configs:
        return [one for one in configs if _is_in(kernel_set, one, listed, device)], ""
    reasons = [refusal(family, listed.gemm, device) for family in able]
    return [], "; ".join(reason for reason in reasons if reason) or "no kernel computes it"


def _is_in(
    kernel_set: str | None, config: KernelConfig, listed: ListedGemm, device: Device
) -> bool:
    if kernel_set is None or config.family != TRITON:
        return True
    gemm = listed.gemm
    return config in _set(kernel_set, architecture(device), config.kernel, gemm.dtype, gemm.layout)


@lru_cache
def _set(name: str, arch: str, kernel: str, dtype: str, layout: str) -> frozenset[KernelConfig]:
    return frozenset(triton_sets.configs(name, arch, kernel, dtype, layout))


def _of_kind(families: Sequence[str] | None, device: Device) -> Sequence[str] | None:
    """Those that run on this kind of device; all as they are, if none does: that is refused."""
    if families is None:
        return None
    kinds = {word: FAMILIES[word.partition(":")[0]].device_kind for word in families}
    return [word for word in families if kinds[word] == device.kind] or families
