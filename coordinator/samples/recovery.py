"""Mending a store in a folder that a power cut or a bad disk has damaged.

The log goes back to its newest whole version; what comes after is moved to STORE/_damaged/, and so
is a checkpoint without which more can be read, because it only repeats what log entries say. Data
files tell by their names whether they are whole, so every row that lies in a whole one is then
committed again (samples/store.py): rows are lost only with the file that holds them.
Object stores do not tear, and are not mended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from coordinator.samples.log import DamagedLogError, DeltaLog
from coordinator.samples.place import FolderPlace, translated

DAMAGED_FOLDER: Final = "_damaged"
HINT: Final = "_last_checkpoint"
"""Delta's file that names the newest checkpoint; without it, the log is listed."""
CHECKPOINTS_TRIED: Final = 3
LOOK_BACK: Final = 100
"""Versions that are tried, the newest first."""
_DIGITS: Final = 20
"""Of a version in the name of a log file."""


class MendedLog(NamedTuple):
    """What is left of a log."""

    log: DeltaLog | None
    """The newest whole version; None: none can be read."""
    lost: str
    """What was put aside; empty: nothing that counts."""


def mend_log(place: FolderPlace) -> MendedLog:
    """Go back to the newest whole version of a log; the caller holds the lock."""
    newest = max(_versions(place), default=0)
    with translated(place.shown):
        whole = _with_fewer_checkpoints(place, newest)
        first_lost = 0 if whole is None else whole.version + 1
        for name in list(_names(place)):
            if int(name[:_DIGITS]) >= first_lost:
                put_aside(place, place.log / name)
    if first_lost > newest:
        return MendedLog(whole, "")
    return MendedLog(whole, f"versions {first_lost} to {newest} of its log")


def put_aside(place: FolderPlace, path: Path) -> Path:
    """Move a damaged file, if it is there, to a free name in STORE/_damaged/."""
    folder = place.path / DAMAGED_FOLDER
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    for number in count(1):
        if not target.exists():
            break
        target = folder / f"{path.name}.{number}"
    if path.exists():
        os.replace(path, target)
        place.sync_log()
    return target


def _with_fewer_checkpoints(place: FolderPlace, newest: int) -> DeltaLog | None:
    """The newest whole version, with or without the hint and the newest checkpoints."""
    put_aside(place, place.log / HINT)
    whole = _newest_whole(place, newest)
    for name in _checkpoints(place)[:CHECKPOINTS_TRIED]:
        if whole and whole.version == newest:
            break
        aside = put_aside(place, place.log / name)
        without = _newest_whole(place, newest)
        if without and (whole is None or without.version > whole.version):
            whole = without
        else:
            os.replace(aside, place.log / name)
            place.sync_log()
    return whole


def _newest_whole(place: FolderPlace, newest: int) -> DeltaLog | None:
    for version in range(newest, max(-1, newest - LOOK_BACK), -1):
        try:
            opened = DeltaLog.load(place, version)
            if opened is None or opened.version != version:
                continue
            opened.check()
            return opened
        except DamagedLogError:
            continue
    return None


def _versions(place: FolderPlace) -> Iterator[int]:
    for name in _names(place):
        if name.endswith(".json"):
            yield int(name[:_DIGITS])


def _checkpoints(place: FolderPlace) -> list[str]:
    """The newest first."""
    return [name for name in reversed(list(_names(place))) if ".checkpoint" in name]


def _names(place: FolderPlace) -> Iterator[str]:
    """The entries and checkpoints of the log, the oldest first."""
    for path in sorted(place.log.iterdir()):
        if path.name[:_DIGITS].isdigit():
            yield path.name
