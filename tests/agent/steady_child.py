"""The measuring child of agent/child.py, undisturbed by other processes of a busy machine.

    python tests/agent/steady_child.py FD PARENT ...

Only the count of involuntary context switches is made up: there are none, so that no cell is
"contended" and no batch is timed again and again.
"""

from __future__ import annotations

from agent import child
from agent.devices import DeviceBackend
from agent.devices.cpu import CpuBackend, CpuClock
from agent.instrument import Instrument
from agent.spec import AgentSpec


def steady_backend(_kind: str) -> DeviceBackend:
    return CpuBackend(CpuClock(preemptions=lambda: 0))


def open_steady(spec: AgentSpec) -> Instrument:
    return child.open_instrument(spec, steady_backend)


if __name__ == "__main__":
    child.main(open_steady)
