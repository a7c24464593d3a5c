"""The configurations of each family as the page of questions needs them: rows, and when they fit.

    families_on(device, dtypes)  ->  `bf16 nt` -> FAMILY or FAMILY:KERNEL -> its configurations

A browser has none of gemmcast's rules. So what each family makes is written out here once, and
which problems it refuses comes from trials: the smallest multiple of m, n and k, and the largest
batch, that gemmcast.candidates accepts. Does not know a page, nor what a model answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from gemmcast import query
from gemmcast.candidate_makers import MAKERS
from gemmcast.candidates import candidates, refusal
from gemmcast.config import FAMILIES, KernelConfig
from gemmcast.device import Device
from gemmcast.feasible import MAX_GRID_YZ
from gemmcast.gemm import LAYOUTS, MAX_DIM, Gemm

Json = dict[str, Any]
SIZE: Final = 4096
"""Of a problem that every family accepts, if it has the dtype and layout. [elements]"""
DEEP: Final = 2**20
"""A k that every number of slices divides. [elements]"""
MULTIPLES: Final = (1, 2, 4, 8, 16, 32)
BATCHES: Final = (MAX_DIM, MAX_GRID_YZ, 1)
UNLIMITED: Final = MAX_DIM


def families_on(device: Device, dtypes: Iterable[str]) -> dict[str, dict[str, Json]]:
    """`DTYPE LAYOUT` -> family -> its configurations and limits.

    Args:
        device: one with a measured peak at every dtype.
        dtypes: some of gemmcast.gemm.DTYPES.
    """
    tables: dict[str, dict[str, Json]] = {}
    for dtype in dtypes:
        for layout in LAYOUTS:
            groups = dict(_groups(device, dtype, layout))
            if groups:
                tables[f"{dtype} {layout}"] = groups
    return tables


def kernel_row(config: KernelConfig, gemm: Gemm, device: Device) -> list[float]:
    """One configuration as the numbers of KernelColumns, unknown tiles as 0."""
    return _kernel_rows([config], gemm, device)[0]


def _groups(device: Device, dtype: str, layout: str) -> Iterator[tuple[str, Json]]:
    gemm = Gemm(m=SIZE, n=SIZE, k=DEEP, dtype=dtype, layout=layout)
    for family in _families(device):
        of_plain = FAMILIES[family.partition(":")[0]]
        if dtype in of_plain.dtypes and refusal(family, gemm, device) is None:
            yield family, _group(family, gemm, device)


def _families(device: Device) -> Iterator[str]:
    """FAMILY, which is its first kernel, then each of its other kernels by name."""
    for family, maker in MAKERS.items():
        if FAMILIES[family].device_kind != device.kind:
            continue
        yield family
        for kernel in maker.kernels[1:]:
            yield f"{family}:{kernel}"


def _group(family: str, gemm: Gemm, device: Device) -> Json:
    configs = candidates(gemm, device, [family])
    if family == "cublaslt":
        # What the rest of its list means, the library alone says
        configs = configs[:1]
    return {
        "multiples": {name: _multiple(family, gemm, device, name) for name in ("m", "n", "k")},
        "max_batch": _max_batch(family, gemm, device),
        "with_beta": refusal(family, _changed(gemm, beta=1.0), device) is None,
        "names": [_name(config) for config in configs],
        "min_k": [_min_k(config) for config in configs],
        "max_m": [_max_m(config) for config in configs],
        "rows": _kernel_rows(configs, gemm, device),
    }


def _multiple(family: str, gemm: Gemm, device: Device, size: str) -> int:
    """The smallest power of two that the family takes this size a multiple of."""
    for multiple in MULTIPLES:
        tried = _changed(gemm, **{size: getattr(gemm, size) + multiple})
        if refusal(family, tried, device) is None:
            return multiple
    raise AssertionError(f"{family} takes no {size} of {gemm}")


def _max_batch(family: str, gemm: Gemm, device: Device) -> int:
    fitting = (batch for batch in BATCHES if _accepts_batch(family, gemm, device, batch))
    return next(fitting)


def _accepts_batch(family: str, gemm: Gemm, device: Device, batch: int) -> bool:
    return refusal(family, _changed(gemm, batch=batch), device) is None


def _changed(gemm: Gemm, **changes: Any) -> Gemm:
    # dataclasses.replace loses the types of the changes, too
    fields = {"m": gemm.m, "n": gemm.n, "k": gemm.k, "dtype": gemm.dtype, "layout": gemm.layout}
    return Gemm(**{**fields, **changes})


def _name(config: KernelConfig) -> str:
    """What `--config` reads as this configuration: a CUTLASS name says its other knobs."""
    if config.family != "cutlass":
        return str(config)
    named = KernelConfig(family="cutlass", kernel=config.kernel, split_k=config.split_k)
    return str(named)


def _min_k(config: KernelConfig) -> int:
    """From this k on, a CUTLASS kernel has a step for each of its slices. [elements]"""
    if config.family != "cutlass" or config.split_k < 2:
        return 1
    return (config.split_k - 1) * config.tile_k + 1


def _max_m(config: KernelConfig) -> int:
    """Up to this m, the grid of the tiled kernel has enough blocks along y. [elements]"""
    return MAX_GRID_YZ * config.tile_m if config.family == "tiled" else UNLIMITED


def _kernel_rows(configs: Sequence[KernelConfig], gemm: Gemm, device: Device) -> list[list[float]]:
    """[n_configs][KernelColumns], each number as a query has it, but unknown tiles as 0."""
    columns = query.kernel_columns(gemm, configs)
    queries = query.encode_columns(gemm, columns, device)
    in_order = []
    for name in query.KernelColumns._fields:
        is_tile = name.startswith("tile_")
        column = getattr(columns, name) if is_tile else queries[:, query.AT[name]]
        in_order.append(np.asarray(column, dtype=np.float64))
    return [[_short(number) for number in row] for row in np.stack(in_order, axis=1).tolist()]


def _short(number: float) -> float:
    """5 instead of 5.0, which JSON writes shorter."""
    return int(number) if number.is_integer() else number
