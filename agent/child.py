"""The measuring child: the one process of a node that touches the device. It does nothing but measure.

    python -m agent.child FD SPEC      started by agent/supervisor.py; FD is one end of a pipe, SPEC a JSON object

Every message is one JSON object:  in   {"measure": [cell, ...], "depth": how many at once, null for the device's own}
                                   out  {"ready": device}, then for each cell {"started": cell_id} and {"row": row, "fatal": bool},
                                        or {"fault": reason} when the device failed under several cells

It dies with its parent (PR_SET_PDEATHSIG), also in the middle of a kernel that hangs, and when the pipe closes.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agent.instrument import Fault, Instrument, LiveInstrument
from gemmcast import modeldir
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.procedure import Procedure

PR_SET_PDEATHSIG = 1


def main(open_: Callable[[dict[str, Any]], Instrument] | None = None) -> None:
    """Answer requests until the pipe closes; `open_` makes the instrument where it is another than `open_instrument`'s."""
    fd, spec = int(sys.argv[1]), json.loads(sys.argv[2])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != spec["parent"]:
        return  # it died before we asked to be told
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to handle
    pipe = Connection(fd)
    instrument = (open_ or open_instrument)(spec)
    _send(pipe, {"ready": json.loads(instrument.device.to_json())})
    while True:
        try:
            request = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        cells = [Cell.from_dict(values) for values in request["measure"]]
        for event in instrument.measure_all(cells, depth=request["depth"], begun=lambda cell: _send(pipe, {"started": cell.cell_id})):
            if isinstance(event, Fault):
                _send(pipe, {"fault": event.reason})
                return
            _send(pipe, {"row": event.row, "fatal": event.fatal})
            if event.fatal:
                return


def open_instrument(spec: dict[str, Any]) -> Instrument:
    """The instrument that the spec names: kind cpu, cuda or replay."""
    if spec["kind"] == "replay":
        from agent.devices.replay import ReplayInstrument

        return ReplayInstrument(Path(spec["dataset"]), spec["agent"], spec.get("device_name"))
    backend: Any
    if spec["kind"] == "cuda":
        from agent.devices.cuda import CudaBackend

        backend = CudaBackend()
    else:
        from agent.devices.cpu import CpuBackend

        backend = CpuBackend()
    known = modeldir.devices(Path(spec["model_dir"])) if Path(spec["model_dir"]).is_dir() else []
    device = _characterised(backend.identify(), known) or backend.characterise()
    modeldir.put_device(Path(spec["model_dir"]), device)
    return LiveInstrument(backend, device, Procedure(**spec["procedure"]), spec["agent"])


def _characterised(found: Device, known: list[Device]) -> Device | None:
    """The description that was measured here before, if neither the device nor its software has changed."""
    same = ("uuid", "name", "kind", "compute_units", "arch", "memory_bytes", "power_limit_w", "driver", "cuda", "library", "mig")
    for device in known:
        if _is_complete(device) and all(getattr(device, name) == getattr(found, name) for name in same):
            return device
    return None


def _is_complete(device: Device) -> bool:
    """An older version of this program measured less. (counter_step_s tells nothing: a board without a regular counter has none.)"""
    return bool(device.peak_tflops) and (device.kind == "cpu" or device.l2_gbps is not None)


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message, default=_plain).encode())


def _plain(value: Any) -> Any:
    """NumPy and CuPy scalars as Python's."""
    return value.item()


if __name__ == "__main__":
    main()
