"""The last answers of one model: a query that comes again costs a look-up.

Belongs to one version of the model, so a new version begins with an empty one. When it is full it
begins anew: what comes again is soon back. Any number of threads may use it. Does not know how an
answer is made.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.modelfile import LoadedModel
from gemmcast.prediction import Prediction

KEPT: Final = 4096
"""Answers; about 8 MB."""


class Asked(NamedTuple):
    """A query as a caller writes it."""

    gemm: Gemm
    config: KernelConfig | None
    device: Device | str | None
    cache: str


class Memo:
    """Query -> answer.

    Args:
        model: whose answers these are.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._answers: dict[Asked, Prediction] = {}

    def get(self, asked: Asked) -> Prediction | None:
        """The answer of before; None where there is none."""
        return self._answers.get(asked)

    def keep(self, asked: Asked, prediction: Prediction) -> None:
        """For the next time."""
        if len(self._answers) >= KEPT:
            self._answers = {}
        self._answers[asked] = prediction
