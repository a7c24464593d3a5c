"""How wrong the champion is on rows that it has never seen: those committed since it is champion.

Once a minute, from a thread, on the newest rows with status ok. A run with a budget measures first
where the model is in doubt, so its fresh rows are harder than the average of its plan.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from costmodel.dataset import training_set
from gemmcast.modelfile import LoadedModel

log = logging.getLogger(__name__)

LOOK_S: Final = 60.0
MOST_ROWS: Final = 256
FEWEST_ROWS: Final = 20
"""An error of fewer rows says nothing."""
RUNTIME: Final = "runtime_us"


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshError:
    """One look at the champion."""

    version: str
    rows: int
    """That it was compared with."""
    error_ratio: float
    """Median of |predicted runtime / measured runtime - 1|."""


class FreshErrors:
    """The newest error of the champion on fresh rows.

    Args:
        now_s: a clock that only grows.
    """

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        self._now_s = now_s
        self._looked_s = now_s()
        self._rows: deque[pa.Table] = deque()
        self._champion: tuple[bytes, str] | None = None
        self._loaded: LoadedModel | None = None
        self._thread: threading.Thread | None = None
        self.newest: FreshError | None = None
        """None: there is no champion, or there were too few rows since."""

    def note_model(self, model: bytes, version: str) -> None:
        """Another champion: it may have been trained on all rows so far."""
        self._champion = (model, version)
        self._loaded = None
        self._rows.clear()
        self.newest = None

    def note_rows(self, rows: pa.Table) -> None:
        """Rows that were just committed."""
        if self._champion is None:
            return
        is_ok = pc.equal(rows["status"], "ok")
        self._rows.append(rows.filter(is_ok).slice(0, MOST_ROWS))
        while len(self._rows) > 1 and sum(map(len, self._rows)) - len(self._rows[0]) >= MOST_ROWS:
            self._rows.popleft()

    def look(self) -> None:
        """Begin to compare, if it is time and there are rows. Never waits."""
        if self._now_s() - self._looked_s < LOOK_S or self._champion is None:
            return
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or sum(map(len, self._rows)) < FEWEST_ROWS:
            return
        self._looked_s = self._now_s()
        rows = pa.concat_tables(self._rows)
        newest = rows.slice(max(0, len(rows) - MOST_ROWS))
        arguments = (newest, *self._champion)
        self._thread = threading.Thread(
            target=self._compare, args=arguments, name="fresh errors", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until a comparison that was begun is done."""
        if self._thread is not None:
            self._thread.join()

    def _compare(self, rows: pa.Table, model: bytes, version: str) -> None:
        try:
            found = self._error_of(rows, model, version)
        except Exception as error:  # noqa: BLE001
            # Whatever is wrong with a model, a figure about it must not end the measuring.
            log.warning("the champion's error on fresh samples is not known: %s", error)
            return
        is_champion_still = self._champion is not None and self._champion[1] == version
        if is_champion_still:
            self.newest = found

    def _error_of(self, rows: pa.Table, model: bytes, version: str) -> FreshError | None:
        loaded = self._loaded
        if loaded is None or loaded.version != version:
            loaded = LoadedModel(model, "champion", version)
            self._loaded = loaded
        fresh = training_set(rows, loaded.contract)
        if len(fresh) < FEWEST_ROWS:
            return None
        predicted_us = loaded.run(fresh.queries)[RUNTIME].astype(np.float64)
        errors = np.abs(predicted_us / fresh.measured[RUNTIME] - 1)
        return FreshError(version=version, rows=len(fresh), error_ratio=float(np.median(errors)))
