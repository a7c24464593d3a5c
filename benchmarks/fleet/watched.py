"""What a benchmark notes of a run from outside: each commit's lag, each push, memory.

The lag of a row is the time from its measurement, which it names itself, to the end of its commit;
here agents and coordinator have one clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from time import monotonic, time

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coordinator.fleet.delivery import Delivery
from coordinator.samples.store import SampleStore
from gemmcast.modeldir import ShippedModel

PART = 0.25
"""Share of a run, by rows: the lags of its first and its last part are compared."""
FIRST, SECOND = "1", "2"
"""Versions of the model that are pushed, at the beginning and in the middle."""
MEMORY_S = 10.0
SECONDS = slice(0, 19)
"""Of 2026-11-29T07:10:00.123+00:00."""
MILLISECONDS = slice(20, 23)

Seconds = npt.NDArray[np.float64]
"""[n_rows]"""


class Lags:
    """Of all rows that a store commits from now on."""

    def __init__(self, store: SampleStore) -> None:
        self._append = store.append
        self._lags: list[Seconds] = []
        self.commits = 0
        store.append = self._noted  # type: ignore[method-assign]

    def p99_s(self) -> float:
        """Of all rows."""
        return float(np.percentile(np.concatenate(self._lags), 99))

    def growth_s(self) -> float:
        """How much longer the last part of the rows took than the first one (p99)."""
        lags = np.concatenate(self._lags)
        part = int(PART * len(lags))
        return float(np.percentile(lags[-part:], 99) - np.percentile(lags[:part], 99))

    def _noted(self, tables: Sequence[pa.Table]) -> pa.Table:
        rows = self._append(tables)
        if len(rows):
            self.commits += 1
            self._lags.append(time() - _moments_s(rows["measured_at"]))
        return rows


class Pushes:
    """A model at the beginning and another one later, as champions of a registry.

    Args:
        second_after_s: moment of the second one.
    """

    def __init__(self, model: bytes, delivery: Delivery, second_after_s: float) -> None:
        self._model = model
        self._delivery = delivery
        self._wait_s = second_after_s
        self._pushed_s = 0.0
        self._begun_s: float | None = None
        self.last_s: float | None = None
        """Time until the last agent had taken the second model."""

    def newest(self) -> tuple[ShippedModel, str] | None:
        """See `Champions`."""
        now_s = monotonic()
        if self._begun_s is None:
            self._begun_s = now_s
            return ShippedModel(data=self._model), FIRST
        if self._delivery.wanted == FIRST and now_s - self._begun_s > self._wait_s:
            self._pushed_s = now_s
            # Other bytes, so that every node writes another file.
            return ShippedModel(data=self._model + b"\0"), SECOND
        return None

    def look(self) -> None:
        """Note when the second model has arrived everywhere; call it often."""
        is_there = self._delivery.wanted == SECOND and self._delivery.is_complete()
        if is_there and self.last_s is None:
            self.last_s = monotonic() - self._pushed_s


class Memory:
    """Resident memory of this process, every MEMORY_S."""

    def __init__(self) -> None:
        self.mib: list[float] = []
        self._is_over = Event()
        Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._is_over.set()

    def _watch(self) -> None:
        while not self._is_over.wait(MEMORY_S):
            self.mib.append(resident_mib())


def resident_mib() -> float:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) / 1024
    return float("nan")


def _moments_s(texts: pa.ChunkedArray) -> Seconds:
    """Unix time of moments in UTC, ISO 8601, with three digits after the point."""
    text = pc.utf8_slice_codeunits(texts, SECONDS.start, SECONDS.stop)
    whole = pc.strptime(text, "%Y-%m-%dT%H:%M:%S", "s").cast(pa.int64())
    part = pc.utf8_slice_codeunits(texts, MILLISECONDS.start, MILLISECONDS.stop).cast(pa.int64())
    return np.asarray(whole, dtype=np.float64) + np.asarray(part, dtype=np.float64) / 1000
