"""Predictors of many nodes, in a process of their own: each answers again and again.

Each follows the model directory of its node, as any program beside an agent does. An answer is
refused where it raises or is no number; it is torn where it is not the one that the model of its
version gives.
"""

from __future__ import annotations

import math
import multiprocessing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from benchmarks.fleet.messages import Pipe
from gemmcast import Predictor
from gemmcast.config import KernelConfig
from gemmcast.gemm import Gemm

PAUSE_S = 0.1
"""Between two answers of one predictor."""

Query = tuple[Gemm, KernelConfig, str]
"""A problem, a configuration, and the name of the device."""


@dataclass(slots=True)
class Answered:
    """What all predictors have answered."""

    first_s: dict[str, dict[int, float]] = field(default_factory=dict)
    """Version -> predictor -> the moment of its first answer (a clock that all processes have)."""
    values: Counter[tuple[str, float]] = field(default_factory=Counter)
    """Version and runtime -> answers."""
    refused: int = 0

    def note(self, predictor: int, version: str, runtime_us: float) -> None:
        """One answer."""
        self.values[version, runtime_us] += 1
        self.first_s.setdefault(version, {}).setdefault(predictor, monotonic())

    def torn(self, expected: Mapping[str, float]) -> int:
        """Answers that the model of their version does not give.

        Args:
            expected: version -> its runtime.
        """
        wrong = [
            count
            for (version, runtime_us), count in self.values.items()
            if not math.isclose(runtime_us, expected.get(version, math.nan), rel_tol=1e-6)
        ]
        return sum(wrong)


class Answering:
    """A process of predictors.

    Args:
        directories: of the nodes; each has a model already.
    """

    def __init__(self, directories: Sequence[Path], query: Query) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (list(directories), query, theirs)
        context.Process(target=_serve, args=arguments, daemon=True).start()
        theirs.close()
        self._versions = Counter[str]()

    def answering(self, version: str) -> int:
        """How many predictors have answered with that version."""
        while self._pipe.poll():
            self._versions[self._pipe.recv()] += 1
        return self._versions[version]

    def close(self) -> Answered:
        """End the process; what its predictors have answered."""
        self._pipe.send(None)
        while not isinstance(answered := self._pipe.recv(), Answered):
            pass
        return answered


def _serve(directories: Sequence[Path], query: Query, pipe: Pipe) -> None:
    predictors = [Predictor(directory) for directory in directories]
    answered = Answered()
    while not pipe.poll():
        for number, predictor in enumerate(predictors):
            version = _answer(number, predictor, query, answered)
            if version is not None:
                pipe.send(version)
        sleep(PAUSE_S)
    for predictor in predictors:
        predictor.close()
    pipe.send(answered)


def _answer(number: int, predictor: Predictor, query: Query, answered: Answered) -> str | None:
    """One answer; the version, if it is this predictor's first one with it."""
    gemm, config, device = query
    try:
        prediction = predictor.predict(gemm, config, device)
    except Exception:  # noqa: BLE001
        # Whatever it is, it is counted: no prediction may be refused.
        answered.refused += 1
        return None
    if not math.isfinite(prediction.runtime_us):
        answered.refused += 1
        return None
    version = prediction.model_version
    is_first = number not in answered.first_s.get(version, {})
    answered.note(number, version, prediction.runtime_us)
    return version if is_first else None
