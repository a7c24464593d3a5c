"""cuBLASLt's algorithms, in the words of nvmath-python and of cublasLt.h.

    {"format": "gemmcast cublaslt algorithms", "cublas": "13.1.0", "algorithms": [{"gemm": {...},
     "kernel": "heuristic-3", "algorithm": {"algorithm_id": 66, "tile": [192, 128], "stages":
     [64, "AUTO"], "split_k": 1, "cta_swizzling": 0, "cluster_shape": [2, 1, 1]}}]}

cuBLASLt computes C^T, so its rows run along our n. The library alone makes an algorithm of these
words, for one version of cuBLAS, and only on the problem (docs/exports.md); `algorithm` null means
its own default. `nvmath_algorithms.py` makes of a file what `Matmul.plan(algorithms=...)` takes.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Final

from gemmcast.config import KernelConfig
from gemmcast.errors import InputError
from gemmcast.exports.export import Export, ExportOptions, LeftOut, chosen, file_stem
from gemmcast.kernel_names import LibraryName, library_name
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_table import TunedTable

FORMAT: Final = "gemmcast cublaslt algorithms"
VERSION: Final = 1
DEFAULT: Final = LibraryName("heuristic", 0)
_Algorithm = dict[str, object]


def cublaslt(table: TunedTable, _options: ExportOptions) -> Export:
    """One file with the algorithm of every entry of the family.

    Raises:
        InputError: the table does not say which cuBLAS it was tuned with.
    """
    version = cublas_version(table.key.library)
    if version is None:
        rule = "algorithms are of one version of cuBLAS, which the table does not have"
        raise InputError("library", table.key.library, rule, "tune with the family cublaslt")
    left_out = LeftOut()
    algorithms = []
    for entry in table.entries:
        reason = _unsayable(entry)
        if reason:
            left_out.reasons[reason] += 1
            continue
        config = chosen(entry)
        algorithms.append(
            {
                "gemm": asdict(entry.gemm),
                "kernel": config.kernel,
                "algorithm": algorithm_words(config) if config.algo_id else None,
            }
        )
    if not algorithms:
        raise left_out.nothing_left(table, "tune with --families cublaslt")
    file = {
        "format": FORMAT,
        "version": VERSION,
        "device": table.key.device,
        "cublas": version,
        "cuda": table.key.cuda,
        "objective": table.key.objective,
        "algorithms": algorithms,
    }
    name = f"cublaslt_{file_stem(table)}.json"
    text = json.dumps(file, indent=1, ensure_ascii=False)
    return Export(files={name: f"{text}\n"}, notes=tuple(left_out.notes()))


def cublas_version(library: str | None) -> str | None:
    """`13.1.0` of `cublas 13.1.0`; None where the text names no cuBLAS."""
    version = re.search(r"cublas(?:lt)? (\d+\.\d+\.\d+)", library or "", re.IGNORECASE)
    return version[1] if version else None


def algorithm_words(config: KernelConfig) -> _Algorithm:
    """The algorithm's settings by the names of nvmath's `Algorithm`."""
    rows, columns = config.tile_n, config.tile_m
    cluster_rows, cluster_columns = config.cluster_n, config.cluster_m
    return {
        "algorithm_id": config.algo_id,
        "tile": [rows, columns] if rows else "UNDEFINED",
        "stages": [config.tile_k, config.stages or "AUTO"] if config.tile_k else "UNDEFINED",
        "split_k": max(1, config.split_k),
        "cta_swizzling": config.swizzle,
        "cluster_shape": [cluster_rows, cluster_columns, 1] if cluster_rows else "AUTO",
    }


def _unsayable(entry: TunedEntry) -> str | None:
    """Why the file can't say an entry."""
    config = chosen(entry)
    if config.family != "cublaslt":
        return f"it is of the family {config.family}"
    if not config.algo_id and library_name(config.kernel) != DEFAULT:
        return f"what {config.kernel} is was not recorded"
    return None
