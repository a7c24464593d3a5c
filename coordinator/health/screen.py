"""What a run does about sick boards: judge the newest samples, remember, leave theirs out.

Called with all samples before each training. A run judges boards by cells that they divide among
them; a board is sick until a check sees it well (coordinator/health/record.py).
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from coordinator.health.judge import judge
from coordinator.health.readings import codes
from coordinator.health.record import HealthRecord
from coordinator.workspace import Workspace
from gemmcast import Predictor, modeldir, models
from gemmcast.errors import ModelFileError

log = logging.getLogger(__name__)

NEWEST_ROWS = 300
"""Rows of each board that are judged: a board that was well for a day is sick now."""


def screened(table: pa.Table, place: Workspace) -> pa.Table:
    """The samples that a model may be trained on: those of boards while they were well.

    Boards that are not well are noted in the workspace and named in the log.

    Raises:
        InputError: health.json is damaged.
    """
    record = HealthRecord.read(place.health)
    healthy = record.without_sick(table)
    verdicts = judge(newest_of_each(healthy), predictor_of(place), model_alone=False)
    known = {board.board for board in record.sick()}
    after = record.after_run(verdicts)
    if after.spells == record.spells:
        return healthy
    for board in after.sick():
        if board.board not in known:
            text = "board %s %s: its samples are left out of training"
            log.warning(text, board.board, board.text)
    after.write(place.health)
    return after.without_sick(table)


def newest_of_each(table: pa.Table, count: int = NEWEST_ROWS) -> pa.Table:
    """The last rows of each board."""
    boards = codes([table["device_uuid"]])
    in_order = np.argsort(boards, kind="stable")
    last = np.cumsum(np.bincount(boards))[boards[in_order]]
    is_newest = last - np.arange(len(boards)) <= count
    return table.take(pa.array(np.sort(in_order[is_newest])))


def predictor_of(place: Workspace) -> Predictor:
    """The champion on this node, or else the model that comes with gemmcast.

    Its file, not the directory: there the boards of this node describe themselves.
    """
    try:
        current = modeldir.read_current(place.node)
        return Predictor(place.node / current.file)
    except (ModelFileError, OSError):
        return Predictor(models.path())
