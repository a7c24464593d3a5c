"""Exported cuBLASLt algorithms for nvmath-python: what `Matmul.plan(algorithms=...)` takes back.

    saved = AlgorithmFile.read("cublaslt_nvidia_h200_time.json")
    with nvmath.linalg.advanced.Matmul(b.T, a.T) as mm:
        proposed = mm.plan()
        found = saved.algorithms(gemm, proposed, nvmath.bindings.cublasLt.get_version())
        mm.plan(algorithms=found)
        c = mm.execute().T

C^T = B^T·A^T is what was tuned, hence the order of the operands. An algorithm is opaque to everyone
but the library, so it is one of those that the library proposes for the problem: the one with the
recorded settings, or, of those outside its list, one of the same number that is set to them.
nvmath itself is not imported: any objects with the attributes of its `Algorithm` will do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from gemmcast.errors import InputError
from gemmcast.exports.cublaslt import FORMAT, VERSION
from gemmcast.gemm import Gemm
from gemmcast.kernel_names import library_name

WAY_OUT: Final = "use plan() without algorithms there, or tune again here"


class Algorithm(Protocol):
    """What is read and set of nvmath.linalg.advanced.Algorithm."""

    algorithm_id: int
    tile: object
    stages: object
    split_k: int
    cta_swizzling: int
    custom_option: int
    cluster_shape: object
    reduction_scheme: int
    capabilities: Any


REDUCTION_SCHEMES: Final = (2, 1, 4)
"""cublasLtReductionScheme_t, in the order in which measured algorithms take them."""
SETTINGS: Final = ("tile", "stages", "split_k", "cta_swizzling", "cluster_shape")
"""What makes an algorithm of a number, in the order in which they are set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmFile:
    """The algorithms of one exported table."""

    source: str
    """The file's name, for messages."""
    cublas: str
    """The version of cuBLAS that they are of."""
    entries: Mapping[Gemm, Mapping[str, Any]]
    """What the file has for each problem."""

    @staticmethod
    def read(path: str | Path) -> AlgorithmFile:
        """Raises InputError for what is no such file, or one of a newer version."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values["format"] != FORMAT or values["version"] > VERSION:
                raise ValueError(f"format {values['format']!r} {values['version']}")
            entries = {Gemm(**entry["gemm"]): entry for entry in values["algorithms"]}
            return AlgorithmFile(source=str(path), cublas=values["cublas"], entries=entries)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            rule = f"is no file of cuBLASLt algorithms ({error})"
            way_out = "write one with gemmcast export --format cublaslt"
            raise InputError("algorithms", str(path), rule, way_out) from None

    def algorithms(
        self, gemm: Gemm, proposed: Sequence[Algorithm], cublas_version: int
    ) -> list[Algorithm]:
        """What to give `plan`: one algorithm; all proposed ones where the default was best.

        Args:
            gemm: the problem; it must have an entry.
            proposed: what `plan()` proposes for this problem. One of them may be changed.
            cublas_version: as `cublasLt.get_version()` has it: 130100 is 13.1.0.

        Raises:
            InputError: another cuBLAS, no such problem, or the library does not propose the
                algorithm.
        """
        here = _version_text(cublas_version)
        if here != self.cublas:
            rule = f"{self.source} is of cuBLAS {self.cublas}: its algorithms mean others here"
            raise InputError("cublas", here, rule, WAY_OUT)
        entry = self.entries.get(gemm)
        if entry is None:
            rule = f"{self.source} has no algorithm for it"
            raise InputError("gemm", str(gemm), rule, WAY_OUT)
        if entry["algorithm"] is None:
            return list(proposed)
        return [self._found(gemm, entry, proposed)]

    def _found(
        self, gemm: Gemm, entry: Mapping[str, Any], proposed: Sequence[Algorithm]
    ) -> Algorithm:
        wanted = {name: _tuples(value) for name, value in entry["algorithm"].items()}
        for algorithm in proposed:
            if all(getattr(algorithm, name) == value for name, value in wanted.items()):
                return algorithm
        same = [one for one in proposed if one.algorithm_id == wanted["algorithm_id"]]
        name = library_name(entry["kernel"])
        is_listed = name is not None and name.source == "heuristic" and entry["kernel"] != ""
        if is_listed or not same:
            rule = f"cuBLASLt does not propose algorithm {wanted} for {gemm}"
            raise InputError("algorithm", entry["kernel"], rule, WAY_OUT)
        return _set_up(same[0], wanted)


def _set_up(algorithm: Algorithm, wanted: Mapping[str, object]) -> Algorithm:
    """An algorithm with other settings, as those outside the library's list are measured."""
    for setting in SETTINGS:
        _set(algorithm, setting, wanted[setting])
    _set(algorithm, "custom_option", 0)
    if algorithm.split_k > 1:
        mask = algorithm.capabilities.reduction_scheme_mask
        schemes = [scheme for scheme in REDUCTION_SCHEMES if mask & scheme]
        _set(algorithm, "reduction_scheme", schemes[0] if schemes else 0)
    return algorithm


def _set(algorithm: Algorithm, name: str, value: object) -> None:
    """Only what differs: the library refuses settings that an algorithm does not have."""
    if getattr(algorithm, name) != value:
        setattr(algorithm, name, value)


def _tuples(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _version_text(version: int) -> str:
    """130100 -> 13.1.0 (CUBLAS_VERSION in cublas_api.h)."""
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"
