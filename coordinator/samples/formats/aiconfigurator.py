"""GEMM tables of NVIDIA's AIConfigurator: the runtime of a linear layer in a serving framework.

Columns: framework, version, device, op_name, kernel_source, gemm_dtype, m, n, k, latency (ms); in
some tables power and power_limit (W). How they are measured is described in collector/ of
https://github.com/ai-dynamo/aiconfigurator.
"""

from __future__ import annotations

from typing import Final

from coordinator.samples.formats.checked_rows import ParsedRows, checked
from coordinator.samples.formats.source_file import SourceFile
from coordinator.samples.formats.table_file import load
from gemmcast.errors import InputError
from gemmcast.rows import Row

NEEDED: Final = ("device", "gemm_dtype", "m", "n", "k", "latency")
OPTIONAL: Final = ("framework", "version", "op_name", "kernel_source", "power", "power_limit")
DTYPES: Final = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "fp16": "fp16",
    "half": "fp16",
}
# The layer gets bf16 activations; within its latency it quantises them, or its weights.
QUANTISED: Final = (
    "fp8",
    "fp8_static",
    "fp8_block",
    "fp8_ootb",
    "nvfp4",
    "sq",
    "int8_wo",
    "int4_wo",
    "w4afp8",
)
"""Values of gemm_dtype whose latency is more than that of the GEMM."""
LAYOUT: Final = "nt"
"""A linear layer is x · transpose(W), with W stored n x k."""
# The collector runs six layers in turn, each with its own weights, on one activation. So weights
# come from memory unless six of them fit the L2: in a table of an H200, no row with m up to 64 and
# more than 1 MiB of operands moves them faster than the memory does. The activation does stay in
# the L2 where it fits (m = 8192, n = 32, k = 2560 exceeds the bandwidth of the memory). That is
# neither cold nor warm, but nearer to cold.
CACHE: Final = "cold"
SOURCE_NAMES: Final = {
    "runtime_us": "latency",
    "power_w": "power",
    "power_limit_w": "power_limit",
}
"""Our column -> the name in the file, for messages."""


def read_aiconfigurator(source: SourceFile) -> ParsedRows:
    """Rows of family cublas: these layers call PyTorch's linear, which calls cuBLAS.

    The tables have no runtime of their power window, so sustained runtime and energy stay unknown.

    Raises:
        InputError: a missing column, or no row that has an equivalent.
    """
    table = load(source)
    for name in NEEDED:
        if name not in table.columns:
            rule = f"{source.name} has no such column"
            raise InputError("column", name, rule, "an AIConfigurator table of GEMMs has it")
    parsed = ParsedRows(refused=table.broken)
    for number, values in table.rows.items():
        reason = _why_not(values)
        if reason:
            parsed.skipped[reason] += 1
            continue
        try:
            parsed.rows[number] = _row(values)
        except InputError as error:
            parsed.refused[number] = error
    if not parsed.rows and not parsed.refused:
        rule = f"none of its {len(table.rows)} rows can be used: {', '.join(parsed.skipped)}"
        raise source.refused(rule, "name a table of bf16 or fp16 GEMMs")
    unread = [name for name in table.columns if name not in NEEDED and name not in OPTIONAL]
    if unread:
        parsed.notes.append(f"columns that were not read: {', '.join(unread)}")
    return parsed


def _why_not(values: Row) -> str | None:
    """Why a row has no equivalent here; None: it has one."""
    operation = values.get("op_name") or "gemm"
    dtype = values["gemm_dtype"]
    if operation != "gemm":
        return f"op_name {operation} is no GEMM"
    if dtype in QUANTISED:
        return f"gemm_dtype {dtype}: its latency is not that of the product alone"
    return None if dtype in DTYPES else f"gemm_dtype {dtype} has no equivalent"


def _row(values: Row) -> Row:
    row = {
        "m": values["m"],
        "n": values["n"],
        "k": values["k"],
        "dtype": DTYPES[values["gemm_dtype"]],
        "layout": LAYOUT,
        "family": "cublas",
        "kernel": "default",
        "cache": CACHE,
        "runtime_us": _milliseconds_as_us(values["latency"]),
        "power_w": _without_zero(values.get("power")),
        "power_limit_w": _without_zero(values.get("power_limit")),
        "device": values["device"],
        "device_kind": "cuda",
        "library": _library(values),
    }
    try:
        return checked(row)
    except InputError as error:
        name = SOURCE_NAMES.get(error.field, error.field)
        raise InputError(name, values.get(name), error.rule, error.way_out) from None


def _library(values: Row) -> str:
    """`VLLM 0.1.2 (vllm_default)`."""
    parts = [str(values[name]) for name in ("framework", "version") if values.get(name)]
    library = " ".join(parts)
    source = values.get("kernel_source")
    return f"{library} ({source})" if source else library


def _milliseconds_as_us(value: object) -> object:
    """What is not a number is left for the check."""
    number = _as_number(value)
    return value if number is None else number * 1e3


def _without_zero(value: object) -> object:
    """Power that was not read is 0 in these tables."""
    return None if _as_number(value) == 0 else value


def _as_number(value: object) -> float | None:
    text = str(value)
    try:
        # Python reads 1_000 as a number, tables don't mean one
        return None if "_" in text else float(text)
    except ValueError:
        return None
