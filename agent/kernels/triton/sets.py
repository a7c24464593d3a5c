"""The configurations of a Triton kernel: a named set of one of ours, else its knobs' product."""

from __future__ import annotations

import itertools

from agent.kernels.triton.description import TritonKernel
from gemmcast.config import TRITON_KERNELS, KernelConfig
from gemmcast.gemm import Gemm
from gemmcast.triton_sets import configs


def all_configs(kernel: TritonKernel, set_name: str, arch: str, gemm: Gemm) -> list[KernelConfig]:
    """The set's configurations of one of ours; of another kernel every combination of its knobs.

    Raises:
        InputError: as `configs` does.
    """
    if kernel.name in TRITON_KERNELS:
        return configs(set_name, arch, kernel.name, gemm.dtype, gemm.layout)
    listed = kernel.description.listed_knobs
    combinations = []
    for values in itertools.product(*listed.values()):
        knobs = dict(zip(listed, values, strict=True))
        combinations.append(KernelConfig(family="triton", kernel=kernel.name, **knobs))
    return combinations
