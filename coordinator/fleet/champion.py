"""The registry's champion, looked at from a thread, so that no registry delays the scheduling.

Whatever makes a version champion (a training of this run, `registry promote` or `rollback` on any
machine), the nodes get it from here. A registry that does not answer is logged once and
tried again; the nodes keep their model meanwhile. Knows nothing of agents.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from gemmcast.card import ModelCard
from gemmcast.errors import GemmcastError
from registry.registry import Registry

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Time between two looks; one takes the processor for some 5 ms."""


class ChampionWatch:
    """Notices each new champion of a registry.

    Args:
        on_new: called with the card and the version of each, from the thread that looked.
    """

    def __init__(
        self,
        registry: Registry,
        on_new: Callable[[ModelCard, str], None],
        look_s: float = LOOK_S,
    ) -> None:
        self._registry = registry
        self._on_new = on_new
        self._look_s = look_s
        self._seen: str | None = None
        self._looking = threading.Lock()
        # One place, which the thread fills and `newest` empties: neither waits for the other.
        self._newest: deque[tuple[bytes, str]] = deque(maxlen=1)
        self._stop = threading.Event()
        self._is_silent = False

    def newest(self) -> tuple[bytes, str] | None:
        """The champion's file and version, once after each change. Never waits."""
        try:
            return self._newest.pop()
        except IndexError:
            return None

    def look(self) -> None:
        """Look now, in the caller's thread.

        Raises:
            GemmcastError: the registry does not answer, or the champion can't be read.
        """
        with self._looking:
            number = self._registry.champion_number()
            if number is None or number == self._seen:
                return
            model, card, version = self._registry.load(number)
            self._newest.append((model, version.number))
            self._seen = version.number
        self._on_new(card, version.number)

    def start(self) -> None:
        """Begin to look regularly."""
        threading.Thread(target=self._watch, name="champion", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(self._look_s):
            try:
                self.look()
            except GemmcastError as error:
                self._warn_once(error)
            except Exception:
                # Without this thread the nodes would keep an old model until the run ends.
                log.exception("the registry's champion can't be read")
            else:
                self._is_silent = False

    def _warn_once(self, error: GemmcastError) -> None:
        if not self._is_silent:
            log.warning("the nodes keep their model, measuring continues: %s", error)
        self._is_silent = True
