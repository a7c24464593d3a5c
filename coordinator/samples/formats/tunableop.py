"""Results of PyTorch's TunableOp: the fastest solution for each GEMM that a program has run.

    Validator,PT_VERSION,2.9.1
    GemmTunableOp_BFloat16_TN,tn_8192_1_4096_ld_4096_4096_8192,Gemm_Rocblas_621284994,0.0196

CSV without a header: operator, its parameters (transposes, m, n, k, then B_batch and leading
dimensions), solution, mean time in ms (aten/src/ATen/cuda/tunable in PyTorch). Parameters are those
of a column-major BLAS, which computes C^T for PyTorch's row-major C: its n are our rows, its B is
our A. The file does not say which device it is of.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Final

from coordinator.samples.formats.checked_rows import ParsedRows, check_constants, checked
from coordinator.samples.formats.source_file import SourceFile
from gemmcast.errors import InputError
from gemmcast.rows import Row

VALIDATOR: Final = "Validator"
OPERATOR: Final = re.compile(r"(?P<kind>\w*?)TunableOp_(?P<types>.+)_(?P<transposes>[NT]{2})")
PARAMETERS: Final = re.compile(
    r"(?P<a>[nt])(?P<b>[nt])_(?P<m>\d+)_(?P<n>\d+)_(?P<k>\d+)(?:_B_(?P<batch>\d+))?"
    r"(?:_ld_(?P<lda>\d+)_(?P<ldb>\d+)_(?P<ldc>\d+))?"
    r"(?:_rw_(?P<rowwise>\d+))?(?:_bias_(?P<bias>\w+))?",
    re.ASCII,
)
PLAIN: Final = ("Gemm", "GemmStridedBatched")
"""Operators that compute a product and nothing else."""
SCALED: Final = "ScaledGemm"
DTYPES: Final = {
    "float": "fp32",
    "tf32": "tf32",
    "double": "fp64",
    "BFloat16": "bf16",
    "Half": "fp16",
}
"""PyTorch's word for the type of A, B and C -> dtype."""
FP8: Final = "Float8_e4m3fn_Float8_e4m3fn_BFloat16"
"""Types of A, B and C of the one scaled product that has an equivalent."""
UNSCALED: Final = ("0", "None")
"""Neither scales of rows nor a bias."""
US_PER_MS: Final = 1e3
CACHE: Final = "warm"
"""A solution is launched again and again on the same operands, unless the user asked for a rotating
buffer, which the file does not say (--set cache=cold)."""
CELLS: Final = 4
LINE: Final = "OPERATOR,PARAMETERS,SOLUTION,MILLISECONDS"


def read_tunableop(source: SourceFile, constants: Mapping[str, str]) -> ParsedRows:
    """Rows of family cublas, which stands for the library that PyTorch calls.

    Args:
        constants: columns that hold for every row and override the file.

    Raises:
        InputError: no such file, a constant that is no column, or no row that has an equivalent.
    """
    check_constants(constants)
    parsed = ParsedRows()
    validators: dict[str, str] = {}
    number = 0
    for cells in _lines(source):
        if cells[0] == VALIDATOR:
            validators[cells[1] if len(cells) > 1 else ""] = ",".join(cells[2:])
            continue
        number += 1
        _add_row(parsed, number, cells, constants)
    if not number:
        raise source.refused("has no results of TunableOp", f"a line of one is {LINE}")
    if not parsed.rows and not parsed.refused:
        rule = f"none of its {number} rows can be used: {', '.join(parsed.skipped)}"
        raise source.refused(rule, "name a file with plain GEMMs in it")
    library = _library(validators)
    for row in parsed.rows.values():
        row.setdefault("library", library)
    return parsed


