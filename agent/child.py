"""The measuring child: the one process of a node that touches the device. It only measures.

    python -m agent.child FD PARENT ...     started by agent/child_process.py

Messages are those of agent/messages.py. The child dies with its parent (PR_SET_PDEATHSIG), even in
the middle of a kernel that hangs, and it ends when the pipe closes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from time import sleep
from typing import Protocol, cast

from agent.devices import DeviceBackend
from agent.instrument import Instrument, LiveInstrument
from agent.measurement import CONTENTION_WAITS_S
from agent.messages import Fault, Outcome, Ready, Request, Restart, Started
from agent.spec import AgentSpec
from agent.undescribed import UndescribedInstrument
from gemmcast import modeldir
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.rows import Row

PR_SET_PDEATHSIG = 1
IDENTITY = (
    "uuid",
    "name",
    "kind",
    "compute_units",
    "arch",
    "memory_bytes",
    "power_limit_w",
    "driver",
    "cuda",
    "library",
    "mig",
)
"""Fields of a Device that are the same as long as neither it nor its software has changed."""


def main(open_with: Callable[[AgentSpec], Instrument] | None = None) -> None:
    """Answer requests until the pipe closes.

    Args:
        open_with: makes the instrument; `open_instrument` where it is not given.
    """
    fd, parent = int(sys.argv[1]), int(sys.argv[2])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent died before the signal was set up.
        return
    # Ctrl-C is for the coordinator to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(fd)
    spec: AgentSpec = pipe.recv()
    instrument = (open_with or open_instrument)(spec)
    pipe.send(Ready(instrument.device))
    while True:
        try:
            request: Request = pipe.recv()
        except EOFError:
            return
        if not _answer(pipe, instrument, request):
            return


def _answer(pipe: Connection, instrument: Instrument, request: Request) -> bool:
    """Measure the cells of a request; False when this process must end."""

    def begun(cell: Cell) -> None:
        """Tell the parent, whose limit of time begins here."""
        pipe.send(Started(cell.cell_id))

    for event in instrument.measure_all(request.cells, depth=request.depth, begun=begun):
        if isinstance(event, Fault | Restart):
            pipe.send(event)
            return False
        pipe.send(Outcome(plain(event.row), event.fatal))
        if event.fatal:
            return False
    return True


def open_backend(kind: str) -> DeviceBackend:
    """The backend of that kind of device: cuda or cpu."""
    if kind == "cuda":
        from agent.devices.cuda import CudaBackend

        return CudaBackend()
    from agent.devices.cpu import CpuBackend

    return CpuBackend()


def open_instrument(
    spec: AgentSpec,
    backend_of: Callable[[str], DeviceBackend] = open_backend,
    wait: Callable[[float], None] = sleep,
) -> Instrument:
    """The instrument of the spec's kind of device.

    Its description is from an earlier process of this node, or is measured now.
    """
    if spec.kind == "replay":
        return _open_replay(spec)
    backend = backend_of(spec.kind)
    device = recall(backend.identify(), modeldir.devices(spec.model_dir))
    if device is None:
        is_alone = _is_alone(backend, wait)
        device = backend.characterise()
        if not is_alone or backend.contention() is not None:
            return UndescribedInstrument(backend, device, spec.agent)
    modeldir.put_device(spec.model_dir, device)
    return LiveInstrument(backend, device, spec.procedure, spec.agent)


def _is_alone(backend: DeviceBackend, wait: Callable[[float], None]) -> bool:
    """Whether nobody else uses the device, or soon leaves it."""
    for wait_s in CONTENTION_WAITS_S:
        if backend.contention() is None:
            return True
        wait(wait_s)
    return backend.contention() is None


def _open_replay(spec: AgentSpec) -> Instrument:
    from agent.devices.replay import ReplayInstrument

    if spec.dataset is None:
        raise InputError("dataset", None, "replay needs a dataset", "name a Parquet file")
    return ReplayInstrument(spec.dataset, spec.agent, spec.device_name)


def recall(device: Device, known: list[Device]) -> Device | None:
    """The complete description of `device` that was stored, if neither it nor its software changed.

    Args:
        device: as `DeviceBackend.identify` gives it.
    """
    for stored in known:
        same = all(getattr(stored, name) == getattr(device, name) for name in IDENTITY)
        if same and is_complete(stored):
            return stored
    return None


def is_complete(device: Device) -> bool:
    """Whether all of it was measured; older versions of this program measured less.

    `counter_step_s` is no sign of it: a board without a regular energy counter has none.
    """
    if not device.peak_tflops or device.empty_kernel_us is None:
        return False
    return device.kind == "cpu" or device.l2_gbps is not None


class _Scalar(Protocol):
    """Of NumPy or CuPy."""

    def item(self) -> object:
        """The same value as Python's own type."""


def plain(row: Row) -> Row:
    """The row with Python's own numbers in place of NumPy's and CuPy's."""
    values: Row = {}
    for name, value in row.items():
        values[name] = cast(_Scalar, value).item() if hasattr(value, "item") else value
    return values


if __name__ == "__main__":
    main()
