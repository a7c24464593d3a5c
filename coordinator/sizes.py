"""The devices that `plan` sizes a plan for: a known one, those of a cluster, or this machine's.

The head of a cluster often has no GPU; the plan's cells then depend on devices that are elsewhere.
Nothing is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agent.devices.local import local_device
from coordinator.plan.known_devices import known_device
from coordinator.plan.schema import Devices, Plan
from coordinator.plan.sizing import PlanSize, size_of
from gemmcast.device import Device
from gemmcast.errors import InputError


def sizes_of(
    plan: Plan, named: Sequence[str], address: str | None, *, without_token: bool = False
) -> list[PlanSize]:
    """The size of a plan on each type of device.

    Args:
        named: devices in place of these: words of a known one, or a file with its description.
        address: of a Ray cluster.
        without_token: ask its nodes though it asks for no token itself.

    Raises:
        InputError: both are given, no such device, or a shape that does not fit into its memory;
            or several nodes without a token.
        GemmcastError: no cluster answers.
    """
    if named and address:
        raise InputError("--device", named[0], "goes without --address", "give one of the two")
    if named:
        return [size_of(plan, known_device(text)) for text in named]
    if address and plan.devices.kind != "replay":
        return _of_cluster(plan, address, without_token)
    if plan.devices.kind == "replay":
        return [size_of(plan, device, agents) for device, agents in _recorded(plan.devices)]
    return [size_of(plan, local_device(plan.devices.kind))]


def _recorded(devices: Devices) -> list[tuple[Device, int]]:
    """The recorded devices that answer, and how many agents each has."""
    counted = Counter(devices.recordings())
    return [(local_device("replay", *recorded), agents) for recorded, agents in counted.items()]


def _of_cluster(plan: Plan, address: str, without_token: bool) -> list[PlanSize]:
    # Ray takes a second to import.
    from coordinator.fleet.connection import cluster_devices, connect

    connect(address, without_token=without_token)
    return [size_of(plan, device, count) for device, count in cluster_devices(plan)]
