"""`python -m coordinator health`: check every board, and say which is not well.

Exit code 0: all are well; 1: some are not, or have not answered.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from coordinator.fleet.signals import leave_interrupted
from coordinator.options import (
    WORKSPACE,
    Address,
    AsJson,
    ClearedBoard,
    HealthDataset,
    OfSamples,
    Seconds,
    StoreUri,
    WithoutToken,
    WorkspacePath,
)
from gemmcast.errors import InputError
from gemmcast.program import FAILED

if TYPE_CHECKING:
    from coordinator.health_check import HealthCheck


def health(
    seconds: Seconds = 60.0,
    workspace: WorkspacePath = WORKSPACE,
    address: Address = None,
    without_token: WithoutToken = False,
    samples: OfSamples = False,
    store: StoreUri = None,
    dataset: HealthDataset = None,
    clear: ClearedBoard = None,
    json: AsJson = False,
) -> None:
    """Measure the same cells on every board, and say which is slow, hot, capped or wrong."""
    from coordinator import terminal
    from coordinator.health_check import Interrupted, check_boards, check_samples, clear_board
    from coordinator.progress import RunDisplay
    from coordinator.workspace import Workspace

    if not 0 < seconds <= 3600:
        raise InputError("--seconds", seconds, "must be above 0, up to 3600", "give a time")
    place = Workspace(workspace)
    if clear is not None:
        clear_board(place, clear)
        line = f"{clear} is cleared: its samples from now on are trained on"
        terminal.result({"cleared": clear}, as_json=json, text=lambda: terminal.show_line(line))
        return
    if samples:
        check = check_samples(place, store)
    else:
        measured = check_boards(
            place, seconds, RunDisplay(), address, dataset, without_token=without_token
        )
        if isinstance(measured, Interrupted):
            leave_interrupted()
        check = measured
    values = _values(check)

    def text() -> None:
        """The result for people."""
        for line in _lines(check):
            terminal.show_line(line)

    terminal.result(values, as_json=json, text=text)
    if check.silent or values["sick"]:
        raise typer.Exit(FAILED)


def _values(check: HealthCheck) -> dict[str, Any]:
    """The result of `health --json`."""
    boards = []
    for verdict in check.verdicts:
        board = asdict(verdict) | {"sick": verdict.is_sick, "judged": verdict.is_judged}
        known = check.record.boards.get(verdict.board)
        if known is not None and verdict.findings:
            board["findings"] = [asdict(finding) for finding in known.findings]
        boards.append(board)
    return {
        "sick": sorted(verdict.board for verdict in check.verdicts if verdict.is_sick),
        "boards": boards,
        "left": check.left,
        "silent": check.silent,
        "file": str(check.file) if check.file else None,
    }


def _lines(check: HealthCheck) -> list[str]:
    lines: list[str] = []
    for verdict in check.verdicts:
        known = check.record.boards.get(verdict.board)
        lines += verdict.lines()
        earliest = min((one.since for one in known.findings), default="") if known else ""
        if verdict.is_sick and earliest and earliest < verdict.began_at:
            lines.append(f"  since {earliest}")
    sick = sum(verdict.is_sick for verdict in check.verdicts)
    unjudged = sum(not verdict.is_judged for verdict in check.verdicts)
    rest = f", not judged: {unjudged}" if unjudged else ""
    lines.append(f"Boards checked: {len(check.verdicts)}, sick: {sick}{rest}.")
    if check.silent:
        lines.append(f"{check.silent} boards have not answered: others hold them, or they hang.")
    if check.left:
        lines.append(f"{check.left} cells were not measured in the time; --seconds gives it more.")
    return lines
