"""The judgement: from samples to one verdict for each board.

The samples may be those of a check, in which every board measures the same cells, or those of a
sweep, in which boards divide them. Each board is held against its sisters at the same cells; where
there are none, at cells that are alike; where there are too few, against the model alone. Boards of
one type are those of one name. Pure: reads rows, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coordinator.health.expected import expected
from coordinator.health.findings import KIND_NAMES, Finding, Verdict
from coordinator.health.outcomes import outcomes_of
from coordinator.health.readings import Mask, Numbers, column, medians, readings_of
from coordinator.health.shifts import (
    Shift,
    Spread,
    against_alike,
    against_model,
    against_sisters,
)
from coordinator.health.since import since
from coordinator.health.speed import speed_findings
from coordinator.health.state import States
from gemmcast import Predictor
from gemmcast.descriptions import ESTIMATED

TIME: Final = {
    "cuda": {
        "compute": Spread(boards=0.004, cells=0.005, mixes=0.004, model=0.025),
        # H200s of two hosts differ by 3 % in the largest of these cells.
        "memory": Spread(boards=0.009, cells=0.005, mixes=0.004, model=0.025),
        "small": Spread(boards=0.005, cells=0.005, mixes=0.005, model=0.04),
    },
    # One host stands beside others only by name: its neighbours and its memory differ.
    "cpu": dict.fromkeys(KIND_NAMES, Spread(boards=0.05, cells=0.03, mixes=0.05, model=0.15)),
}
"""Kind of device -> kind of cell -> spread of runtimes at one clock and temperature."""
CLOCK: Final = Spread(boards=0.006, cells=0.01, mixes=0.0, model=0.0)
POWER: Final = Spread(boards=0.025, cells=0.02, mixes=0.0, model=0.0)


def judge(
    table: pa.Table,
    predictor: Predictor,
    reference: pa.Table | None = None,
    *,
    model_alone: bool = True,
) -> list[Verdict]:
    """One verdict for each board of the samples, by device and UUID.

    Args:
        table: samples, in the sample schema; rows of imported tables are left out.
        predictor: of a file, not of a node's directory, whose boards describe themselves.
        reference: readings of healthy boards, which are sisters and are not judged.
        model_alone: whether a board may be slow by the model alone, where there is no sister. Not
            in a run: there it is the model that learns from the board.
    """
    is_own = pc.invert(pc.starts_with(table["device_uuid"], ESTIMATED))
    table = table.filter(is_own)
    verdicts: list[Verdict] = []
    for rows, others in _types(table, reference):
        verdicts += _Type(rows, others, predictor, model_alone).verdicts()
    return verdicts


def _types(table: pa.Table, reference: pa.Table | None) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The rows of each type, with those of the reference that belong to it."""
    types = table.group_by(["device", "compute_units"], use_threads=False).aggregate([])
    for kind in types.to_pylist():
        rows = _of_type(table, kind)
        if reference is None:
            yield rows, rows.slice(0, 0)
            continue
        others = _of_type(reference, kind)
        judged = pc.is_in(others["device_uuid"], pc.unique(rows["device_uuid"]))
        yield rows, others.filter(pc.invert(judged))


def _of_type(table: pa.Table, kind: Mapping[str, object]) -> pa.Table:
    """Slices of a GPU (MIG) have its name, but fewer units."""
    is_of = pc.equal(table["device"], kind["device"])
    return table.filter(pc.and_(is_of, pc.equal(table["compute_units"], kind["compute_units"])))


class _Type:
    """The boards of one type."""

    def __init__(
        self, rows: pa.Table, others: pa.Table, predictor: Predictor, model_alone: bool
    ) -> None:
        self._rows = rows
        self._whole = pa.concat_tables([rows, others])
        self._readings = readings_of(self._whole)
        read = self._whole.take(pa.array(self._readings.row))
        self._expected = expected(read, predictor)
        self._model_alone = model_alone
        self._time = TIME[rows["device_kind"][0].as_py() or "cuda"]
        self._moments = column(self._whole["measured_at"])
        self._states = States(self._whole, self._readings)

    def verdicts(self) -> list[Verdict]:
        """Of the boards that are judged."""
        outcomes = outcomes_of(self._whole)
        boards = sorted(set(self._rows["device_uuid"].to_pylist()))
        return [self._verdict(board, outcomes.findings(board)) for board in boards]

    def _verdict(self, board: str, outcomes: list[Finding]) -> Verdict:
        rows = self._rows.filter(pc.equal(self._rows["device_uuid"], board))
        shifts = self._shifts(board)
        findings = list(outcomes)
        # Whatever a neighbour slows down is no fault of the board.
        if not any(finding.sort == "shared" for finding in outcomes):
            moment = self._since(board)
            for finding in speed_findings(shifts, self._states.of(board)):
                findings.append(replace(finding, since=moment))
        return Verdict(
            board=board,
            device=rows["device"][0].as_py(),
            agent=rows["agent"][0].as_py(),
            cells=int((self._readings.board == board).sum()),
            began_at=pc.min(rows["measured_at"]).as_py() or "",
            checked_at=pc.max(rows["measured_at"]).as_py() or "",
            findings=tuple(findings),
            shifts=shifts,
        )

    def _shifts(self, board: str) -> dict[str, Shift]:
        readings = self._readings
        own = readings.board == board
        shifts: dict[str, Shift | None] = {}
        for kind in KIND_NAMES:
            of_kind = readings.kind == kind
            spread = self._time[kind]
            shifts[kind] = self._time_shift(board, of_kind, readings.log_us, spread)
            shifts[f"raw {kind}"] = self._time_shift(board, of_kind, readings.raw_log_us, spread)
            shifts[f"model {kind}"] = self._against_model(board, of_kind, spread)
        capped_sisters = (readings.is_capped > 0) & ~own
        shifts["clock"] = self._against_sisters(board, readings.log_mhz, ~capped_sisters, CLOCK)
        shifts["power"] = self._against_sisters(board, readings.log_w, own | ~own, POWER)
        return {name: shift for name, shift in shifts.items() if shift is not None}

    def _time_shift(
        self, board: str, of_kind: Mask, log_us: Numbers, spread: Spread
    ) -> Shift | None:
        """Of cells of one kind, by the best yardstick that there is."""
        readings = self._readings
        shift = self._against_sisters(board, log_us, of_kind, spread)
        if shift is None:
            over_model = np.where(of_kind, self._over_model, np.nan)
            shift = against_alike(over_model, readings.board, readings.alike, board, spread)
        if shift is None and self._model_alone:
            shift = self._against_model(board, of_kind, spread)
        return shift

    @property
    def _over_model(self) -> Numbers:
        """The model speaks of a board as it runs, at whatever clock."""
        return self._readings.raw_log_us - self._expected.log_us

    def _against_model(self, board: str, of_kind: Mask, spread: Spread) -> Shift | None:
        if not self._expected.is_trusted:
            return None
        return against_model(self._over_model[of_kind & (self._readings.board == board)], spread)

    def _since(self, board: str) -> str:
        """When its readings rose."""
        readings, over_model = self._readings, self._over_model
        usual = medians(readings.alike, over_model, int(readings.alike.max(initial=-1)) + 1)
        own = readings.board == board
        return since((over_model - usual[readings.alike])[own], self._moments[readings.row[own]])

    def _against_sisters(
        self, board: str, values: Numbers, counted: Mask, spread: Spread
    ) -> Shift | None:
        readings = self._readings
        held = np.where(counted, values, np.nan)
        return against_sisters(held, readings.board, readings.cell, board, spread)
