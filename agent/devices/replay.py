"""A device that answers from a recorded dataset, row for row, and is honest about cells that it does not have.

What was recorded is returned as it was (readings, device, conditions, when); only cell, agent and sample id are this run's.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq

from agent.instrument import Outcome, failed
from gemmcast.arrow import conform
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.sample import digest

_KEY = (
    "m", "n", "k", "batch", "dtype", "layout", "alpha", "beta", "family", "tile_m", "tile_n", "tile_k", "warp_m", "warp_n", "warp_k", "stages",
    "split_k", "swizzle", "cluster_m", "cluster_n", "algo_id", "cache",
)  # fmt: skip


class ReplayInstrument:
    """A dataset with the manners of a device.

    Args:
        path: a Parquet file of the sample schema.
        name: which device, where it holds several.
    """

    def __init__(self, path: Path, agent: str, name: str | None = None) -> None:
        if not path.is_file():
            raise InputError("dataset", str(path), "no such file", "name a Parquet file of samples")
        table = conform(pq.read_table(path), str(path))
        names = sorted(set(table["device"].to_pylist()))
        if name is None and len(names) > 1:
            raise InputError("device", name, f"{path} holds several devices: {', '.join(names)}", "name one")
        rows = [row for row in table.to_pylist() if row["device"] == (name or names[0])]
        self._source, self._agent = path.name, agent
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            self._rows[_key(row)].append(row)
        self.device = recorded_device(rows)

    def measure(self, cell: Cell) -> Outcome:
        asked = {**cell.to_dict()["gemm"], **cell.to_dict()["config"], "cache": cell.cache}
        found = self._rows.get(_key(asked), [])
        if cell.repeat >= len(found):
            return Outcome(failed(cell, self.device, self._agent, "not_recorded", f"{self._source} has no such cell"))
        # the best match first: a row with power where power is asked for, and the same number of threads
        ranked = sorted(found, key=lambda row: (cell.power and row["power_w"] is None, row["threads"] != cell.config.threads))
        return Outcome({**ranked[cell.repeat], "cell_id": cell.cell_id, "agent": self._agent, "sample_id": uuid4().hex})


def recorded_device(rows: list[dict[str, Any]]) -> Device:
    """The device that rows of one device describe."""
    first = rows[0]
    peaks = {row["dtype"]: row["peak_tflops"] for row in rows if row["peak_tflops"]}
    return Device(
        name=first["device"],
        kind=first["device_kind"],
        uuid=first["gpu_uuid"],
        sm_count=first["sm_count"],
        clock_max_mhz=first["clock_max_mhz"],
        power_limit_w=first["power_limit_w"],
        idle_power_w=first["idle_power_w"],
        memory_bytes=first["memory_bytes"] or 0,
        l2_bytes=first["l2_bytes"] or 0,
        dram_gbps=first["dram_gbps"] or 0.0,
        launch_overhead_us=first["device_launch_us"] or 0.0,
        peak_tflops=peaks,
        driver=first["driver"],
        cuda=first["cuda"],
        library=first["library"],
        mig=first["mig"],
    )


def _key(values: Any) -> str:
    return digest({name: values[name] for name in _KEY})
