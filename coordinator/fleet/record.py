"""What `status` says of a run besides its samples: which agents wait or are lost, and what stays
due.

The run keeps it in the workspace whenever it changes. Does not know how it is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from coordinator.fleet.delivery import write_record
from coordinator.fleet.interface import Fleet, Progress
from coordinator.workspace import Workspace

RECORD_S: Final = 1.0
"""With a thousand agents a record takes as long as a commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The state of a run, or the end of the last one."""

    waiting: dict[str, str] = field(default_factory=dict)
    """Agent that waits for other processes to leave its device -> what it says of them."""
    faults: dict[str, str] = field(default_factory=dict)
    """Agent that gets no cells, or hardly any -> why."""
    closed: str = ""
    """Outside the plan's hours: `until 22:00 (Europe/Berlin)`."""
    contended_due: int = 0
    """Cells that the run left, because others used the devices."""
    second_due: int = 0
    """Cells that wait for a second board of their type."""

    @staticmethod
    def waiting_in(progress: Progress) -> RunRecord:
        """Of a run that measures."""
        return RunRecord(
            waiting=dict(progress.waiting),
            faults=dict(progress.faults),
            closed=progress.closed,
        )

    @staticmethod
    def of(progress: Progress, *, is_at_end: bool) -> RunRecord:
        """Of a run that is over.

        Args:
            is_at_end: nothing was left that it could measure; False: it was stopped.
        """
        contended = progress.cells - progress.done if is_at_end else 0
        return RunRecord(contended_due=contended, second_due=progress.second_due)

    def to_json(self) -> bytes:
        """What `read` reads."""
        return json.dumps(asdict(self), indent=1).encode()

    @staticmethod
    def read(path: Path) -> RunRecord:
        """That of the last run; an empty one where none has left any, or none that can be read."""
        try:
            return RunRecord(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return RunRecord()

    def lines(self) -> list[str]:
        """For people: what stays due and how it is measured."""
        lines = []
        if self.contended_due:
            due = _cells(self.contended_due)
            reason = "other processes used the devices"
            lines.append(f"Still due, because {reason}: {due}. Run the same plan again for them.")
        if self.second_due:
            lines.append(f"Due on a second board of the same type: {_cells(self.second_due)}.")
        return lines


class Recorder:
    """Keeps what `status` says of a run, whenever that has changed, at most every RECORD_S."""

    def __init__(
        self, fleet: Fleet, workspace: Workspace, now_s: Callable[[], float] = monotonic
    ) -> None:
        self._fleet = fleet
        self._workspace = workspace
        self._now_s = now_s
        self._noted_s = -RECORD_S
        self._kept: dict[Path, bytes] = {}

    def note(self, progress: Progress) -> None:
        """The state of a run, as often as one likes."""
        if self._now_s() - self._noted_s >= RECORD_S:
            self.keep(progress)

    def keep(self, progress: Progress) -> None:
        """The nodes' receipts and who waits go to the workspace now."""
        self._noted_s = self._now_s()
        records = {
            self._workspace.nodes: self._fleet.delivery.record(),
            self._workspace.run: RunRecord.waiting_in(progress).to_json(),
        }
        for path, record in records.items():
            if record != self._kept.get(path):
                write_record(path, record)
                self._kept[path] = record


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"
