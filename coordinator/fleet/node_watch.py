"""The nodes of the cluster, listed from a thread, because a head that is gone does not answer.

Knows nothing of Ray but the function that lists nodes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from agent.awake import AwakeTime
from coordinator.fleet.placement import Node

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Time between two looks."""


class NodeWatch:
    """Lists the nodes now and then.

    Args:
        list_nodes: may block, or raise, for as long as the head does not answer.
        now_s: a clock that only grows.
    """

    def __init__(
        self, list_nodes: Callable[[], Sequence[Node]], now_s: Callable[[], float] = monotonic
    ) -> None:
        self._list_nodes = list_nodes
        self._silence = AwakeTime(now_s)
        self._newest: Sequence[Node] | None = None
        self._has_answered = threading.Event()
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to look regularly."""
        threading.Thread(target=self._watch, name="nodes", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def newest(self) -> Sequence[Node] | None:
        """The nodes, once after each answer; None: nothing new. Never waits."""
        if self._has_answered.is_set():
            self._has_answered.clear()
            self._silence.restart()
            return self._newest
        return None

    def silent_s(self) -> float:
        """For how long the head has not answered; call it often, after `newest`."""
        return self._silence.look()

    def look(self) -> None:
        """List the nodes now, in the caller's thread."""
        self._newest = self._list_nodes()
        self._has_answered.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception as error:  # noqa: BLE001
                # Ray has no common error for a head that is gone; `silent_s` says the rest.
                log.info("the nodes of the cluster can't be listed: %s", error)
            self._stop.wait(LOOK_S)
