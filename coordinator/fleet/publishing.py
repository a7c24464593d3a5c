"""From a trained model to a version of the registry, or to a file if the registry refuses it.

A winner becomes champion, a loser challenger. A registry that is down, silent or full must not cost
a training: the model is kept in the workspace, where `python -m registry publish FILE` finds it,
and tried again while a run lasts. Knows nothing of Ray, nor how models are made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep

from coordinator.fleet.commits import FIRST_PAUSE_S, LONGEST_PAUSE_S
from gemmcast.card import ModelCard
from gemmcast.errors import GemmcastError, WorkspaceError
from registry.kept import COMMAND, keep, publish_kept
from registry.registry import Registry

log = logging.getLogger(__name__)

Judged = tuple[bytes, ModelCard, str | None]
"""A model, its card, and the gate's objection to it."""
OnTrained = Callable[[ModelCard, str | None], None]
"""Called with each card, and the version if it is champion."""


class KeptError(WorkspaceError):
    """A model was not published, but it is not lost.

    Args:
        path: its file.
        reason: what the registry said.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{reason}; the model is kept, publish it with: {COMMAND} {path}")
        self.path = path


def publish(registry: Registry, judged: Judged) -> str | None:
    """Publish a model as champion or, with an objection, as challenger.

    Returns:
        The version, if it is champion now.
    """
    model, card, reason = judged
    reason = reason or registry.objection
    version = registry.publish(model, card)
    if reason is None:
        registry.promote(version.number)
        return version.number
    registry.challenge(version.number)
    log.warning("version %s stays challenger: %s", version.number, reason)
    return None


def publish_or_keep(
    registry: Registry, judged: Judged, champion: bytes | None, kept: Path
) -> str | None:
    """Publish a model, or keep it in a file if the registry refuses it.

    Args:
        champion: the file that the gate compared it with.
        kept: the folder for it.

    Raises:
        KeptError: the registry refused it.
    """
    try:
        return publish(registry, judged)
    except GemmcastError as error:
        raise _kept(judged, champion, kept, str(error)) from None


def _kept(judged: Judged, champion: bytes | None, kept: Path, reason: str) -> WorkspaceError:
    try:
        return KeptError(keep(kept, *judged, champion), reason)
    except OSError as error:
        rule = f"{reason}; the model can't be kept in {kept} ({error.strerror})"
        return WorkspaceError(f"{rule}: free some space and train again")


class LatePublisher:
    """Publishes kept models when the registry is back, each from a thread of its own.

    Args:
        on_trained: called from the thread.
        pause: waits; for tests.
    """

    def __init__(
        self, registry: Registry, on_trained: OnTrained, pause: Callable[[float], None] = sleep
    ) -> None:
        self._registry = registry
        self._on_trained = on_trained
        self._pause = pause

    def start(self, path: Path, card: ModelCard) -> threading.Thread:
        """Try until it succeeds or the process ends; then the file is still there."""
        arguments = (path, card)
        thread = threading.Thread(target=self._run, args=arguments, name="publisher", daemon=True)
        thread.start()
        return thread

    def _run(self, path: Path, card: ModelCard) -> None:
        pause_s = FIRST_PAUSE_S
        while path.exists():
            self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                version, objection = publish_kept(self._registry, path)
            except GemmcastError as error:
                log.info("%s is not published yet: %s", path, error)
                continue
            log.warning("%s is published now: version %s", path, version.number)
            self._on_trained(card, None if objection else version.number)
