"""One agent of the fleet as its calls show it: not placed, starting, ready, silent or lost.

    not placed   Ray has not started its process: another job holds its GPU, or its node is busy
    starting     the process answers; its measuring child starts
    ready        the child has started, and leases may be sent
    lost         its process or child has ended since; `hello` is sent until it answers

An agent that has sent nothing for PULSE_S is called, and silent if it does not answer that.
Knows nothing of Ray: calls are whatever the fleet puts in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.awake import AwakeTime
from coordinator.fleet.interface import Ready
from coordinator.fleet.placement import Placement

PULSE_S = 3.0
"""After this time without a word an agent is called."""
ANSWER_S = 10.0
"""An agent that has not answered for this time is silent."""
PLACED_S = 30.0
"""After this time an agent that Ray has not placed is named, and not waited for."""
MAX_STARTS = 3
"""Tries to start an agent at once; then it is tried every RETRY_S, and not waited for."""
RETRY_S = 30.0

IDLE_LOOK_S = 5.0
"""Time between two looks at a GPU that others use, before an agent's first child."""

Call = Any
"""A reference to the answer of a call."""


@dataclass(slots=True)
class Member:
    """See the head of this file."""

    placement: Placement
    actor: Any
    """Ray adds `remote` and `options` to its methods, which no stub describes."""
    silence: AwakeTime
    """Since the last word of it; looked at by `look`."""
    hello: Call | None = None
    """The pending answer to `hello`."""
    hello_in_s: float | None = None
    """With no pending one: the moment for the next."""
    pulse: Call | None = None
    """The pending answer to `pulse`."""
    ready: Ready | None = None
    """What it said when it started."""
    is_lost: bool = False
    """Whether its process or child has ended since."""
    is_placed: bool = False
    error: str = ""
    """Why it has not started, or was lost."""
    in_use: str = ""
    """Who uses its GPU, which is left to them."""
    twin: str = ""
    """Another agent that measures the same GPU: this one has ended."""
    failed_starts: int = 0
    """Since it was ready."""
    silent_s: float = 0.0
    """As of the last `look`."""
    streams: dict[int, Call] = field(default_factory=dict)
    """Lease -> its batches."""

    @staticmethod
    def of(placement: Placement, actor: Any, now_s: Callable[[], float]) -> Member:
        """An agent that was just made."""
        return Member(placement=placement, actor=actor, silence=AwakeTime(now_s))

    def look(self) -> None:
        """Note how much time has passed; call it often."""
        self.silent_s = self.silence.look()

    def heard(self) -> None:
        """It has sent something."""
        self.silence.restart()
        self.silent_s = 0.0
        self.is_placed = True

    def needs_pulse(self) -> bool:
        """Whether it should be called now."""
        if self.pulse is not None or self.twin:
            return False
        return not self.is_placed or self.silent_s > PULSE_S

    @property
    def is_silent(self) -> bool:
        """Whether it does not answer."""
        return self.is_placed and self.silent_s > ANSWER_S

    @property
    def takes_leases(self) -> bool:
        """Whether a lease would be measured."""
        return self.ready is not None and not self.is_lost and not self.is_silent

    @property
    def is_starting(self) -> bool:
        """Whether it is waited for, because it may add cells."""
        if self.ready is not None or self.failed_starts >= MAX_STARTS:
            return False
        if self.in_use or self.twin:
            return False
        return not self.is_silent if self.is_placed else self.silent_s <= PLACED_S

    def start_failed(self, reason: str, now_s: float) -> None:
        """It has answered `hello` with an error."""
        self.hello = None
        self.error = reason
        self.failed_starts += 1
        is_last = self.failed_starts >= MAX_STARTS
        self.hello_in_s = now_s + RETRY_S if is_last else now_s

    def found_in_use(self, reason: str, now_s: float) -> None:
        """It has answered `hello`: others use its GPU."""
        self.heard()
        self.hello = None
        self.in_use = reason
        self.hello_in_s = now_s + IDLE_LOOK_S

    def found_twin(self, twin: str) -> None:
        """It has answered `hello`: another agent measures its GPU."""
        self.heard()
        self.hello = None
        self.twin = twin

    def started(self, ready: Ready) -> None:
        """It has answered `hello`."""
        self.hello, self.hello_in_s = None, None
        self.in_use = ""
        self.failed_starts, self.is_lost = 0, False
        self.ready = ready
        self.heard()

    def lost(self, reason: str, now_s: float) -> None:
        """A lease has ended with an error."""
        self.error = reason
        if not self.is_lost:
            self.is_lost = True
            self.hello_in_s = now_s

    def fault(self) -> str:
        """Why it takes no leases, for people; empty: it does, or is about to."""
        if not self.is_placed:
            return "" if self.silent_s <= PLACED_S else self._not_placed()
        if self.twin:
            return f"{self.twin} measures the same GPU"
        if self.in_use:
            return f"it waits for its GPU: {self.in_use}"
        if self.is_lost or (self.ready is None and self.failed_starts >= MAX_STARTS):
            return f"it starts again: {self.error}"
        is_mute = self.ready is None and self.is_silent
        return "it does not answer while it starts" if is_mute else ""

    def _not_placed(self) -> str:
        if self.placement.gpus:
            return "it waits for its GPU, which another Ray job or actor holds"
        return f"Ray has not started it for {PLACED_S:.0f} s"
