"""What a tuning has set out to measure, kept in the workspace from before its first measurement.

A model that is promoted meanwhile, or peaks that are measured anew, would rank other rivals first;
then a tuning that was killed would not go on but begin again. Readings are in the store, so this
and the store are all that a restart needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.tune.problem import Problem
from gemmcast.errors import InputError, WorkspaceError
from gemmcast.modeldir import write_atomically

TURNS = 1_000
"""More than any tuning takes: the first turns of two attempts are so far apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One tuning on one type of device."""

    attempt: int
    """0, 1, ...: how often the same was ordered anew."""
    problems: Sequence[Problem]
    """Of every line of the list, in its order."""

    def series(self, digest: str) -> int:
        """Number of its first turn."""
        return int(digest[:8], 16) + self.attempt * TURNS


def read_or_make(path: Path, make: Callable[[], Sequence[Problem]], *, again: bool) -> Record:
    """The record at a path, or a new one.

    Args:
        make: the problems of a new one.
        again: begin another attempt, if there is one already.

    Raises:
        InputError: the file is damaged.
        WorkspaceError: a new one can't be written.
    """
    known = _read(path) if path.is_file() else None
    if known is not None and not again:
        return known
    attempt = 0 if known is None else known.attempt + 1
    record = Record(attempt=attempt, problems=make())
    problems = [problem.to_json() for problem in record.problems]
    text = json.dumps({"attempt": attempt, "problems": problems})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        rule = f"{path} can't be written ({error.strerror})"
        raise WorkspaceError(f"{rule}: free some space, or name another --workspace") from None
    return record


def _read(path: Path) -> Record:
    try:
        values = json.loads(path.read_bytes())
        problems = [Problem.from_json(one) for one in values["problems"]]
        return Record(attempt=int(values["attempt"]), problems=problems)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        rule = f"is no record of a tuning ({error})"
        raise InputError("record", str(path), rule, "delete it, or tune with --again") from None
