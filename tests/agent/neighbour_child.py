"""A measuring child like agent/child.py, whose CPU backend has three cells under way and fails.

    python tests/agent/neighbour_child.py FD PARENT ...

The environment variable TROUBLE holds JSON: {"notes": a file, "trouble": {kind: [m of cells, ...]}}

    dies       the process is killed as the cell begins
    dies_once  the same, but only the first time
    hangs      the host sleeps
    faults     the device's error

Each child notes its start and each failure in that file, a line each.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from agent import child
from agent.devices.cpu import CpuBackend, CpuClock
from agent.instrument import Instrument, LiveInstrument
from agent.spec import AgentSpec
from gemmcast import modeldir
from gemmcast.gemm import Gemm

MODULE = {"__module__": "cupy_backends.cuda.api.runtime"}
CUDARuntimeError = type("CUDARuntimeError", (RuntimeError,), MODULE)


class FailingBackend(CpuBackend):
    """Fails as a cell's operands are made: cells that began before are under way then."""

    depth = 3

    def __init__(self, trouble: dict[str, list[int]], notes: Path) -> None:
        super().__init__(CpuClock(preemptions=lambda: 0))
        self._trouble = trouble
        self._notes = notes

    def operands(self, gemm: Gemm, *, cold: bool, metered: bool = False) -> Any:
        for kind, sizes in self._trouble.items():
            if gemm.m in sizes:
                self._fail(kind, gemm.m)
        return super().operands(gemm, cold=cold, metered=metered)

    def note(self, text: str) -> None:
        with self._notes.open("a") as file:
            file.write(f"{text}\n")

    def _fail(self, kind: str, m: int) -> None:
        line = f"{kind} {m}"
        if kind == "dies_once" and line in self._notes.read_text():
            return
        self.note(line)
        if kind == "faults":
            raise CUDARuntimeError("cudaErrorIllegalAddress")
        if kind == "hangs":
            time.sleep(600)
        os.kill(os.getpid(), signal.SIGKILL)


def open_failing(spec: AgentSpec) -> Instrument:
    settings = json.loads(os.environ["TROUBLE"])
    backend = FailingBackend(settings["trouble"], Path(settings["notes"]))
    backend.note("start")
    # Characterised by a child that does not fail.
    (device,) = modeldir.devices(spec.model_dir)
    return LiveInstrument(backend, device, spec.procedure, spec.agent)


if __name__ == "__main__":
    child.main(open_failing)
