"""The devices that `plan` sizes a plan for: a known one, those of a cluster, or this machine's.

The head of a cluster often has no GPU; the plan's cells then depend on devices that are elsewhere.
Nothing is measured.
"""

from __future__ import annotations

from agent.devices.local import local_device
from coordinator.plan.known_devices import known_device
from coordinator.plan.schema import Plan
from coordinator.plan.sizing import PlanSize, size_of
from gemmcast.errors import InputError


def sizes_of(
    plan: Plan, device: str | None, address: str | None, *, without_token: bool = False
) -> list[PlanSize]:
    """The size of a plan on each type of device.

    Args:
        device: words of a known device, or a file with its description.
        address: of a Ray cluster.
        without_token: ask its nodes though it asks for no token itself.

    Raises:
        InputError: both are given, no such device, or a shape that does not fit into its memory;
            or several nodes without a token.
        GemmcastError: no cluster answers.
    """
    if device and address:
        raise InputError("--device", device, "goes without --address", "give one of the two")
    if device:
        return [size_of(plan, known_device(device))]
    if address and plan.devices.kind != "replay":
        return _of_cluster(plan, address, without_token)
    devices = plan.devices
    return [size_of(plan, local_device(devices.kind, devices.dataset, devices.device_name))]


def _of_cluster(plan: Plan, address: str, without_token: bool) -> list[PlanSize]:
    # Ray takes a second to import.
    from coordinator.fleet.connection import cluster_devices, connect

    connect(address, without_token=without_token)
    counted = cluster_devices(plan.devices)
    if not counted:
        rule = f"no node has a device of kind {plan.devices.kind}"
        raise InputError("--address", address, rule, "add such a node, or take --device")
    return [size_of(plan, device, count) for device, count in counted]
