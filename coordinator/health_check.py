"""`python -m coordinator health`: measure the same cells on every board, judge, and remember.

    WORKSPACE/health.json          what is known of the boards (coordinator/health/record.py)
    WORKSPACE/health/TIME.parquet  the rows of one check, a dataset like any other

The cells are measured as those of a run are, by the same agents, in a workspace of its own that is
deleted at the end: the rows never count as answers of a plan. Does not know how a board is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.fleet.interface import Display
from coordinator.fleet.session import Places, RunSession
from coordinator.fleet.signals import Stop
from coordinator.health.cells import check_plan
from coordinator.health.findings import Verdict
from coordinator.health.judge import judge
from coordinator.health.record import HealthRecord
from coordinator.health.reference import read_reference
from coordinator.health.screen import newest_of_each, predictor_of
from coordinator.samples.export import write_files
from coordinator.samples.store import SampleStore
from coordinator.workspace import Workspace
from gemmcast.errors import GemmcastError


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """What a check came to."""

    verdicts: Sequence[Verdict]
    record: HealthRecord
    """Of the workspace, with these verdicts."""
    file: Path | None
    """The rows; None where those of the store were judged."""
    left: int = 0
    """Cells that were not measured in the time."""
    silent: int = 0
    """Agents that have not started in the time: others hold their GPUs, or the GPUs hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the agents have measured."""

    rows: pa.Table
    left: int
    silent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A signal came before the check was done; nothing is judged."""


def check_boards(
    place: Workspace,
    seconds: float,
    display: Display,
    address: str | None = None,
    dataset: Path | None = None,
    *,
    without_token: bool = False,
) -> HealthCheck | Interrupted:
    """Check every board of a cluster, or this machine's.

    Args:
        seconds: the check ends after this time, with what was measured by then.
        address: of a Ray cluster; None: that of the environment, or a cluster of our own.
        dataset: a recorded dataset that answers in place of boards.
        without_token: use all nodes of a cluster though it asks for no token.

    Raises:
        InputError: health.json or the dataset can't be read.
        GemmcastError: no board has answered in the time.
    """
    record = HealthRecord.read(place.health)
    plan = check_plan("auto") if dataset is None else check_plan("replay", str(dataset))
    with TemporaryDirectory(prefix="gemmcast-health-") as folder:
        # The nodes keep the descriptions of their devices where runs do.
        places = Places(model_dir=place.node)
        session = RunSession(plan, Workspace(Path(folder)), places, display)
        with session.open(address, without_token=without_token) as stop:
            measured = _measured(session, seconds, stop)
    if isinstance(measured, Interrupted):
        return measured
    if not len(measured.rows):
        raise GemmcastError(
            f"no board has answered in {seconds:g} s: others may hold the GPUs of the cluster; "
            "end their jobs, or give --seconds more"
        )
    file = place.path / "health" / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}.parquet"
    write_files({file: _parquet(measured.rows)})
    verdicts = judge(measured.rows, predictor_of(place), read_reference())
    record = record.after_check(verdicts)
    record.write(place.health)
    return HealthCheck(
        verdicts=verdicts,
        record=record,
        file=file,
        left=measured.left,
        silent=measured.silent,
    )


def check_samples(place: Workspace, store: str | None) -> HealthCheck:
    """Judge the boards by the samples of a store; nothing is measured.

    Raises:
        InputError: there are no samples, or health.json can't be read.
    """
    if store is None:
        place.must_exist()
    record = HealthRecord.read(place.health)
    samples = SampleStore.open(store or place.samples, create=False).read()
    newest = newest_of_each(record.without_sick(samples))
    verdicts = judge(newest, predictor_of(place), read_reference(), model_alone=False)
    record = record.after_run(verdicts)
    record.write(place.health)
    return HealthCheck(verdicts=verdicts, record=record, file=None)


def clear_board(place: Workspace, board: str) -> HealthRecord:
    """End a board's spell by hand. Raises InputError where it is not sick."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = HealthRecord.read(place.health).cleared(board, now)
    record.write(place.health)
    return record


def _measured(session: RunSession, seconds: float, stop: Stop) -> Measured | Interrupted:
    until_s = monotonic() + seconds

    def is_over() -> bool:
        """Whether the time has run out, or a signal has come."""
        return stop() or monotonic() > until_s

    summary = session.run(is_over, train=False, label="checking")
    if stop():
        return Interrupted()
    left = summary.cells - summary.done
    return Measured(rows=session.store.read(), left=left, silent=session.fleet.starting())


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
