"""Which agents have the champion: what was sent, who answered, what is sent again.

An agent answers with the version that it reads back from its node's model directory; another
version is no answer. An agent has one call at a time, so that no older version arrives after a
newer one. Agents of one node share its model directory. Models and tuned tables have a Delivery
each. Knows nothing of Ray or of the registry.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Final

from coordinator.fleet.events import agent_event
from gemmcast.modeldir import write_atomically

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""Time between an agent's failure to take a model and the next try."""
LATE_S = 10.0
"""After this time without an answer an agent is named."""


@dataclass(slots=True, kw_only=True)
class Receipt:
    """What one agent answered last."""

    agent: str
    node: str
    """The agents of a node share its model directory."""
    version: str | None = None
    """The version that the agent read from the model directory; None: it has not answered yet."""
    at: str | None = None
    """When it answered: UTC, ISO 8601."""
    problem: str | None = None
    """Why it has not taken the newest version."""

    def values(self) -> dict[str, str | None]:
        """Its fields by name."""
        return {name: getattr(self, name) for name in RECEIPT_FIELDS}

    def text(self) -> str:
        """For people: which version, how long ago, and what is wrong."""
        if self.version is None or self.at is None:
            return self.problem or "no model yet"
        age = datetime.now(UTC) - datetime.fromisoformat(self.at)
        whole_seconds = timedelta(seconds=round(age.total_seconds()))
        taken = f"model {self.version}, taken {whole_seconds} ago"
        return f"{taken}; {self.problem}" if self.problem else taken


RECEIPT_FIELDS: Final = [one.name for one in fields(Receipt)]


@dataclass(slots=True)
class _Call:
    """A version that was sent and not answered."""

    version: str
    sent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """How far a version has come."""

    version: str | None
    """The champion; None: there is none yet."""
    nodes: int
    """Nodes with an agent."""
    nodes_with_version: int
    missing: dict[str, str]
    """Agent without this version -> why."""
    what: str = "model"
    """What was sent: `model` or `table set`."""

    def text(self) -> str:
        """One line: which version on how many nodes, and who has not taken it."""
        if self.version is None:
            return f"No {self.what} was sent to the nodes: there is no champion yet."
        nodes = f"{self.nodes_with_version} of {self.nodes} nodes"
        line = f"{self.what.capitalize()} {self.version} is on {nodes}"
        if not self.missing:
            return f"{line}."
        agents = [f"{agent} ({problem})" for agent, problem in self.missing.items()]
        return f"{line}; not taken by {', '.join(agents)}: the next run sends it again."


class Delivery:
    """The state of all pushes of a fleet.

    Args:
        now_s: a clock that only grows.
        what: is sent, for messages.
    """

    def __init__(self, now_s: Callable[[], float] = monotonic, what: str = "model") -> None:
        self._now_s = now_s
        self._what = what
        self._receipts: dict[str, Receipt] = {}
        self._calls: dict[str, _Call] = {}
        self._retry_s: dict[str, float] = {}
        self.wanted: str | None = None
        """The version that every agent should have."""

    def join(self, agent: str, node: str) -> None:
        """An agent has started, or started again."""
        if agent not in self._receipts:
            self._receipts[agent] = Receipt(agent=agent, node=node)
        self._retry_s[agent] = self._now_s()

    def leave(self, agent: str) -> None:
        """An agent is gone for good: the version is not for it."""
        self._receipts.pop(agent, None)
        self._calls.pop(agent, None)

    def want(self, version: str) -> None:
        """From now on every agent should have this version."""
        self.wanted = version
        for agent, receipt in self._receipts.items():
            receipt.problem = None
            self._retry_s[agent] = self._now_s()

    def due(self) -> list[str]:
        """The agents to which the version must be sent now."""
        self._name_late()
        now_s = self._now_s()
        return [
            agent
            for agent in self._without()
            if agent not in self._calls and self._retry_s[agent] <= now_s
        ]

    def sent(self, agent: str) -> None:
        """The wanted version was sent to an agent."""
        assert self.wanted is not None
        self._calls[agent] = _Call(self.wanted, self._now_s())

    def answered(self, agent: str, version: str) -> None:
        """An agent has read this version from its model directory."""
        call = self._calls.pop(agent, None)
        if call is None:
            return
        receipt = self._receipts[agent]
        receipt.version = version
        receipt.at = datetime.now(UTC).isoformat(timespec="seconds")
        receipt.problem = None
        if version != call.version:
            self._put_off(agent, f"its model directory holds {self._what} {version}")

    def failed(self, agent: str, reason: str) -> None:
        """An agent could not take a version."""
        if self._calls.pop(agent, None) is not None:
            self._put_off(agent, reason)

    def is_complete(self) -> bool:
        """Whether every agent has the wanted version."""
        return not self._without()

    def versions(self) -> dict[str, str | None]:
        """Agent -> the version that it read last; None: it has not answered yet."""
        return {agent: receipt.version for agent, receipt in self._receipts.items()}

    def state(self) -> Delivered:
        """How far the wanted version has come."""
        nodes = {receipt.node for receipt in self._receipts.values()}
        missing = {
            agent: self._receipts[agent].problem or "has not answered" for agent in self._without()
        }
        return Delivered(
            version=self.wanted,
            nodes=len(nodes),
            nodes_with_version=sum(self._has_wanted(node) for node in nodes),
            missing=missing,
            what=self._what,
        )

    def record(self) -> bytes:
        """What `read_receipts` reads: the receipt of each agent."""
        receipts = [receipt.values() for receipt in self._receipts.values()]
        # On one line: indented, that of a thousand agents takes ten times as long.
        return json.dumps({"wanted": self.wanted, "agents": receipts}).encode()

    def _without(self) -> list[str]:
        """The agents that have not taken the wanted version."""
        if self.wanted is None:
            return []
        return [
            agent for agent, receipt in self._receipts.items() if receipt.version != self.wanted
        ]

    def _has_wanted(self, node: str) -> bool:
        """Whether an agent has read the version there, and no agent may still write another."""
        agents = [agent for agent, receipt in self._receipts.items() if receipt.node == node]
        calls = [self._calls[agent] for agent in agents if agent in self._calls]
        if any(call.version != self.wanted for call in calls):
            return False
        return self.wanted in {self._receipts[agent].version for agent in agents}

    def _put_off(self, agent: str, problem: str) -> None:
        receipt = self._receipts[agent]
        if receipt.problem != problem:
            sent = f"{self._what} {self.wanted}"
            fields = agent_event("model_not_taken", agent, problem)
            log.warning("agent %s has not taken %s: %s", agent, sent, problem, extra=fields)
        receipt.problem = problem
        self._retry_s[agent] = self._now_s() + RETRY_S

    def _name_late(self) -> None:
        for agent, call in self._calls.items():
            receipt = self._receipts[agent]
            if receipt.problem is None and self._now_s() - call.sent_s > LATE_S:
                receipt.problem = f"no answer for {LATE_S:.0f} s"
                fields = agent_event("model_not_taken", agent, receipt.problem)
                text = "agent %s has not taken %s %s yet"
                log.warning(text, agent, self._what, call.version, extra=fields)


def write_record(path: Path, record: bytes) -> None:
    """Keep the receipts for `status`. A disk that refuses them must not end a run."""
    try:
        write_atomically(path, record)
    except OSError as error:
        log.warning("%s can't be written (%s)", path, error.strerror)


def read_receipts(path: Path) -> list[Receipt]:
    """The receipts of the last run; none where no run has left any, or none that can be read."""
    try:
        agents = json.loads(path.read_text())["agents"]
        return [Receipt(**values) for values in agents]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
