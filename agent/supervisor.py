"""The parent's side of the measuring child: start it, feed it, watch it, kill it, start another.

A cell that runs over its limit costs the child its life and becomes a row "timeout"; time in the queue does not count. A child that
dies under a cell gets one successor to try it again; twice is a row "crashed". A fault that the child reports itself ("fatal") is a
row already: it only needs a fresh child. Where several cells were under way, nobody knows whose fault it was: each is then measured
alone, and only what happens there counts. Knows nothing of Ray.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any

from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import GemmcastError
from gemmcast.rows import Row, failed

log = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0
# imports, kernels, measured peaks
TICK_S = 0.2
MAX_DEATHS = 2
# of the child under one cell
MAX_CRASHED_IN_A_ROW = 4
# cells, before the fault is taken to be the node's and not theirs
LAST_BREATH_S = 1.0
ROOT = Path(__file__).resolve().parent.parent


class ChildDied(GemmcastError):
    """The measuring process can't start, or dies under every cell."""


class _Lease:
    """The cells of one call that have no row yet. Of several that were under way when a child died, each is tried alone."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.todo = list(cells)
        self.deaths = Counter[str]()
        self.under_way: list[Cell] = []
        self.suspects: list[Cell] = []

    def ask(self) -> list[Cell]:
        """What the child is to measure now."""
        self.under_way = []
        return self.suspects[:1] or self.todo

    def start(self, cell_id: str) -> None:
        self.under_way.append(next(cell for cell in self.todo if cell.cell_id == cell_id))

    def remove(self, cell_id: str) -> None:
        for cells in (self.todo, self.under_way, self.suspects):
            at = next((i for i, cell in enumerate(cells) if cell.cell_id == cell_id), None)
            if at is not None:
                del cells[at]

    def culprit(self) -> Cell | None:
        """The one cell under which the child can have died; None makes suspects of several."""
        if len(self.under_way) > 1:
            self.suspects = list(self.under_way)
            log.warning("%d cells were under way when the measuring process ended; they are tried one by one", len(self.suspects))
            return None
        return (self.under_way or self.suspects or self.todo)[0]


class ChildSupervisor:
    """Owns one measuring child.

    Args:
        spec: kind, agent, model_dir, procedure; for replay also dataset and device_name; depth, where fewer cells than the device's own
            number are to be under way at once.
        timeout_s: a cell's limit.
        program: started as the child, with its two arguments.
    """

    def __init__(self, spec: dict[str, Any], timeout_s: float, program: Sequence[str] = (sys.executable, "-m", "agent.child")) -> None:
        self._spec, self._timeout_s, self._program = spec, timeout_s, program
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._crashed_in_a_row = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as we do
        weakref.finalize(self, self._log.close)
        self.device = self._start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def measure(self, cells: Sequence[Cell]) -> Iterator[Row | None]:
        """A row for each cell, as they are done; None now and then while a long one runs."""
        lease = _Lease(cells)
        try:
            while lease.todo:
                if self._process is None:
                    self.device = self._start()
                assert self._pipe is not None
                try:
                    asked = lease.ask()
                    depth = 1 if lease.suspects else self._spec.get("depth")
                    self._pipe.send_bytes(json.dumps({"measure": [cell.to_dict() for cell in asked], "depth": depth}).encode())
                    for row in self._listen(self._pipe, lease, len(asked)):
                        if row is not None:
                            self._crashed_in_a_row = 0
                        yield row
                except (EOFError, OSError):
                    if row := self._after_death(lease, self.stop(LAST_BREATH_S)):
                        yield row
        finally:
            if lease.todo:  # the caller left early: what the child still sends would be taken for the next call's rows
                self.stop()

    def _after_death(self, lease: _Lease, status: int | None) -> Row | None:
        """A row "crashed", where it is clear which cell it was."""
        culprit = lease.culprit()
        if culprit is None:
            return None
        lease.deaths[culprit.cell_id] += 1
        log.warning("the measuring process died (%s) under %s", status, culprit.cell_id)
        if lease.deaths[culprit.cell_id] < MAX_DEATHS:
            return None
        reason = f"the measuring process died with status {status}, {MAX_DEATHS} times: {self._last_words()}"
        self._crashed_in_a_row += 1
        if self._crashed_in_a_row > MAX_CRASHED_IN_A_ROW:
            raise ChildDied(f"{self._crashed_in_a_row} cells in a row crashed on {self._spec['agent']}, the last one: {reason}")
        lease.remove(culprit.cell_id)
        return self._failed(culprit, "crashed", reason)

    def _listen(self, pipe: Connection, lease: _Lease, expected: int) -> Iterator[Row | None]:
        deadline_s = monotonic() + self._timeout_s
        while expected:
            if not pipe.poll(TICK_S):
                if monotonic() > deadline_s:
                    self.stop()
                    yield from self._blame(lease, "timeout", f"ran longer than {self._timeout_s:g} s and was killed")
                    return
                yield None
                continue
            message = json.loads(pipe.recv_bytes())
            deadline_s = monotonic() + self._timeout_s
            if "started" in message:
                lease.start(message["started"])
            elif "fault" in message:
                log.warning("the device failed: %s", message["fault"])
                self.stop()
                yield from self._blame(lease, "cuda_error", message["fault"])
                return
            elif "row" in message:
                expected -= 1
                lease.remove(message["row"]["cell_id"])
                if message["fatal"]:
                    self.stop()
                yield message["row"]
                if message["fatal"]:
                    return

    def _blame(self, lease: _Lease, status: str, reason: str) -> Iterator[Row]:
        """A row, where it is clear which cell it was; else there are suspects now."""
        if (culprit := lease.culprit()) is not None:
            lease.remove(culprit.cell_id)
            yield self._failed(culprit, status, reason)

    def stop(self, grace_s: float = 0.0) -> int | None:
        """End the child, by force after `grace_s`; its exit status."""
        if self._process is None:
            return None
        try:
            status = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if self._pipe:
            self._pipe.close()
        self._process = self._pipe = None
        return status

    def _start(self) -> Device:
        ours, theirs = Pipe()
        spec = {**self._spec, "parent": os.getpid()}
        # Ray sets OMP_NUM_THREADS=1 in its workers; how many threads BLAS uses is a knob that we measure
        env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        command = [*self._program, str(theirs.fileno()), json.dumps(spec)]
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._log.seek(0)
        self._log.truncate()
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=env)
        theirs.close()
        self._pipe = ours
        try:
            if not ours.poll(START_TIMEOUT_S):
                raise EOFError
            return Device.from_json(json.dumps(json.loads(ours.recv_bytes())["ready"]))
        except (EOFError, OSError):
            self.stop()
            raise ChildDied(f"the measuring process of {self._spec['agent']} did not start: {self._last_words()}") from None

    def _failed(self, cell: Cell, status: str, reason: str) -> Row:
        return failed(cell, self.device, self._spec["agent"], status, reason)

    def _last_words(self) -> str:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 400))
        return self._log.read().decode(errors="replace").strip() or "it printed nothing"
