"""GEMM tables of NVIDIA's AIConfigurator: what a linear layer took inside a serving framework, as its collector writes them.

Columns: framework, version, device, op_name, kernel_source, gemm_dtype, m, n, k, latency (ms); power and power_limit (W) in some.
https://github.com/ai-dynamo/aiconfigurator (collector/) says how they are measured.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

from coordinator.samples.formats.checked_rows import ParsedRows, Row, checked
from coordinator.samples.formats.table_file import load
from gemmcast.errors import InputError

NEEDED: Final = ("device", "gemm_dtype", "m", "n", "k", "latency")
OPTIONAL: Final = ("framework", "version", "op_name", "kernel_source", "power", "power_limit")
DTYPES: Final = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "half": "fp16"}
QUANTISED: Final = ("fp8", "fp8_static", "fp8_block", "fp8_ootb", "nvfp4", "sq", "int8_wo", "int4_wo", "w4afp8")
# The layer gets bf16 activations and quantises them, or its weights, within the time that is written: no product alone.
LAYOUT: Final = "nt"
# A linear layer is x · transpose(W), W stored n x k.
CACHE: Final = "cold"
# The collector runs six layers in turn, each with weights of its own, on one activation. So weights come from memory unless six of them
# fit the L2: in a table of an H200, no row with m up to 64 and more than 1 MiB of operands moves them faster than the memory does. The
# activation does stay in the L2 where it fits (m = 8192, n = 32, k = 2560 beats the memory): neither cold nor warm, nearer to cold.


def read_aiconfigurator(path: Path) -> ParsedRows:
    """Rows of family cublas: these layers call PyTorch's linear, which calls cuBLAS.

    The tables have no runtime of their power window, so sustained runtime and energy stay unknown.

    Raises:
        InputError: a missing column, a bad value with its row, or no row that can be used.
    """
    columns, table = load(path)
    for name in NEEDED:
        if name not in columns:
            raise InputError("column", name, f"{path.name} has no such column", "an AIConfigurator table of GEMMs has it")
    skipped: Counter[str] = Counter()
    rows: list[Row] = []
    for number, values in enumerate(table, 1):
        if why := _why_not(values):
            skipped[why] += 1
            continue
        rows.append(_row(values, f"{path.name}, row {number}"))
    if not rows:
        raise InputError("FILE", str(path), f"none of its {len(table)} rows can be used: {', '.join(skipped)}", "name a table of bf16 or fp16 GEMMs")
    ignored = [name for name in columns if name not in (*NEEDED, *OPTIONAL)]
    notes = [f"columns that were not read: {', '.join(ignored)}"] if ignored else []
    return ParsedRows(rows=rows, skipped=skipped, notes=notes)


def _why_not(values: Row) -> str | None:
    """Why a row has no equivalent here."""
    operation, dtype = values.get("op_name") or "gemm", values["gemm_dtype"]
    if operation != "gemm":
        return f"op_name {operation} is no GEMM"
    if dtype in QUANTISED:
        return f"gemm_dtype {dtype}: its latency is not that of the product alone"
    return None if dtype in DTYPES else f"gemm_dtype {dtype} has no equivalent"


def _row(values: Row, place: str) -> Row:
    library = " ".join(str(values[name]) for name in ("framework", "version") if values.get(name))
    source = values.get("kernel_source")
    row = {
        **{name: values[name] for name in "mnk"},
        "dtype": DTYPES[values["gemm_dtype"]],
        "layout": LAYOUT,
        "family": "cublas",
        "kernel": "default",
        "cache": CACHE,
        "runtime_us": _scaled(values["latency"], 1e3),
        "power_w": _reading(values.get("power")),
        "power_limit_w": _reading(values.get("power_limit")),
        "device": values["device"],
        "device_kind": "cuda",
        "library": f"{library} ({source})" if source else library,
    }
    try:
        return checked(row, place)
    except InputError as error:
        raise _in_their_words(error, values) from None


def _in_their_words(error: InputError, values: Row) -> InputError:
    """The error under the names and values that stand in the file."""
    name = {"runtime_us": "latency", "power_w": "power", "power_limit_w": "power_limit"}.get(error.field, error.field)
    return InputError(name, values.get(name), error.rule, error.way_out)


def _scaled(value: Any, factor: float) -> Any:
    """Milliseconds to microseconds, say; what is no number is left for the check."""
    try:
        return None if value is None else float(value) * factor
    except (TypeError, ValueError):
        return value


def _reading(value: Any) -> Any:
    """Power that was not read stands as 0 in these tables."""
    return None if _scaled(value, 1.0) == 0 else value
