"""The way into a Ray cluster: which one, joining or starting it, what devices it has.

Signals work as before while Ray starts. Knows nothing of agents.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import ray
import ray._raylet
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agent.devices.local import local_device
from coordinator.fleet.doors import of_embedded, refuse_open
from coordinator.fleet.placement import Node, devices_of, why_none
from coordinator.fleet.shipping import too_large, working_directory
from coordinator.plan.schema import Plan
from coordinator.workspace import inside_job
from gemmcast.device import Device
from gemmcast.errors import GemmcastError, InputError

EMBEDDED = "local"
"""Ray's address of a cluster that starts and ends with this process."""
RAY_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray")
"""Starts Ray. In the main thread Ray would replace our SIGTERM handler by one whose SystemExit is
lost where the signal interrupts a finalizer. The thread stays: the processes of a cluster end with
the thread that started them (PR_SET_PDEATHSIG)."""
LOOK_S = 0.05
"""Between two looks whether Ray has started."""


def cluster_address(address: str | None) -> str:
    """Where to connect: `address`, RAY_ADDRESS, the cluster of this job, or one of our own."""
    if address:
        return address
    return os.environ.get("RAY_ADDRESS") or ("auto" if inside_job() else EMBEDDED)


def connect(
    target: str,
    catch_signals: Callable[[], None] = lambda: None,
    *,
    without_token: bool = False,
) -> bool:
    """Join the cluster at `target`, or start one in this process, on the loopback only.

    Args:
        target: an address, "auto" for the cluster that this machine belongs to, or EMBEDDED.
        catch_signals: sets the caller's signal handlers; called again and again meanwhile.
        without_token: join a cluster of several nodes, too, that asks for no token.

    Returns:
        Whether only this node may be used, because others could join without a token.

    Raises:
        GemmcastError: no cluster answers there.
        InputError: several nodes and no token; or the project's folder is larger than Ray ships.
    """
    environment = None
    if target == EMBEDDED:
        # Ray has read its variable when it was imported; its processes read it when they start.
        ray_constants.ENABLE_RAY_CLUSTER = False
        os.environ.update(of_embedded())
    if target != EMBEDDED and not inside_job():
        environment = working_directory()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    start = partial(
        ray.init,
        address=target,
        include_dashboard=False if target == EMBEDDED else None,
        runtime_env=environment,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    # Ray would warn that its SIGTERM handler is not set, which is our intention.
    logging.getLogger("ray").setLevel(logging.ERROR)
    keep_rays_messages_off()
    _take_rays_handler_first()
    joining = RAY_THREAD.submit(start)
    while not joining.done():
        catch_signals()
        wait([joining], LOOK_S)
    try:
        joining.result()
    except Exception as error:  # noqa: BLE001
        # A process of Ray that does not start is a plain Exception.
        raise _refusal(target, error) from None
    if target == EMBEDDED:
        return False
    head = ray.get_runtime_context().gcs_address
    return refuse_open(target, head, len(_alive()), without_token=without_token)


def keep_rays_messages_off() -> None:
    """Let Ray not print what its raylets report of workers and nodes that died.

    It prints that to standard output, where a run writes its result, whatever `log_to_driver` says:
    twenty lines of a raylet's log for each node. A run names agents and nodes in lines of its own.
    """
    ray_worker._worker_logs_enabled = False


def _alive() -> list[Node]:
    nodes: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _take_rays_handler_first() -> None:
    """Let Ray set its handler of SIGTERM now, once and for all, so that ours comes after it.

    Ray sets it when it connects, unless it has before, beneath Python's own handlers: a stack trace
    of C++, which takes seconds or hangs, in place of our exit. Where a version of Ray has no such
    function, `catch_signals` sets ours again a moment later.
    """
    library = ctypes.CDLL(ray._raylet.__file__)
    name = "_ZN3ray6RayLog27InstallFailureSignalHandlerEPKcb"
    if hasattr(library, name):
        # InstallFailureSignalHandler(argv0=nullptr, call_previous_handler=false)
        library[name](None, False)


def _refusal(target: str, error: Exception) -> GemmcastError:
    """Why Ray was not joined or started, in one line."""
    reason = first_line(error)
    if isinstance(error, ValueError) and "maximum size" in str(error):
        return too_large(reason)
    if target == EMBEDDED:
        way_out = "its logs are in /tmp/ray/session_latest/logs"
        return GemmcastError(f"Ray does not start on this machine ({reason}); {way_out}")
    rule = f"no Ray cluster answers there ({reason})"
    return GemmcastError(f"--address = {target!r}: {rule}; start one with `ray start --head`")


def cluster_devices(plan: Plan) -> list[tuple[Device, int]]:
    """The devices on which a run would measure, and how many of each; measures nothing.

    The first GPU of a node stands for all of its GPUs.

    Raises:
        InputError: no node takes part.
    """
    counts: dict[str, int] = {}
    by_name: dict[str, Device] = {}
    nodes = _alive()
    reason = why_none(nodes, plan)
    if reason is not None:
        way_out = "change [devices] of the plan, or add such a node"
        raise InputError("devices", plan.devices.kind, reason, way_out)
    for node in nodes:
        kind, count = devices_of(node, plan)
        if not count:
            continue
        strategy = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        task = ray.remote(local_device).options(num_cpus=0, scheduling_strategy=strategy)
        device: Device = ray.get(task.remote(kind))
        by_name[device.name] = device
        counts[device.name] = counts.get(device.name, 0) + count
    return [(device, counts[name]) for name, device in by_name.items()]


def first_line(error: BaseException) -> str:
    """The message of an error of Ray, as one line; of what an agent refused, its own."""
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, InputError):
        return str(error.cause)[:400]
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # The message of a RayTaskError stands last, behind the remote traceback.
    is_remote = isinstance(error, ray.exceptions.RayTaskError)
    return (lines[-1] if is_remote else lines[0])[:400]
