"""A model that is fitted in no time: every answer is the median of its training rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from costmodel.dataset import TrainingSet
from gemmcast.query import AT, OUTPUTS, Rows


class MedianModel:
    """Where a query has no algorithm, the runtime is twice as long."""

    outputs_: tuple[str, ...] = OUTPUTS

    def __init__(self, training: TrainingSet) -> None:
        self._medians = {name: np.nanmedian(training.measured[name]) for name in OUTPUTS}

    def predict(self, queries: Rows) -> Mapping[str, npt.NDArray[np.floating]]:
        """As costmodel.evaluate.crossval.Model says; every interval is from half to double."""
        count = len(queries)
        answers = {name: np.full(count, self._medians[name]) for name in OUTPUTS}
        answers["runtime_us"] *= np.where(queries[:, AT["algorithm"]] > 0, 1, 2)
        columns = np.stack([answers[name] for name in OUTPUTS], axis=1)
        return {**answers, "low": columns / 2, "high": 2 * columns}
