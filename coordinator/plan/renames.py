"""Plans of earlier versions in the words of this one; applied before a plan is validated.

    [[sweep]] candidates, family "own", kernel "beyond-N"  ->  algorithms, "custom", "enumerated-N"
    [sweep.knobs] threads                                  ->  cpu_threads or block_threads
    [devices] spread = "share" / "each"                    ->  replicate = "per_type" / "per_gpu"

A renamed plan has the same cells with the same ids. What is no table is left for validation to
refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gemmcast.renames import FAMILIES, current_kernel, renamed

Values = dict[str, object]

DEVICES_KEYS: Final = {"spread": "replicate"}
REPLICATE_VALUES: Final = {"share": "per_type", "each": "per_gpu"}
SWEEP_KEYS: Final = {"candidates": "algorithms"}
CPU_KNOBS: Final = {"threads": "cpu_threads"}
CUDA_KNOBS: Final = {"threads": "block_threads"}


def current_plan(values: Mapping[str, object]) -> Values:
    """The same plan, old keys and values replaced."""
    plan = dict(values)
    devices = plan.get("devices")
    if isinstance(devices, dict):
        plan["devices"] = _current_devices(devices)
    sweeps = plan.get("sweep")
    if isinstance(sweeps, list | tuple):
        plan["sweep"] = [_current_sweep(sweep) for sweep in sweeps]
    return plan


def _current_devices(devices: Mapping[str, object]) -> Values:
    current = renamed(devices, DEVICES_KEYS)
    if "spread" in devices:
        old = devices["spread"]
        current["replicate"] = REPLICATE_VALUES.get(old, old) if isinstance(old, str) else old
    return current


def _current_sweep(sweep: object) -> object:
    if not isinstance(sweep, dict):
        return sweep
    current = renamed(sweep, SWEEP_KEYS)
    family = current.get("family")
    if not isinstance(family, str):
        return current
    family = current["family"] = FAMILIES.get(family, family)
    if "kernel" in current:
        current["kernel"] = _current_kernels(family, current["kernel"])
    knobs = current.get("knobs")
    if isinstance(knobs, dict):
        current["knobs"] = renamed(knobs, CPU_KNOBS if family == "blas" else CUDA_KNOBS)
    return current


def _current_kernels(family: str, kernels: object) -> object:
    if isinstance(kernels, str):
        return current_kernel(family, kernels)
    if not isinstance(kernels, list | tuple):
        return kernels
    return [_current_kernels(family, kernel) for kernel in kernels]
