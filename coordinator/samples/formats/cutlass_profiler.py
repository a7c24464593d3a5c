"""Tables of CUTLASS' profiler: every kernel of its library on a list of GEMMs, and cuBLAS beside.

    Problem,Provider,OperationKind,Operation,Disposition,Status,gemm_kind,m,n,k,A,B,C,...,Runtime

A, B, C and D are TYPE:LAYOUT (`bf16:row`), Runtime is in ms (media/docs/cpp/profiler.md there).
Most kernels write C column-major: such a row is read as the product C^T = B^T·A^T, row-major. A
CUTLASS 2.x kernel does so too, so its tile, as reported, is that of C^T; one of CUTLASS 3.x does
not, so m and n of its tile change places. The file does not say which device it is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coordinator.samples.formats.checked_rows import ParsedRows, check_constants, checked
from coordinator.samples.formats.source_file import SourceFile
from coordinator.samples.formats.table_file import load
from gemmcast.cutlass.profiler_names import named_kernel, transposed_layout
from gemmcast.errors import InputError
from gemmcast.rows import Row

NEEDED: Final = ("OperationKind", "Operation", "Status", "m", "n", "k", "A", "B", "C", "Runtime")
PROVIDERS: Final = {"CUTLASS": "cutlass", "cuBLAS": "cublas"}
"""What computed a row -> family."""
TYPES: Final = {
    ("f32", "f32"): "fp32",
    ("tf32", "f32"): "tf32",
    ("f16", "f16"): "fp16",
    ("bf16", "bf16"): "bf16",
    ("e4m3", "bf16"): "fp8_e4m3",
}
"""Types of A (and B) and of the result -> dtype; the accumulator is f32."""
LETTERS: Final = {"row": "n", "column": "t"}
"""The profiler's layouts -> ours, of a product with a row-major C."""
DISPOSITIONS: Final = {"incorrect": "incorrect", "failed": "incorrect"}
"""Results of the profiler's check -> status; all others are ok, also where nothing was checked."""
ACCUMULATOR: Final = "f32"
TF32_MATH: Final = "tf32gemm"
"""In the name of a kernel that multiplies fp32 operands as tf32."""
CUTLASS_3: Final = "cutlass3x"
KNOBS: Final = {
    "cta_m": "tile_m",
    "cta_n": "tile_n",
    "cta_k": "tile_k",
    "stages": "stages",
    "split_k_slices": "split_k",
    "cluster_m": "cluster_m",
    "cluster_n": "cluster_n",
    "swizzle_size": "swizzle",
}
"""Column -> knob."""
NO_CLUSTER: Final = {"cluster_m": 0, "cluster_n": 0}
"""Of CUTLASS 2.x, where the profiler writes 1 x 1."""
CACHE: Final = "warm"
"""The profiler launches a kernel again and again; its operands rotate only where the user asked."""
US_PER_MS: Final = 1e3


def read_cutlass_profiler(source: SourceFile, constants: Mapping[str, str]) -> ParsedRows:
    """Rows of family cutlass, and of cublas where the profiler ran it beside.

    Args:
        constants: columns that hold for every row and override the file.

    Raises:
        InputError: a missing column, a constant that is no column, or no row that has an
            equivalent.
    """
    check_constants(constants)
    table = load(source)
    for name in NEEDED:
        if name not in table.columns:
            rule = f"{source.name} has no such column"
            raise InputError("column", name, rule, "CUTLASS' profiler writes it with --output")
    parsed = ParsedRows(refused=table.broken)
    for number, values in table.rows.items():
        reason = _why_not(values)
        if reason:
            parsed.skipped[reason] += 1
            continue
        try:
            parsed.rows[number] = checked({**_row(values), **constants})
        except InputError as error:
            parsed.refused[number] = error
    if not parsed.rows and not parsed.refused:
        rule = f"none of its {len(table.rows)} rows can be used: {', '.join(parsed.skipped)}"
        raise source.refused(rule, "name a table of dense GEMMs")
    return parsed


