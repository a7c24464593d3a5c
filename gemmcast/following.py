"""The newest model of a node's model directory, loaded from a thread so that no prediction waits.

The thread compares the stamp (time and inode) of current.json every `refresh_s`. A push that cannot
be loaded is logged, and the model in use stays. A forked process has no such thread, so it starts
its own when it first needs the model. Does not know what a model is used for.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path

from gemmcast import forks, modeldir
from gemmcast.errors import ModelFileError
from gemmcast.modelfile import LoadedModel

log = logging.getLogger(__name__)

_ATTEMPTS = 3

FileStamp = tuple[int, int]
"""When current.json was replaced [ns], and its inode."""


class ModelFollower:
    """`model` is the newest model of a directory.

    Args:
        directory: a node's model directory (gemmcast/modeldir.py).
        refresh_s: time between two looks at current.json.

    Raises:
        ModelFileError: there is no model, or one that cannot be used.
    """

    def __init__(self, directory: Path, refresh_s: float) -> None:
        self.directory = directory
        self._refresh_s = refresh_s
        self._is_closed = False
        # Taken before the model is read, so that a push in between is seen by the first look.
        self._stamp = _stamp(directory)
        self._current = modeldir.read_current(directory)
        self._model, self._current = load_current(directory, self._current)
        self.after_fork()
        self._start()
        forks.track(self)

    @property
    def model(self) -> LoadedModel:
        """The newest model that could be loaded."""
        if self._thread is None and not self._is_closed:
            self._start()
        return self._model

    def close(self) -> None:
        """Stop looking; `model` stays."""
        self._is_closed = True
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def after_fork(self) -> None:
        """The thread is gone; the event and the lock may be locked by a thread that is gone."""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._starting = threading.Lock()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._watch, name="gemmcast-follower", daemon=True
            )
            self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(self._refresh_s):
            stamp = _stamp(self.directory)
            if stamp == self._stamp:
                continue
            try:
                self._take_newest()
                self._stamp = stamp
            except ValueError as error:
                # A bad push stays bad (InputError, or no UTF-8): wait for the next one.
                log.warning("keeping model %s: %s", self._model.version, error)
                self._stamp = stamp
            except OSError as error:
                # Too many open files or a stale handle may pass: look again.
                log.warning("keeping model %s: %s", self._model.version, error)

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


def _stamp(directory: Path) -> FileStamp | None:
    with contextlib.suppress(OSError):
        stat = (directory / modeldir.CURRENT).stat()
        return stat.st_mtime_ns, stat.st_ino
    return None
