"""What a workspace remembers of its boards: health.json.

    boards    the newest verdict on each board, and since when it has each finding
    spells    the times in which a board was sick: its samples of them are never trained on

A spell begins when a board is first seen sick, by a check or in the samples of a run, and ends with
the first check that sees it well, or with `health --clear`. The samples stay in the store.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from coordinator.health.findings import SICK, Finding, Verdict
from gemmcast.errors import InputError
from gemmcast.modeldir import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardHealth:
    """The newest verdict on one board."""

    board: str
    """UUID."""
    device: str
    """Name of the product."""
    agent: str
    """The agent that measured it last; it names the node."""
    checked_at: str
    """UTC, ISO 8601."""
    is_sick: bool
    findings: tuple[Finding, ...]

    @property
    def text(self) -> str:
        """What it has and since when, for people."""
        texts = [f"{finding.text}, since {finding.since}" for finding in self.findings]
        return "; ".join(texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """A time in which a board was sick."""

    board: str
    """UUID."""
    since: str
    """UTC, ISO 8601."""
    until: str | None = None
    """None: it is sick still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRecord:
    """The content of health.json."""

    boards: dict[str, BoardHealth] = field(default_factory=dict)
    """UUID -> the newest verdict."""
    spells: tuple[Spell, ...] = ()
    """In the order in which they began."""

    @staticmethod
    def read(path: Path) -> HealthRecord:
        """That of a workspace; an empty one where no board was judged.

        Raises:
            InputError: the file is damaged. To go on without it could train on what is wrong.
        """
        try:
            values = json.loads(path.read_bytes())
            boards = [_board(one) for one in values["boards"]]
            spells = tuple(Spell(**one) for one in values["spells"])
        except FileNotFoundError:
            return HealthRecord()
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            rule = f"can't be read ({error}), so the boards that are sick are not known"
            way_out = "delete it and run `python -m coordinator health` again"
            raise InputError("health.json", str(path), rule, way_out) from None
        return HealthRecord(boards={board.board: board for board in boards}, spells=spells)

    def write(self, path: Path) -> None:
        """Replace the file."""
        boards = [asdict(board) for board in self.boards.values()]
        spells = [asdict(spell) for spell in self.spells]
        text = json.dumps({"boards": boards, "spells": spells}, indent=1)
        write_atomically(path, text.encode())

    def sick(self) -> list[BoardHealth]:
        """The boards that are sick now."""
        ill = {spell.board for spell in self.spells if spell.until is None}
        return [board for uuid, board in self.boards.items() if uuid in ill]

    def labels(self) -> list[tuple[dict[str, str], bool]]:
        """For a metric: labels of each board, and whether it is sick, for that reason.

        The empty reason stands for any. A board that was never sick has this one alone.
        """
        sick, ever_sick = self.sick(), {spell.board for spell in self.spells}
        labelled: list[tuple[dict[str, str], bool]] = []
        for board in self.boards.values():
            sorts = {finding.sort for finding in board.findings}
            for reason in ("", *SICK) if board.board in ever_sick else ("",):
                labels = {"board": board.board, "device": board.device, "reason": reason}
                is_so = board in sick and (not reason or reason in sorts)
                labelled.append((labels, is_so))
        return labelled

    def after_check(self, verdicts: Sequence[Verdict]) -> HealthRecord:
        """With the verdicts of a check, which also end spells."""
        return reduce(HealthRecord._checked, verdicts, self)

    def after_run(self, verdicts: Sequence[Verdict]) -> HealthRecord:
        """With verdicts from the samples of a run: a board that is sick stays so until a check."""
        sick = [verdict for verdict in verdicts if verdict.is_sick]
        return reduce(HealthRecord._checked, sick, self)

    def cleared(self, board: str, now: str) -> HealthRecord:
        """With the board's spell ended by hand.

        Raises:
            InputError: it is not sick.
        """
        if board not in {one.board for one in self.sick()}:
            names = ", ".join(one.board for one in self.sick()) or "none"
            raise InputError("--clear", board, "is not sick", f"name one of: {names}")
        well = replace(self.boards[board], is_sick=False, findings=())
        return replace(self, boards=self.boards | {board: well}, spells=self._ended(board, now))

    def without_sick(self, table: pa.Table) -> pa.Table:
        """The samples that no board measured while it was sick."""
        for spell in self.spells:
            is_in = pc.and_(
                pc.equal(table["device_uuid"], spell.board),
                pc.greater_equal(table["measured_at"], spell.since),
            )
            if spell.until is not None:
                is_in = pc.and_(is_in, pc.less(table["measured_at"], spell.until))
            table = table.filter(pc.invert(pc.fill_null(is_in, False)))
        return table

    def _checked(self, verdict: Verdict) -> HealthRecord:
        if not verdict.is_judged:
            return self
        findings = tuple(self._dated(verdict, finding) for finding in verdict.findings)
        board = BoardHealth(
            board=verdict.board,
            device=verdict.device,
            agent=verdict.agent,
            checked_at=verdict.checked_at,
            is_sick=verdict.is_sick,
            findings=findings,
        )
        spells = self.spells
        is_ill = verdict.board in {one.board for one in self.sick()}
        if verdict.is_sick and not is_ill:
            since = min(finding.since for finding in findings)
            spells = (*spells, Spell(board=verdict.board, since=since))
        elif is_ill and not verdict.is_sick:
            spells = self._ended(verdict.board, verdict.checked_at)
        return HealthRecord(boards=self.boards | {board.board: board}, spells=spells)

    def _dated(self, verdict: Verdict, finding: Finding) -> Finding:
        """The finding with the time since when the board has it, without a pause."""
        before = self.boards.get(verdict.board)
        for earlier in before.findings if before is not None else ():
            if earlier.sort == finding.sort:
                return replace(finding, since=earlier.since)
        return replace(finding, since=finding.since or verdict.began_at)

    def _ended(self, board: str, until: str) -> tuple[Spell, ...]:
        ended: list[Spell] = []
        for spell in self.spells:
            is_its = spell.board == board and spell.until is None
            ended.append(replace(spell, until=until) if is_its else spell)
        return tuple(ended)


def _board(values: dict[str, Any]) -> BoardHealth:
    findings = tuple(Finding(**finding) for finding in values.pop("findings"))
    return BoardHealth(**values, findings=findings)
