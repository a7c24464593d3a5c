"""What a recorded table holds of the GEMMs of a list: the rivals of a tuning on `replay`.

A recorded row has every knob that the kernel turned out to have; the configuration of a family may
leave some open. A row answers for the configuration that it fits. Does not answer cells: that is
the agent's work (agent/devices/replay.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from gemmcast.arrow import read_samples
from gemmcast.config import KNOBS, KernelConfig
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.gemm_list import ListedGemm
from gemmcast.rows import ReadRow, config_of, gemm_of


def devices_in(dataset: Path) -> list[str]:
    """The names of the devices that a table holds.

    Raises:
        InputError: the file can't be read, or is no table of samples.
    """
    return sorted(set(_read(dataset)["device"].to_pylist()))


class Recording:
    """The rows of one device and of some GEMMs."""

    def __init__(self, dataset: Path, device: str, gemms: Sequence[ListedGemm]) -> None:
        wanted = {listed.gemm for listed in gemms}
        self._configs: dict[Gemm, set[KernelConfig]] = defaultdict(set)
        for row in _rows_of(_read(dataset), device, wanted):
            gemm = gemm_of(row)
            if gemm in wanted:
                self._configs[gemm].add(config_of(row))

    def recorded(self, listed: ListedGemm, configs: Sequence[KernelConfig]) -> list[KernelConfig]:
        """Those of some configurations that a row answers for.

        Nothing, where the first one has none: that is the default.
        """
        by_kernel: dict[tuple[str, str], list[KernelConfig]] = defaultdict(list)
        for config in self._configs.get(listed.gemm, ()):
            by_kernel[config.family, config.kernel].append(config)
            by_kernel[config.family, ""].append(config)
        answered: list[KernelConfig] = []
        for wanted in configs:
            same = by_kernel.get((wanted.family, wanted.kernel), [])
            if any(_fits(one, wanted) for one in same):
                answered.append(wanted)
            elif not answered:
                return []
        return answered


def _read(dataset: Path) -> pa.Table:
    way_out = "name a Parquet file of samples, such as datasets/h100_sxm.parquet"
    if not dataset.is_file():
        raise InputError("--devices", str(dataset), "no such file", way_out)
    try:
        return read_samples(dataset)
    except pa.ArrowInvalid as error:
        rule = f"not a Parquet file ({error})"
        raise InputError("--devices", str(dataset), rule, way_out) from None


def _rows_of(table: pa.Table, device: str, gemms: set[Gemm]) -> list[ReadRow]:
    """Rows of that device whose n is one of these: a few of very many."""
    sizes = pa.array(sorted({gemm.n for gemm in gemms}), table["n"].type)
    is_wanted = pc.and_(pc.equal(table["device"], device), pc.is_in(table["n"], sizes))
    rows: list[ReadRow] = table.filter(is_wanted).to_pylist()
    return rows


def _fits(recorded: KernelConfig, wanted: KernelConfig) -> bool:
    return all(getattr(wanted, knob) in (0, getattr(recorded, knob)) for knob in KNOBS)
