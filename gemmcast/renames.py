"""Names that changed between schemas, and how older rows, devices, cards and models are read.

Schema 3 renamed columns, one kernel family and the unlisted algorithms of cuBLASLt; contract 3
renamed two fields of a query. Schema 4 added `empty_kernel_us`, which took the place of
`empty_launch_us` in a query of contract 4. Rows, device descriptions, model cards and ONNX files
written before are read through this file. Nothing is written in the old names except the hash of a
cell, which must never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from gemmcast.uncertainty import runtime_uncertainty

Value = TypeVar("Value")

COLUMNS: Final = {
    "sm_count": "compute_units",
    "gpu_uuid": "device_uuid",
    "device_launch_us": "empty_launch_us",
    "launch_overhead_us": "host_launch_us",
    "repeats": "launches_timed",
    "max_rel_error": "max_error_over_rms",
    "fill": "operand_distribution",
}
"""Columns of schemas 1 and 2 that only changed their name; gemmcast/arrow.py splits `threads`."""
STANDARD_ERROR: Final = "runtime_rse"
"""Of the median within one burst: what schemas 1 to 3 had in place of `runtime_uncertainty`."""
DEVICE_FIELDS: Final = {"sm_count": "compute_units", "launch_overhead_us": "empty_launch_us"}
"""The same for a device description (gemmcast.device.Device)."""
CARD_FIELDS: Final = {
    "unseen": "generalisation",
    "noise": "repeatability",
    "tree_shares": "tree_weight",
    "single_p50_us": "latency_p50_us",
    "sklearn_single_p50_us": "sklearn_latency_p50_us",
}
"""The same for a model card (gemmcast.card.ModelCard)."""
QUERY_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "2": {"workers": "active_units", "device_launch_us": "empty_kernel_us"},
    "3": {"empty_launch_us": "empty_kernel_us"},
}
"""Contract -> the names of fields, and those that stand in their places now. The host's launch is
another number than what took its place: see gemmcast/contracts.py."""
METADATA_KEYS: Final = {"gemmcast-shortlist": "gemmcast-prefilter"}
"""The same for the metadata of an ONNX file."""
RANKING_METHODS: Final = {"shortlist": "prefilter"}
"""The same for the methods of a card's `ranking`."""
CUSTOM_KNOBS: Final = {"threads": "block_threads"}
"""The same for the knobs of a custom kernel's description."""
FAMILIES: Final = {"own": "custom"}
"""The same for kernel families."""
_UNLISTED: Final = ("beyond-", "enumerated-")


def renamed(values: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """The same values, old names replaced."""
    return {names.get(name, name): value for name, value in values.items()}


def with_empty_kernel(values: Mapping[str, Value], kind: object) -> dict[str, Value]:
    """A row, or the description of a device of this kind, with the `empty_kernel_us` of schema 4.

    On a CPU it is the number that earlier schemas called the empty launch: the smallest GEMM. On a
    GPU that number is the host's, and what an empty kernel takes stays unknown.
    """
    completed = dict(values)
    launch = completed.get("empty_launch_us")
    if kind == "cpu" and launch is not None and completed.get("empty_kernel_us") is None:
        completed["empty_kernel_us"] = launch
    return completed


def current_kernel(family: str, kernel: str) -> str:
    """The kernel's name in schema 3: cuBLASLt's `beyond-7` is `enumerated-7`."""
    old, new = _UNLISTED
    return new + kernel.removeprefix(old) if _has_prefix(family, kernel, old) else kernel


def threads_column(family: str) -> str:
    """Where schema 3 keeps the `threads` of an older row or plan: of the CPU, or of a block."""
    return "cpu_threads" if family == "blas" else "block_threads"


def current_uncertainty(
    error: float | None, sustained_runtime_us: float | None, family: str
) -> float | None:
    """The `runtime_uncertainty` of a row that has a standard error, and what else says of it."""
    if error is None:
        return None
    return runtime_uncertainty(
        error,
        after_window=sustained_runtime_us is not None,
        device_kind="cpu" if family == "blas" else "cuda",
    )


def first_config(config: Mapping[str, str | int]) -> dict[str, str | int]:
    """A configuration in the names of schema 1: what a cell's id is a hash of."""
    values = dict(config)
    threads = values.pop("block_threads"), values.pop("cpu_threads")
    family, kernel = str(values["family"]), str(values["kernel"])
    old, new = _UNLISTED
    if _has_prefix(family, kernel, new):
        values["kernel"] = old + kernel.removeprefix(new)
    first_names = {current: first for first, current in FAMILIES.items()}
    return {**values, "family": first_names.get(family, family), "threads": max(threads)}


def _has_prefix(family: str, kernel: str, prefix: str) -> bool:
    return family == "cublaslt" and kernel.startswith(prefix)
