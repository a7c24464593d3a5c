"""Findings from how rows ended: wrong results, errors, other processes on the device.

A kernel with a bug is wrong on every board; a board with a fault is wrong where others are right.
So a row counts only where no other board was wrong, and where some board was right: another one at
the same cell, others with the same kernel, or this one with that kernel, because a defect of memory
or of arithmetic does not strike every cell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from coordinator.health.findings import Finding

CELL: Final = ("family", "kernel", "dtype", "m", "n", "k", "batch", "layout", "tile_m", "tile_n")
KERNEL: Final = CELL[:3]
ERRORS: Final = ("cuda_error", "crashed", "timeout")
ANSWERED: Final = ("ok", "throttled", "power_disputed")
SHARED: Final = 1 / 3
"""From this share of contended rows on a board is not judged."""
FEWEST_RIGHT: Final = 3
"""Rows of the same kernel, at other cells, that ended well."""
COLUMNS: Final = ("device_uuid", "status", "reason", *CELL)

Key = tuple[object, ...]
"""A cell, or the first parts of one: a kernel."""
Row = dict[str, object]


class Outcomes:
    """How often rows ended how, by cell, by kernel and by board.

    Args:
        rows: with COLUMNS, of one type of device.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows_of: dict[str, list[Row]] = defaultdict(list)
        self._all: dict[Key, Counter[object]] = defaultdict(Counter)
        self._own: dict[tuple[str, Key], Counter[object]] = defaultdict(Counter)
        for row in rows:
            board = str(row["device_uuid"])
            self.rows_of[board].append(row)
            for key in _keys(row):
                self._all[key][row["status"]] += 1
                self._own[board, key][row["status"]] += 1

    def findings(self, board: str) -> list[Finding]:
        """What the statuses of a board say."""
        findings: list[Finding] = []
        wrong = self._alone(board, ("incorrect",))
        if wrong:
            text = f"computed {_results(wrong)} where {self._witness(board, wrong[0])}"
            findings.append(Finding(sort="wrong", text=f"{text}, as in {_name(wrong[0])}"))
        failed = self._alone(board, ERRORS)
        if failed:
            text = f"failed in {_cells(failed)} where {self._witness(board, failed[0])}, as in"
            reason = f"{_name(failed[0])}: {failed[0]['reason']}"
            findings.append(Finding(sort="failing", text=f"{text} {reason}"))
        rows = self.rows_of[board]
        contended = [row for row in rows if row["status"] == "contended"]
        if contended and len(contended) >= SHARED * len(rows):
            share = f"{len(contended)} of {len(rows)} cells were disturbed"
            text = f"can't be judged, because others use it: {share} ({contended[-1]['reason']})"
            findings.append(Finding(sort="shared", text=text))
        return findings

    def _alone(self, board: str, statuses: Sequence[str]) -> list[Row]:
        """The rows that ended so on this board, and can't be the kernel's fault."""
        ended = [row for row in self.rows_of[board] if row["status"] in statuses]
        return [row for row in ended if self._is_boards(board, row, statuses)]

    def _is_boards(self, board: str, row: Row, statuses: Sequence[str]) -> bool:
        cell, kernel = _keys(row)
        others = self._others(board, kernel)
        if any(others[status] for status in statuses):
            return False
        if _right(self._others(board, cell)) or _right(others) >= FEWEST_RIGHT:
            return True
        return _right(self._own[board, kernel]) >= FEWEST_RIGHT

    def _others(self, board: str, key: Key) -> Counter[object]:
        """Status -> rows of other boards."""
        return self._all[key] - self._own[board, key]

    def _witness(self, board: str, row: Row) -> str:
        cell, kernel = _keys(row)
        if _right(self._others(board, cell)):
            return "other boards are right"
        right = _right(self._others(board, kernel))
        if right >= FEWEST_RIGHT:
            return f"the same kernel was right {right} times on other boards"
        return f"the same kernel was right {_right(self._own[board, kernel])} times"


def outcomes_of(table: pa.Table) -> Outcomes:
    """The outcomes of rows of one type of device, in the sample schema."""
    return Outcomes(table.select(COLUMNS).to_pylist())


def _keys(row: Row) -> tuple[Key, Key]:
    """The cell and the kernel of a row."""
    cell = tuple(row[name] for name in CELL)
    return cell, cell[: len(KERNEL)]


def _right(statuses: Counter[object]) -> int:
    return sum(statuses[status] for status in ANSWERED)


def _results(rows: Sequence[Row]) -> str:
    return "a wrong result" if len(rows) == 1 else f"{len(rows)} wrong results"


def _cells(rows: Sequence[Row]) -> str:
    return "1 cell" if len(rows) == 1 else f"{len(rows)} cells"


def _name(row: Row) -> str:
    return f"{row['family']} {row['m']}x{row['n']}x{row['k']} {row['dtype']}"