def _lines(source: SourceFile) -> list[list[str]]:
    """The lines that are not blank, as stripped cells."""
    try:
        lines = list(csv.reader(io.StringIO(source.text(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise source.refused(f"not a CSV file ({error})", "name a file of TunableOp") from None
    return [[cell.strip() for cell in line] for line in lines if line]


def _add_row(
    parsed: ParsedRows, number: int, cells: Sequence[str], constants: Mapping[str, str]
) -> None:
    """One result: as a row, counted as one without an equivalent, or refused."""
    try:
        operator, parameters = _matched(cells)
        reason = _why_not(operator, parameters, cells)
        if reason:
            parsed.skipped[reason] += 1
            return
        parsed.rows[number] = checked({**_row(operator, parameters, cells), **constants})
    except InputError as error:
        parsed.refused[number] = error


def _matched(cells: Sequence[str]) -> tuple[re.Match[str], re.Match[str]]:
    if len(cells) not in (CELLS - 1, CELLS):
        raise InputError("cells", len(cells), "a result has 3 or 4 cells", f"write {LINE}")
    operator = OPERATOR.fullmatch(cells[0])
    if operator is None:
        raise InputError("operator", cells[0], "is no operator of TunableOp", f"write {LINE}")
    parameters = PARAMETERS.fullmatch(cells[1])
    if parameters is None or operator["transposes"].lower() != parameters["a"] + parameters["b"]:
        rule = f"are no parameters of {cells[0]}"
        raise InputError("parameters", cells[1], rule, "they begin as tn_M_N_K")
    return operator, parameters


def _why_not(
    operator: re.Match[str], parameters: re.Match[str], cells: Sequence[str]
) -> str | None:
    """Why a result has no equivalent here; None: it has one."""
    kind, types = operator["kind"], operator["types"]
    if kind == SCALED:
        if types != FP8:
            return f"{kind} of {types} has no equivalent"
        if (parameters["rowwise"] or "0", parameters["bias"] or "None") != UNSCALED:
            return f"{kind} with a scale for each row, or a bias"
    elif kind not in PLAIN:
        return f"{kind} is more than a product"
    elif types not in DTYPES:
        return f"type {types} has no equivalent"
    if len(cells) < CELLS or not cells[CELLS - 1]:
        return "it has no time"
    if not _is_dense(parameters):
        return "its leading dimensions are larger than its matrices"
    return None


def _is_dense(parameters: re.Match[str]) -> bool:
    """Whether columns lie one behind the other; files before PyTorch 2.5 do not say."""
    if parameters["lda"] is None:
        return True
    m, n, k = (int(parameters[name]) for name in "mnk")
    a_rows, a_columns = (m, k) if parameters["a"] == "n" else (k, m)
    b_rows, b_columns = (k, n) if parameters["b"] == "n" else (n, k)
    matrices = (("lda", a_rows, a_columns), ("ldb", b_rows, b_columns), ("ldc", m, n))
    # One column has no next one
    return all(columns == 1 or int(parameters[name]) == rows for name, rows, columns in matrices)


def _row(operator: re.Match[str], parameters: re.Match[str], cells: Sequence[str]) -> Row:
    dtype = "fp8_e4m3" if operator["kind"] == SCALED else DTYPES[operator["types"]]
    solution = cells[2]
    return {
        "m": parameters["n"],
        "n": parameters["m"],
        "k": parameters["k"],
        "batch": parameters["batch"] or "1",
        "dtype": dtype,
        "layout": parameters["b"] + parameters["a"],
        "family": "cublas",
        "kernel": "default" if solution == "Default" else solution,
        "cache": CACHE,
        "runtime_us": _milliseconds_as_us(cells[CELLS - 1]),
        "device_kind": "cuda",
    }


def _milliseconds_as_us(text: str) -> object:
    """What is not a number is left for the check."""
    try:
        return text if "_" in text else float(text) * US_PER_MS
    except ValueError:
        return text


def _library(validators: Mapping[str, str]) -> str:
    """`PyTorch 2.9.1 (HIPBLASLT_VERSION 1000-b4e5042b, ROCBLAS_VERSION 4.3.0)`."""
    version = validators.get("PT_VERSION", "")
    others = []
    for name, value in sorted(validators.items()):
        if name.endswith("_VERSION") and name != "PT_VERSION":
            others.append(f"{name} {value}")
    library = f"PyTorch {version}".strip()
    return f"{library} ({', '.join(others)})" if others else library