def _why_not(values: Row) -> str | None:
    """Why a row has no equivalent here; None: it has one."""
    if values["OperationKind"] != "gemm":
        return f"OperationKind {values['OperationKind']} is no dense GEMM"
    if values["Status"] != "success":
        return f"Status {values['Status']}"
    provider = values.get("Provider") or "CUTLASS"
    if provider not in PROVIDERS:
        return f"Provider {provider} has no equivalent"
    if _dtype(values) is None:
        return f"{values['A']} x {values['B']} to {_result(values)} has no equivalent"
    if (values.get("accum") or ACCUMULATOR) != ACCUMULATOR:
        return f"accumulated in {values['accum']}"
    for matrix in (values["A"], values["B"], _result(values)):
        if _layout(matrix) not in LETTERS:
            return "a layout that is neither row nor column"
    return None


def _row(values: Row) -> Row:
    is_transposed = _layout(_result(values)) == "column"
    row: Row = {
        "m": values["m"],
        "n": values["n"],
        "k": values["k"],
        "batch": values.get("batch_count") or "1",
        "dtype": _dtype(values),
        "layout": LETTERS[_layout(values["A"])] + LETTERS[_layout(values["B"])],
        "alpha": values.get("alpha") or "1",
        "beta": values.get("beta") or "0",
        "family": PROVIDERS[values.get("Provider") or "CUTLASS"],
        "cache": CACHE,
        "status": DISPOSITIONS.get(str(values.get("Disposition")), "ok"),
        "runtime_us": _milliseconds_as_us(values["Runtime"]),
        "device_kind": "cuda",
        "library": "CUTLASS profiler",
    }
    if is_transposed:
        row["m"], row["n"] = row["n"], row["m"]
        row["layout"] = transposed_layout(row["layout"])
    if row["family"] == "cublas":
        return {**row, "kernel": "default"}
    return {**row, **_configuration(values, is_transposed)}


def _configuration(values: Row, is_transposed: bool) -> Row:
    """Kernel and knobs."""
    name = str(values["Operation"])
    knobs: Row = {}
    for column, knob in KNOBS.items():
        if values.get(column):
            knobs[knob] = values[column]
    if not name.startswith(CUTLASS_3):
        return {"kernel": name, **knobs, **NO_CLUSTER, **_warp_tile(values)}
    if is_transposed:
        for along_m, along_n in (("tile_m", "tile_n"), ("cluster_m", "cluster_n")):
            knobs[along_m], knobs[along_n] = knobs.get(along_n), knobs.get(along_m)
    named = named_kernel(name)
    if named is not None and str(knobs.get("stages", 0)) == "0":
        # The builder takes as many as fit
        knobs["stages"] = named.kernel.compiled_stages
    return {"kernel": name, **knobs}


def _warp_tile(values: Row) -> Row:
    """The tile of one warp of a CUTLASS 2.x kernel, from the number of warps along each side."""
    tile: Row = {}
    for side in "mnk":
        cta, warps = str(values.get(f"cta_{side}")), str(values.get(f"warps_{side}"))
        if cta.isdecimal() and warps.isdecimal() and int(warps):
            tile[f"warp_{side}"] = int(cta) // int(warps)
    return tile


def _result(values: Row) -> str:
    """TYPE:LAYOUT of what is written: D, in tables that have it."""
    return str(values.get("D") or values["C"])


def _dtype(values: Row) -> str | None:
    """Our dtype; None where operands and result have no equivalent."""
    a, b = _type(values["A"]), _type(values["B"])
    result = _type(_result(values))
    if a != b:
        return None
    is_simt = (values.get("op_class") or "simt") == "simt"
    if (a, result) != ("f32", "f32") or is_simt:
        return TYPES.get((a, result))
    # fp32 operands on tensor cores: as tf32, or emulated in several products
    return "tf32" if TF32_MATH in str(values["Operation"]) else None


def _type(operand: object) -> str:
    return str(operand).partition(":")[0]


def _layout(operand: object) -> str:
    return str(operand).partition(":")[2]


def _milliseconds_as_us(value: object) -> object:
    """What is not a number is left for the check."""
    text = str(value)
    try:
        return value if "_" in text else float(text) * US_PER_MS
    except ValueError:
        return value
