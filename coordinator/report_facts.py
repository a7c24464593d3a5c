"""What a workspace says besides its samples, for the report's first screen."""

from __future__ import annotations

import os
from pathlib import Path

from coordinator.fleet.live import LiveRun
from coordinator.fleet.record import RunRecord
from coordinator.health.record import HealthRecord
from coordinator.report.advice import Around
from coordinator.workspace import Workspace
from gemmcast.errors import InputError


def around_report(place: Workspace, page: Path | None) -> Around:
    """Of a workspace.

    Args:
        place: the workspace.
        page: the page that asks the model, if it was written beside the report.
    """
    run = LiveRun.read(place.live)
    record = RunRecord.read(place.run)
    return Around(
        workspace=_as_typed(place.path),
        due=run.due if run else record.contended_due,
        second_due=record.second_due,
        sick=_sick(place),
        ask_page=page.name if page else "",
    )


def _as_typed(path: Path) -> str:
    """Below the working directory, relative to it."""
    text = os.path.relpath(path)
    return str(path) if text.startswith("..") else text


def _sick(place: Workspace) -> dict[str, str]:
    try:
        sick = HealthRecord.read(place.health).sick()
    except InputError:
        # `health` and `train` refuse a damaged record; the report shows the rest
        return {}
    return {board.board: board.text for board in sick}
