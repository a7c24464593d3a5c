"""The registry's champions, looked at from threads, so that no registry delays the scheduling.

Whatever makes a version champion (a training of this run, `registry promote` or `rollback` on any
machine), the nodes get it from here: the model, and the tuned tables. A registry that does not
answer is logged once and tried again; the nodes keep what they have meanwhile. Knows nothing of
agents.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gemmcast import tabledir
from gemmcast.card import ModelCard
from gemmcast.errors import GemmcastError
from gemmcast.modeldir import ShippedModel
from registry.registry import Registry
from registry.tables import TableRegistry

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Time between two looks; one takes the processor for some 5 ms, at the tables 9 ms."""
T = TypeVar("T")


class _Watch(ABC, Generic[T]):
    """Looks at a registry from a thread.

    Args:
        kept: what the nodes keep while the registry fails, for the log.
    """

    def __init__(self, kept: str, look_s: float) -> None:
        self._kept = kept
        self._look_s = look_s
        self._looking = threading.Lock()
        # One place, which the thread fills and `newest` empties: neither waits for the other.
        self._newest: deque[tuple[T, str]] = deque(maxlen=1)
        self._stop = threading.Event()
        self._is_silent = False

    @abstractmethod
    def look(self) -> None:
        """Look now, in the caller's thread. Raises GemmcastError where that fails."""

    def newest(self) -> tuple[T, str] | None:
        """The champion and its version, once after each change. Never waits."""
        try:
            return self._newest.pop()
        except IndexError:
            return None

    def start(self) -> None:
        """Begin to look regularly."""
        threading.Thread(target=self._watch, name=f"watch of {self._kept}", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()

    def look_or_warn(self) -> None:
        """Look now; what fails is logged once, and tried again by the next look."""
        try:
            self.look()
        except GemmcastError as error:
            self._warn_once(error)
        except Exception:
            # Without this thread the nodes would keep an old version until the run ends.
            log.exception("the registry's champion can't be read")
        else:
            self._is_silent = False

    def _watch(self) -> None:
        while not self._stop.wait(self._look_s):
            self.look_or_warn()

    def _warn_once(self, error: GemmcastError) -> None:
        if not self._is_silent:
            log.warning("the nodes keep their %s, measuring continues: %s", self._kept, error)
        self._is_silent = True


class ChampionWatch(_Watch[ShippedModel]):
    """Notices each new champion among the models of a registry.

    Args:
        on_new: called with the card and the version of each, from the thread that looked.
    """

    def __init__(
        self,
        registry: Registry,
        on_new: Callable[[ModelCard, str], None],
        look_s: float = LOOK_S,
    ) -> None:
        super().__init__("model", look_s)
        self._registry = registry
        self._on_new = on_new
        self._seen: str | None = None
        self._number: str | None = None

    def look(self) -> None:
        """Look now, in the caller's thread.

        Raises:
            GemmcastError: the registry does not answer, or the champion can't be read.
        """
        with self._looking:
            stamp = self._registry.champion_stamp()
            if stamp is None or stamp == self._seen:
                return
            # The stamp begins with the number.
            number = stamp.partition(" ")[0]
            model = self._registry.ship(number)
            card = ModelCard.from_json(model.card.decode())
            self._newest.append((model, number))
            self._seen = stamp
            is_new = number != self._number
            self._number = number
        if is_new:
            self._on_new(card, number)


class TableWatch(_Watch[Sequence[tabledir.Shipped]]):
    """Notices each change among the champions of the tuned tables of a registry.

    All of them are given together, with the version of the set.
    """

    def __init__(self, registry: TableRegistry, look_s: float = LOOK_S) -> None:
        super().__init__("tuned tables", look_s)
        self._registry = registry
        self._seen: dict[str, str] = {}

    def look(self) -> None:
        """Look now, in the caller's thread.

        Raises:
            GemmcastError: the registry does not answer, or a champion can't be read.
        """
        with self._looking:
            champions = self._registry.champions()
            if champions == self._seen:
                return
            tables = self._registry.shipped()
            self._newest.append((tables, tabledir.version_of(tables)))
            self._seen = champions
