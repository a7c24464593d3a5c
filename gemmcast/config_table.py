"""A list of configurations as a ranking needs it: columns of queries, and what is impossible.

Encoding a configuration and looking for what makes it impossible take a microsecond each, about as
long as the prefilter takes for it. Both depend on little of a problem, and a list comes again for
the next GEMM, so a table is kept. A list is known again by its objects: to compare the values of
thousands of configurations would take as long as to encode them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from gemmcast import query, ties
from gemmcast.candidates import default_among
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.feasible import check_family, impossible, limits_of
from gemmcast.gemm import Gemm

KEPT: Final = 32
"""Tables; one of 4,000 configurations takes 1 MB."""


@dataclass(frozen=True, slots=True)
class ConfigTable:
    """Configurations of one problem, or of others that have the same limits."""

    configs: tuple[KernelConfig, ...]
    columns: query.KernelColumns
    """Each [n_configs], with all that names say."""
    is_impossible: npt.NDArray[np.bool_]
    """[n_configs]"""
    may_tie: bool
    """Whether some may be the same row of a query."""
    default: int | None
    """Place of what one gets without tuning, if it is among them."""

    def rows(self, gemm: Gemm, device: Device, cache: str) -> query.Rows:
        """[n_configs, len(FIELDS)] Raises InputError as `query.encode` does."""
        return query.encode_columns(gemm, self.columns, device, cache=cache)

    def place_of(self, config: KernelConfig) -> int | None:
        """The place of an equal configuration; None where there is none."""
        for place, one in enumerate(self.configs):
            # Mostly it is the same object; to compare values takes a microsecond.
            if one is config:
                return place
        return self.configs.index(config) if config in self.configs else None

    def ties(self, rows: query.Rows) -> ties.Ties:
        """Which of the rows[n_configs, len(FIELDS)] are the same.

        Raises:
            InputError: some differ in a name only that has no knobs.
        """
        return ties.ties_of(self.configs, rows) if self.may_tie else {}


def config_table(gemm: Gemm, configs: Sequence[KernelConfig], device: Device) -> ConfigTable:
    """The table of a list, made anew or kept from before.

    Raises:
        InputError: a family runs on another kind of device, or a name means nothing to a model.
    """
    return _table(_Asked(gemm, configs, device))


class _Asked:
    """What a table is made of; equal to all of which the table is the same.

    It keeps the configurations alive, so that no other object gets their ids.
    """

    def __init__(self, gemm: Gemm, configs: Sequence[KernelConfig], device: Device) -> None:
        self.gemm = gemm
        self.configs = tuple(configs)
        self.device = device
        ids = tuple(map(id, self.configs))
        self._key = (ids, limits_of(gemm), device.kind, device.arch)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._key == other._key


@lru_cache(maxsize=KEPT)
def _table(asked: _Asked) -> ConfigTable:
    gemm, configs, device = asked.gemm, asked.configs, asked.device
    columns = query.kernel_columns(gemm, configs)
    is_same = ties.ties_of(configs, query.encode_columns(gemm, columns, device))
    ties.check_names(configs)
    ties.check_unfolded(configs)
    for config in configs:
        check_family(config, device)
    # An open tile is the whole matrix, which others may name: that depends on the problem.
    is_open = any(np.any(getattr(columns, name) == 0) for name in ("tile_m", "tile_n", "tile_k"))
    reasons = [impossible(gemm, config, device.arch) for config in configs]
    return ConfigTable(
        configs=configs,
        columns=columns,
        is_impossible=np.array([reason is not None for reason in reasons]),
        may_tie=bool(is_same) or is_open,
        default=default_among(configs),
    )
