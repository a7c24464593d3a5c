"""What a run's models start from: `[train] base` of its plan, read and published.

The base that contains a device of the fleet becomes version 1 before anything is measured, and the
agents answer from it; the trainings after it start from the same file. Where a registry has a
champion already, that stays. Does not know how a model is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from coordinator.fleet.publishing import Judged
from coordinator.plan.schema import NO_BASE, SHIPPED
from costmodel.base import Base, choose
from gemmcast import models
from gemmcast.errors import InputError


def read_bases(base: str | Sequence[str]) -> list[Base]:
    """The models that `train.base` names, in its order.

    Raises:
        InputError: a file can't be read, or is of an older contract.
        ModelFileError: a file is damaged, or no model of gemmcast.
    """
    if base == NO_BASE:
        return []
    if base == SHIPPED:
        return [Base.read(models.path(), name=f"gemmcast's {models.DEFAULT}")]
    return [Base.read(Path(file)) for file in base]


def named_bases(names: Sequence[str] | None) -> list[Base]:
    """The models that the command line names with `--base`; without it, the shipped one.

    Raises:
        InputError: `shipped` or `none` beside others, or as `read_bases`.
    """
    if not names:
        return read_bases(SHIPPED)
    words = {SHIPPED, NO_BASE} & set(names)
    if words and len(names) > 1:
        rule = "stands beside other names"
        raise InputError("--base", ", ".join(names), rule, "give it alone, or model files only")
    return read_bases(names[0] if words else names)


def base_for(table: pa.Table, bases: Sequence[Base]) -> Base | None:
    """The base for the devices of some samples; None where none contains their kind."""
    devices = table.select(["device", "device_kind"]).group_by(["device", "device_kind"])
    rows = devices.aggregate([]).to_pylist()
    return choose(bases, {row["device"]: row["device_kind"] for row in rows})


def judged_base(base: Base) -> Judged:
    """The base as a version: with its own card, and no objection to it."""
    return base.model, replace(base.card, base=base.title), None
