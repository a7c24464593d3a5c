"""A measuring child like agent/child.py, whose CPU bench has several cells under way and meets with trouble.

    python tests/agent/company_child.py FD SPEC      the spec also holds "trouble": {kind: [m of the cells, ...]} and "notes": a file

dies      the process is killed as the cell begins
dies_once the same, but only the first time
hangs     the host sleeps
faults    the device's error
Each child notes its start and each trouble there, a line each.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from agent import child
from agent.devices.cpu import CpuBackend
from agent.instrument import Instrument, LiveInstrument
from gemmcast import modeldir
from gemmcast.gemm import Gemm
from gemmcast.procedure import Procedure

CUDARuntimeError = type("CUDARuntimeError", (RuntimeError,), {"__module__": "cupy_backends.cuda.api.runtime"})


class TroubledBench(CpuBackend):
    """Trouble comes as a cell's operands are made: those begun before are under way then."""

    depth = 3

    def __init__(self, trouble: dict[str, list[int]], notes: Path) -> None:
        super().__init__()
        self._trouble, self._notes = trouble, notes

    def operands(self, gemm: Gemm, *, cold: bool) -> Any:
        for kind, sizes in self._trouble.items():
            if gemm.m in sizes and not (kind == "dies_once" and f"{kind} {gemm.m}" in self._notes.read_text()):
                self.note(f"{kind} {gemm.m}")
                if kind == "faults":
                    raise CUDARuntimeError("cudaErrorIllegalAddress")
                if kind == "hangs":
                    time.sleep(600)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().operands(gemm, cold=cold)

    def note(self, text: str) -> None:
        with self._notes.open("a") as file:
            file.write(f"{text}\n")


def open_troubled(spec: dict[str, Any]) -> Instrument:
    backend = TroubledBench(spec["trouble"], Path(spec["notes"]))
    backend.note("start")
    (device,) = modeldir.devices(Path(spec["model_dir"]))  # described by an untroubled child
    return LiveInstrument(backend, device, Procedure(**spec["procedure"]), spec["agent"])


if __name__ == "__main__":
    child.main(open_troubled)
