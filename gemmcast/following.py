"""The newest model of a node's model directory, loaded from a thread so that no prediction waits.

A push that cannot be loaded is logged, and the model in use stays (gemmcast/follower.py). Does not
know what a model is used for.
"""

from __future__ import annotations

import logging
from pathlib import Path

from gemmcast import modeldir
from gemmcast.errors import ModelFileError
from gemmcast.follower import Follower
from gemmcast.modelfile import LoadedModel

log = logging.getLogger(__name__)

_ATTEMPTS = 3


class ModelFollower(Follower):
    """`model` is the newest model of a directory.

    Args:
        directory: a node's model directory (gemmcast/modeldir.py).
        refresh_s: time between two looks at current.json.

    Raises:
        ModelFileError: there is no model, or one that cannot be used.
    """

    def __init__(self, directory: Path, refresh_s: float) -> None:
        super().__init__(directory / modeldir.CURRENT, refresh_s)
        self.directory = directory
        self._current = modeldir.read_current(directory)
        self._model, self._current = load_current(directory, self._current)
        self.start()

    @property
    def model(self) -> LoadedModel:
        """The newest model that could be loaded."""
        self._keep_looking()
        return self._model

    def _in_use(self) -> str:
        return f"model {self._model.version}"

    def _take_newest(self) -> None:
        current = modeldir.read_current(self.directory)
        if current == self._current:
            return
        self._model, self._current = load_current(self.directory, current)
        log.info("model %s from %s", current.version, self.directory)


def load_current(
    directory: Path, current: modeldir.CurrentModel
) -> tuple[LoadedModel, modeldir.CurrentModel]:
    """The model that `current` names, or a newer one if that was deleted meanwhile."""
    for _ in range(_ATTEMPTS):
        source = str(directory / current.file)
        try:
            data = modeldir.read_model(directory, current)
        except FileNotFoundError:
            # Two newer models displaced it after `current` was read.
            current = modeldir.read_current(directory)
            continue
        devices = modeldir.devices(directory)
        return LoadedModel(data, source, current.version, devices), current
    raise ModelFileError("model", source, "is missing", "push a model again")
