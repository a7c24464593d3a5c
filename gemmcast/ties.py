"""What a model cannot tell apart: configurations that are one and the same query row.

The model reads knobs; of names it reads those of CUTLASS kernels only (gemmcast/kernel_names.py).
So another name without knobs says nothing to it, and configurations that differ in names or in what
a row leaves out have one answer. The first is refused where it would mislead, the second is
reported as a tie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

import numpy as np

from gemmcast import query
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.errors import InputError
from gemmcast.kernel_names import library_name, says_knobs

LIBRARY_CHOICE: Final = library_name("")
"""What a query of cublaslt without knobs is about: whatever the library puts first."""
NAMED_KERNELS: Final = ("cutlass", "triton")
"""Families of which a name says the knobs, if it is right."""
RULE: Final = "the model reads knobs, not names, so it cannot tell these apart"
WAY_OUT: Final = "give their knobs"
LT_WAY_OUT: Final = (
    "give their knobs: on a node with the GPU, `python -m agent.kernels.cublaslt M N K NAME...` "
    "prints them"
)
"""Of cublaslt, whose library resolves a name for one problem."""

_knobs = attrgetter(*KNOBS)

Ties = dict[KernelConfig, tuple[KernelConfig, ...]]
"""Configuration -> the others that are the same query row, where there are any."""


def check_names(configs: Iterable[KernelConfig]) -> None:
    """Refuse names of cuBLASLt's list without knobs: the answer would be about the default.

    Raises:
        InputError: it names them all.
    """
    unknown = [config for config in configs if config.family == "cublaslt" and _is_listed(config)]
    if unknown:
        rule = "the model reads knobs, not names, and would answer for the library's default"
        raise InputError("configs", _shown(unknown), rule, LT_WAY_OUT)


def check_unfolded(configs: Iterable[KernelConfig]) -> None:
    """Refuse names of kernels that are to be compared, and that say no knobs.

    Raises:
        InputError: it names them all.
    """
    kernels = (config for config in configs if config.family in NAMED_KERNELS)
    silent = [config for config in kernels if _is_a_bare_name(config)]
    if silent:
        rule = "the model reads knobs, and these names say none"
        raise InputError("configs", _shown(silent), rule, WAY_OUT)


def ties_of(configs: Sequence[KernelConfig], rows: query.Rows) -> Ties:
    """Which configurations are the same row[n_configs, len(FIELDS)].

    Raises:
        InputError: some differ in a name only that has no knobs; it names them all.
    """
    data = np.ascontiguousarray(rows).tobytes()
    length = len(data) // len(rows)
    keys = [data[start : start + length] for start in range(0, len(data), length)]
    if len(set(keys)) == len(keys):
        return {}
    by_row: dict[bytes, dict[KernelConfig, None]] = defaultdict(dict)
    for key, config in zip(keys, configs, strict=True):
        by_row[key][config] = None
    ties: Ties = {}
    for same in by_row.values():
        if len(same) == 1:
            continue
        _check_knobs(same)
        for config in same:
            ties[config] = tuple(other for other in same if other != config)
    return ties


def _check_knobs(same: Iterable[KernelConfig]) -> None:
    """Refuse configurations of one row, if one of them is a name and nothing else."""
    for config in same:
        if _is_a_bare_name(config):
            way_out = LT_WAY_OUT if config.family == "cublaslt" else WAY_OUT
            raise InputError("configs", _shown(same), RULE, way_out)


def _shown(configs: Iterable[KernelConfig]) -> str:
    return ", ".join(map(str, configs))


def _is_listed(config: KernelConfig) -> bool:
    return library_name(config.kernel) != LIBRARY_CHOICE and _is_a_bare_name(config)


def _is_a_bare_name(config: KernelConfig) -> bool:
    """Whether the configuration has a name and nothing that the model reads."""
    return bool(config.kernel) and not any(_knobs(config)) and not says_knobs(config)
