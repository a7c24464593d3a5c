"""cuBLASLt: names and knobs on paper, the family against a stand-in for nvmath's bindings that multiplies, and real products on a GPU."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent.check import tolerance
from agent.dtypes import CARRIERS, narrow, widen
from agent.kernels import load
from agent.kernels.cublaslt import SPACES, CublasLt, aligned
from agent.kernels.cublaslt.candidates import MAX_CHECKS
from agent.kernels.cublaslt.library import RESULT, WORKSPACE_BYTES, matrices, row_alignment
from agent.kernels.cublaslt.names import KNOBS, Algorithm, Ids, Names, grids, parse, scheme, shuffled, size, without
from agent.operands import Carved, Operands, input_elements, output_elements
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import LAYOUTS, Gemm

Tile = IntEnum("Tile", {"TILE_UNDEFINED": 0, "TILE_64x64": 15, "TILE_128x64": 18, "TILE_128x256": 23})
Stages = IntEnum("Stages", {"STAGES_UNDEFINED": 0, "STAGES_32x3": 9, "STAGES_32x4": 10, "STAGES_8x3": 31, "STAGES_64xAUTO": 35})
Cluster = IntEnum("Cluster", {"SHAPE_AUTO": 0, "SHAPE_1x1x1": 2, "SHAPE_2x1x1": 3, "SHAPE_1x2x1": 5, "SHAPE_3x1x1": 17, "SHAPE_16x1x1": 15})
NAMES = Names(Tile, Stages, Cluster)
WIDE = (256, 256, 256)
CAPABILITIES = {
    # id -> attribute -> value; cublasLtMatmulAlgoCapAttributes_t
    0: {0: 1, 1: 3, 2: 1, 3: 1, 6: [15, 18], 13: [9, 10], 16: 4, 17: 4, 18: 4, 19: 4},
    66: {0: 0, 1: 0, 2: 0, 3: 1, 6: [18, 23], 13: [35], 16: 4, 17: 4, 18: 4, 19: 4},
    70: {0: 0, 1: 0, 2: 0, 3: 0, 6: [], 13: [], 16: 64, 17: 4, 18: 4, 19: 4},
}
SLOTS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 8: 6}
# where the stand-in keeps a configuration's attribute in the algorithm's eight words


def _at(address: int, of: Any, length: int = 1) -> Any:
    """The memory there, as an array."""
    size = np.dtype(of).itemsize * length
    return np.frombuffer((ctypes.c_char * size).from_address(address), of)


class FakeLt:
    """nvmath.bindings.cublasLt: descriptors are dicts of attributes, and float32 is really multiplied, column-major."""

    MatmulTile, MatmulStages, ClusterShape = Tile, Stages, Cluster

    class cuBLASLtError(Exception):
        def __init__(self, status: int) -> None:
            self.status = status

    def __init__(self, listed: tuple[Ids, ...] = (), **failing: int) -> None:
        self.listed, self.failing = listed, failing
        self.alive: dict[int, dict[int, Any]] = {}
        self.log: list[str] = []
        self.preference: dict[int, Any] = {}
        self._numbers = count(1000)
        self.matmul_desc_destroy = self.matrix_layout_destroy = self.matmul_preference_destroy = self.alive.pop
        self.matmul_desc_set_attribute = self.matrix_layout_set_attribute = self.matmul_preference_set_attribute = self._set

    def _call(self, name: str) -> None:
        self.log.append(name)
        if status := self.failing.get(name):
            raise self.cuBLASLtError(status)

    def _new(self, **attributes: Any) -> int:
        self.alive[one := next(self._numbers)] = dict(attributes)  # type: ignore[arg-type]
        return one

    def _set(self, one: int, attribute: int, buffer: int, size: int) -> None:
        self.alive[one][attribute] = int(_at(buffer, f"i{size}")[0])

    def create(self) -> int:
        self._call("create")
        return 7

    def get_version(self) -> int:
        return 131002

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        return self._new(compute=compute, scale=scale)

    def matrix_layout_create(self, of: int, rows: int, cols: int, ld: int) -> int:
        return self._new(of=of, rows=rows, cols=cols, ld=ld)

    def matmul_preference_create(self) -> int:
        return self._new()

    def matmul_algo_get_heuristic(
        self, handle: int, op: int, a: int, b: int, c: int, d: int, preference: int, limit: int, results: int, returned: int
    ) -> None:
        self._call("heuristic")
        self.preference = self.alive[preference]
        found = _at(results, RESULT, limit)
        for ids, result in zip(self.listed, found, strict=False):
            for attribute, value in zip((0, 1, 6, 2, 4, 8), ids, strict=True):
                result["algo"][SLOTS[attribute]] = value
            result["workspace_bytes"] = 100 + ids.algo
        _at(returned, "i4")[0] = len(self.listed)

    def matmul_algo_get_ids(self, *types: int) -> tuple[int, ...]:
        self._call("ids")
        return tuple(reversed(CAPABILITIES))

    def matmul_algo_init(self, handle: int, compute: int, scale: int, a: int, b: int, c: int, d: int, algo: int, blob: int) -> None:
        self._call("init")
        _at(blob, "u8", 8)[:] = (algo, 0, 1, 0, 0, 0, 0, 0)

    def matmul_algo_cap_get_attribute(self, blob: int, attribute: int, buffer: int, size: int, written: int) -> None:
        value = CAPABILITIES[int(_at(blob, "u8")[0])][attribute]
        values = value if isinstance(value, list) else [value]
        _at(written, "u8")[0] = 4 * len(values)
        if size:
            assert size == 4 * len(values)
            _at(buffer, "i4", len(values))[:] = values

    def matmul_algo_config_get_attribute(self, blob: int, attribute: int, buffer: int, size: int, written: int) -> None:
        _at(buffer, f"i{size}")[0] = _at(blob, "u8", 8)[SLOTS[attribute]]

    def matmul_algo_config_set_attribute(self, blob: int, attribute: int, buffer: int, size: int) -> None:
        assert size == (2 if attribute == 8 else 4)
        _at(blob, "u8", 8)[SLOTS[attribute]] = _at(buffer, f"i{size}")[0]

    def matmul_algo_check(self, handle: int, op: int, a: int, b: int, c: int, d: int, blob: int, result: int) -> None:
        self._call("check")
        algo, tile, split, reduction, _, stages, cluster, _ = _at(blob, "u8", 8).tolist()
        assert (split > 1) == (reduction > 0)
        if (tile, stages) == (18, 10) or (algo == 66 and cluster == 5):
            raise self.cuBLASLtError(15)
        _at(result, RESULT)[0]["workspace_bytes"] = WORKSPACE_BYTES + 1 if split == 16 else split * 1000

    def matmul(
        self, handle: int, op: int, alpha: int, a: int, la: int, b: int, lb: int, beta: int, c: int, lc: int, d: int, ld: int, blob: int,
        workspace: int, size: int, stream: int,
    ) -> None:  # fmt: skip
        self._call("matmul")
        assert (handle, c, lc, workspace, size, stream) == (7, d, ld, 4096, WORKSPACE_BYTES, 99)
        flips = self.alive[op].get(3), self.alive[op].get(4)
        for i in range(self.alive[lc][5]):
            x, y, z = (self._matrix(address, layout, i) for address, layout in ((a, la), (b, lb), (c, lc)))
            x, y = x.T if flips[0] else x, y.T if flips[1] else y
            z[:] = _at(alpha, "f4")[0] * (x @ y) + (_at(beta, "f4")[0] * z if _at(beta, "f4")[0] else 0)

    def _matrix(self, address: int, layout: int, i: int) -> Any:
        told = self.alive[layout]
        assert told["of"] == 0
        return _at(address + 4 * i * told[6], "f4", told["ld"] * told["cols"]).reshape(told["cols"], told["ld"]).T[: told["rows"]]


FIRST, SECOND = Ids(66, 18, 35, 1, 0, 3), Ids(0, 15, 9, 2, 1, 0)
CUDA = SimpleNamespace(alloc=lambda size: SimpleNamespace(ptr=4096), get_current_stream=lambda: SimpleNamespace(ptr=99))
SMALL = Gemm(m=5, n=7, k=3)


def _family(*listed: Ids, **failing: int) -> tuple[CublasLt, FakeLt]:
    lt = FakeLt(listed or (FIRST, SECOND), **failing)
    return CublasLt(lt, CUDA), lt


def _config(kernel: str = "", **knobs: int) -> KernelConfig:
    return KernelConfig(family="cublaslt", kernel=kernel, **knobs)


def _pointing(array: Any) -> Any:
    return SimpleNamespace(data=SimpleNamespace(ptr=array.ctypes.data), array=array)


def _aligned(values: Any) -> Any:
    """As float32, on a boundary of 256 bytes, as CuPy's memory is: the library's lists go by the alignment."""
    room = np.empty(len(values) + 64, np.float32)
    start = -(room.ctypes.data // 4) % 64
    room[start : start + len(values)] = values
    return room[start : start + len(values)]


def _sets(gemm: Gemm, sets: int = 2) -> list[Operands]:
    rng = np.random.default_rng(1)
    inputs, outputs = (_aligned(rng.standard_normal(sets * size)) for size in (input_elements(gemm), output_elements(gemm)))
    return [Operands(*map(_pointing, (one.a, one.b, one.c))) for one in Carved(gemm, inputs, outputs, sets)]


def _facts(family: CublasLt, kernel: str = "", gemm: Gemm = SMALL, **knobs: int) -> dict[str, Any]:
    return family.prepare(gemm, _config(kernel, **knobs), _sets(gemm)).facts


def _knobs(facts: dict[str, Any]) -> dict[str, int]:
    return {knob: facts[knob] for knob in KNOBS}


def _refusal(call: Callable[[], object], status: str = "unsupported") -> str:
    with pytest.raises(MeasurementError) as caught:
        call()
    assert caught.value.status == status
    return caught.value.reason


@pytest.mark.parametrize(
    ("kernel", "asked"),
    [
        ("", ("heuristic", 0)), ("default", ("heuristic", 0)), ("heuristic-7", ("heuristic", 7)), ("enumerated-0", ("enumerated", 0)),
        ("heuristic-0", None), ("enumerated-01", None), ("enumerated", None), ("enumerated--1", None), ("fastest", None),
    ],
)  # fmt: skip
def test_kernels_have_names(kernel: str, asked: tuple[str, int] | None) -> None:
    assert parse(kernel) == asked


def test_ids_are_told_as_knobs_with_tile_and_cluster_swapped() -> None:
    assert NAMES.knobs(Ids(66, 23, 35, 1, 0, 3)) == dict(zip(KNOBS, (66, 256, 128, 64, 0, 1, 0, 1, 2), strict=True))
    assert NAMES.knobs(Ids(6, 18, 31, 4, 1, 5)) == dict(zip(KNOBS, (6, 64, 128, 8, 3, 4, 1, 2, 1), strict=True))
    assert NAMES.knobs(Ids(6, 0, 0, 0, 0, 0)) == dict(zip(KNOBS, (6, 0, 0, 0, 0, 1, 0, 0, 0), strict=True))
    assert NAMES.knobs(Ids(6, 9999, 9999, -1, 0, 9999))["tile_m"] == 0


def test_the_grids_are_what_the_capabilities_allow() -> None:
    plain = Algorithm(algo=1, tiles=(15, 18), stages=(9,), scheme=2, swizzles=1, batched=True, alignment=(16, 4, 4))
    deep = Algorithm(algo=2, tiles=(23,), stages=(35,), scheme=0, swizzles=0, batched=False, alignment=(16, 16, 16))
    both = grids([plain, deep], NAMES, batched=False, alignment=WIDE)
    rows = shuffled(both, "one")
    assert len({tuple(row) for row in rows.tolist()}) == len(rows) == size(both) == 2 * 6 * 2 + 4
    assert {row[5] for row in rows.tolist() if row[0] == 1} == {0}
    assert {row[5] for row in rows.tolist() if row[0] == 2} == {0, 2, 3, 5}  # neither three blocks nor sixteen
    assert [grid[0].tolist() for grid in grids([plain, deep], NAMES, batched=True, alignment=WIDE)] == [[1]]
    assert [grid[0].tolist() for grid in grids([plain, deep], NAMES, batched=False, alignment=(16, 8, 4))] == [[1]]
    assert shuffled(grids([plain, deep], NAMES, batched=False, alignment=(8, 256, 256)), "one").shape == (0, 6)
    assert [scheme(mask) for mask in (0, 1, 3, 4, 7)] == [0, 1, 2, 4, 2]


def test_the_order_goes_by_the_problem_and_each_row_alone() -> None:
    plain = Algorithm(algo=1, tiles=(15, 18), stages=(9, 10), scheme=2, swizzles=1, batched=True, alignment=(4, 4, 4))
    one, two = (grids([replace(plain, algo=algo)], NAMES, batched=False, alignment=WIDE) for algo in (1, 2))
    mixed = shuffled([*one, *two], "one").tolist()
    assert mixed == shuffled([*two, *one], "one").tolist()
    assert [row for row in mixed if row[0] == 1] == shuffled(one, "one").tolist() != sorted(shuffled(one, "one").tolist())
    assert mixed != shuffled([*one, *two], "two").tolist()
    # pinned: recorded rows name configurations by their place
    assert mixed[:3] == [[1, 15, 9, 8, 0, 0], [2, 15, 9, 16, 0, 0], [2, 15, 10, 16, 1, 0]]
    gone = Ids(*mixed[5])
    assert without(shuffled([*one, *two], "one"), [gone]).tolist() == mixed[:5] + mixed[6:]
    assert len(without(shuffled(one, "one"), [])) == size(one)


@pytest.mark.parametrize("first", [0, 1, 7, 95, 96, 1000])
def test_the_first_places_are_those_of_the_whole_order(first: int) -> None:
    plain = Algorithm(algo=1, tiles=(15, 18), stages=(9, 10), scheme=2, swizzles=1, batched=True, alignment=(4, 4, 4))
    both = grids([plain, replace(plain, algo=2)], NAMES, batched=False, alignment=WIDE)
    assert size(both) == 96
    assert shuffled(both, "one", first).tolist() == shuffled(both, "one").tolist()[:first]


def test_operands_are_swapped_and_read_as_their_transposes() -> None:
    for layout in LAYOUTS:
        a, b, c = matrices(Gemm(m=5, n=7, k=3, layout=layout))
        assert (a.columns, a.rows)[:: -1 if a.transposed else 1] == (3, 7) and a.transposed == (layout[1] == "t")
        assert (b.columns, b.rows)[:: -1 if b.transposed else 1] == (5, 3) and b.transposed == (layout[0] == "t")
        assert c == (7, 5, False)


def test_alignment_is_that_of_every_set_and_for_rows_of_every_row() -> None:
    sets = [Operands(*(SimpleNamespace(data=SimpleNamespace(ptr=ptr)) for ptr in ptrs)) for ptrs in ((4096, 512, 1024), (4096 + 48, 520, 2048))]
    assert aligned(sets) == (8, 16, 256)  # B, A, C
    assert row_alignment(Gemm(m=8, n=6, k=4), WIDE) == (8, 16, 8)
    assert row_alignment(Gemm(m=8, n=64, k=3, batch=2, layout="nt"), WIDE) == (4, 4, 256)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.5, 2.0)])
def test_every_layout_and_batch_is_multiplied_right(layout: str, batch: int, alpha: float, beta: float) -> None:
    family, _ = _family()
    gemm = Gemm(m=5, n=7, k=3, batch=batch, layout=layout, alpha=alpha, beta=beta)
    sets = _sets(gemm)
    before = [one.c.array.copy() for one in sets]
    prepared = family.prepare(gemm, _config(), sets)
    gc.collect()
    prepared.launch(1)
    a, b = sets[1].a.array, sets[1].b.array
    want = alpha * ((a.swapaxes(1, 2) if layout[0] == "t" else a) @ (b.swapaxes(1, 2) if layout[1] == "t" else b)) + beta * before[1]
    np.testing.assert_allclose(sets[1].c.array, want, rtol=1e-5, atol=1e-5)
    assert np.array_equal(sets[0].c.array, before[0])


def test_a_batch_is_told_to_the_library() -> None:
    family, lt = _family()
    prepared = family.prepare(Gemm(m=5, n=7, k=3, batch=4), _config(), _sets(Gemm(m=5, n=7, k=3, batch=4)))
    assert sorted((told["rows"], told["cols"], told[5], told[6]) for told in lt.alive.values() if "rows" in told) == [
        (3, 5, 4, 15), (7, 3, 4, 21), (7, 5, 4, 35),
    ]  # fmt: skip
    assert 70 not in {_facts(family, f"enumerated-{i}", Gemm(m=5, n=7, k=3, batch=4))["algo_id"] for i in range(10)}  # it has no batches
    del prepared


def test_the_default_is_the_heuristics_first_choice() -> None:
    family, lt = _family()
    facts = _facts(family)
    assert facts == {**NAMES.knobs(FIRST), "kernel": "default", "library": "cublaslt 13.10.2", "workspace_bytes": 166}
    assert (facts["tile_m"], facts["tile_n"], facts["cluster_m"], facts["cluster_n"]) == (64, 128, 1, 2)
    assert _facts(family, "default") == facts
    assert _facts(family, "heuristic-1")["kernel"] == "heuristic-1" and _knobs(_facts(family, "heuristic-1")) == NAMES.knobs(SECOND)
    assert lt.log == ["create", "heuristic"]  # once for all four, and no capability was asked for
    assert lt.preference[1] == WORKSPACE_BYTES and all(lt.preference[one] % 4 == 0 for one in (5, 6, 7, 8))


def test_dtypes_are_told_in_the_librarys_numbers() -> None:
    want = {"fp32": (68, 0, 0), "tf32": (77, 0, 0), "fp16": (68, 2, 2), "bf16": (68, 14, 14), "fp8_e4m3": (68, 28, 14)}
    for dtype, (compute, inputs, output) in want.items():
        family, lt = _family()
        prepared = family.prepare(Gemm(m=5, n=7, k=3, dtype=dtype, layout="nt"), _config(), _sets(Gemm(m=5, n=7, k=3, layout="nt")))
        told = list(lt.alive.values())
        assert [one["compute"] for one in told if "compute" in one] == [compute] and all(25 not in one for one in told)
        assert sorted(one["of"] for one in told if "of" in one) == sorted((inputs, inputs, output))
        del prepared


@pytest.mark.parametrize("layout", ["nn", "tn", "tt"])
def test_fp8_has_one_layout(layout: str) -> None:
    family, lt = _family()
    assert "fp8 in layout nt only" in _refusal(lambda: _facts(family, gemm=Gemm(m=5, n=7, k=3, dtype="fp8_e4m3", layout=layout)))
    assert not lt.log


def test_what_is_not_on_offer_is_unsupported_and_says_what_is() -> None:
    family, _ = _family()
    assert "has 2 algorithms for 5x7x3 fp32 nn in cublaslt 13.10.2, no heuristic-2" in _refusal(lambda: _facts(family, "heuristic-2"))
    assert "no kernel 'fastest'" in _refusal(lambda: _facts(family, "fastest"))
    assert "no kernel 'beyond' without knobs" in _refusal(lambda: _facts(family, "enumerated"))
    assert "accepts no cublaslt tile_m=7" in _refusal(lambda: _facts(family, tile_m=7))
    assert "default of 5x7x3 fp32 nn in cublaslt 13.10.2 is algo_id=66, tile_m=64" in _refusal(lambda: _facts(family, "default", tile_m=256))
    assert _facts(family, "default", tile_m=64, tile_n=128)["kernel"] == "default"
    bare = CublasLt(FakeLt(heuristic=15), CUDA)
    assert "heuristic has 0 algorithms" in _refusal(lambda: _facts(bare))
    assert _facts(bare, "enumerated-0")["kernel"] == "enumerated-0"


def _all_beyond(family: CublasLt, gemm: Gemm = SMALL) -> list[dict[str, Any]]:
    found = []
    for i in range(1000):
        try:
            found.append(_facts(family, f"enumerated-{i}", gemm))
        except MeasurementError:
            break
    assert f"accepts {len(found)} configurations beyond its list" in _refusal(lambda: _facts(family, f"enumerated-{len(found)}", gemm))
    return found


def test_beyond_is_deterministic_without_repeats_and_disjoint_from_the_list() -> None:
    found = _all_beyond(_family()[0])
    knobs = [tuple(_knobs(one).values()) for one in found]
    assert len(set(knobs)) == len(knobs) > 20
    assert not {tuple(NAMES.knobs(ids).values()) for ids in (FIRST, SECOND)} & set(knobs)
    assert [one["kernel"] for one in found] == [f"enumerated-{i}" for i in range(len(found))]
    again, _ = _family()
    assert [_knobs(_facts(again, f"enumerated-{i}")) for i in (20, 3, 11)] == [_knobs(found[i]) for i in (20, 3, 11)]
    other = _all_beyond(again, Gemm(m=6, n=7, k=3))
    assert sorted(tuple(_knobs(one).values()) for one in other) == sorted(knobs) != [tuple(_knobs(one).values()) for one in other] != knobs


def test_what_the_library_refuses_or_the_workspace_cannot_hold_is_left_out() -> None:
    found = _all_beyond(_family()[0])
    assert not [one for one in found if one["split_k"] == 16 or (one["tile_n"], one["stages"]) == (128, 4) or one["cluster_m"] == 2]
    assert {one["split_k"] for one in found} == {1, 2, 3, 4, 8}
    assert all(one["workspace_bytes"] == 1000 * one["split_k"] for one in found)
    assert {one["algo_id"] for one in found} == {0, 66}  # 70 wants 64 bytes of alignment, the rows of B have 4


def test_checks_are_capped_and_not_repeated() -> None:
    family, lt = _family(check=15)
    assert "accepts 0 configurations" in _refusal(lambda: _facts(family, "enumerated-0"))
    checks = lt.log.count("check")
    assert 20 < checks <= MAX_CHECKS
    _refusal(lambda: _facts(family, "enumerated-1"))
    assert lt.log.count("check") == checks


def test_every_recorded_row_can_be_asked_for_again_by_its_knobs() -> None:
    family, _ = _family()
    rows = [_facts(family), _facts(family, "heuristic-1"), *_all_beyond(family)]
    for row in rows:
        assert _facts(family, **_knobs(row)) == row
        assert _facts(family, row["kernel"], **_knobs(row)) == row


def test_an_open_knob_takes_the_list_first() -> None:
    family, _ = _family()
    assert _facts(family, algo_id=66)["kernel"] == "default"
    assert _facts(family, split_k=2)["kernel"] == "heuristic-1"
    wide = _facts(family, tile_m=256)
    assert wide["kernel"].startswith("enumerated-") and wide["tile_n"] == 128
    assert _facts(family, "enumerated", algo_id=66)["kernel"].startswith("enumerated-")


@pytest.mark.parametrize(
    ("failing", "status", "reason"),
    [
        ({"create": 1}, "cuda_error", "cublasLtCreate: cublasStatus_t 1 (not initialized)"),
        ({"heuristic": 14}, "cuda_error", "cublasLtMatmulAlgoGetHeuristic: cublasStatus_t 14 (internal error)"),
        ({"heuristic": 7}, "unsupported", "cublasStatus_t 7 (invalid value)"),
        ({"ids": 13}, "cuda_error", "cublasLtMatmulAlgoGetIds of fp32: cublasStatus_t 13"),
        ({"init": 3}, "cuda_error", "capabilities of algorithm 0 of fp32: cublasStatus_t 3"),
        ({"init": 15}, "unsupported", "accepts 0 configurations beyond its list"),
        ({"check": 99}, "cuda_error", "cublasStatus_t 99 (unknown)"),
    ],
)
def test_a_status_of_the_library_is_a_failed_measurement(failing: dict[str, int], status: str, reason: str) -> None:
    family, _ = _family(**failing)
    assert reason in _refusal(lambda: _facts(family, "enumerated-0"), status)


@pytest.mark.parametrize(("number", "status"), [(13, "cuda_error"), (15, "unsupported")])
def test_a_launch_that_fails_says_so(number: int, status: str) -> None:
    family, _ = _family(matmul=number)
    prepared = family.prepare(SMALL, _config(), _sets(SMALL))
    assert "cublasLtMatmul: " in _refusal(lambda: prepared.launch(0), status)


def test_descriptors_of_forgotten_problems_are_freed_when_nobody_launches_them() -> None:
    family, lt = _family()
    kept = family.prepare(SMALL, _config(), _sets(SMALL))
    for m in range(10, 10 + 2 * SPACES):
        _facts(family, gemm=Gemm(m=m, n=7, k=3))
    gc.collect()
    assert len(lt.alive) == 4 * (SPACES + 1)
    kept.launch(0)
    del kept
    gc.collect()
    assert len(lt.alive) == 4 * SPACES


def test_alpha_and_beta_share_one_query() -> None:
    family, lt = _family()
    for beta in (0.0, 1.0):
        _facts(family, gemm=Gemm(m=5, n=7, k=3, beta=beta))
    assert lt.log.count("heuristic") == 1


def test_it_tells_what_cublas_will_launch() -> None:
    family, lt = _family()
    knobs = family.chosen(SMALL, WIDE, "13.10.2")
    assert knobs == _knobs(_facts(family)) == NAMES.knobs(FIRST)
    assert family.choice(replace(SMALL, beta=1.0)) == KernelConfig(family="cublas", **knobs)
    assert lt.log.count("heuristic") == 1


@pytest.mark.parametrize(("dtype", "version", "failing"), [("fp64", None, {}), ("fp32", "13.10.3", {}), ("fp32", None, {"heuristic": 15})])
def test_what_cublas_will_launch_may_be_unknown(dtype: str, version: str | None, failing: dict[str, int]) -> None:
    assert _family(**failing)[0].chosen(replace(SMALL, dtype=dtype), WIDE, version) == {}


def test_a_fault_while_asking_what_cublas_will_launch_is_told() -> None:
    with pytest.raises(MeasurementError, match="cuda_error"):
        _family(heuristic=14)[0].choice(SMALL)


def test_without_nvmath_cublas_is_asked_about_without_knobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    assert CublasLt().choice(SMALL) == KernelConfig(family="cublas")


def test_without_nvmath_the_family_is_unsupported() -> None:
    try:
        import nvmath  # noqa: F401
    except ImportError:
        assert "needs nvmath-python" in _refusal(lambda: load("cublaslt").prepare(SMALL, _config(), _sets(SMALL)))
    else:
        pytest.skip("nvmath is here")


# On a real GPU


def _e4m3() -> Any:
    """Value of each of the 256 codes; the two NaNs are not used."""
    bits = np.arange(256)
    exponent, fraction = bits >> 3 & 15, (bits & 7) / 8
    return np.where(bits >> 7, -1.0, 1.0) * np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - 7.0), fraction * 2.0**-6)


def _gpu() -> Any:
    xp = pytest.importorskip("cupy")
    pytest.importorskip("nvmath.bindings.cublasLt")
    try:
        xp.cuda.runtime.getDeviceCount()
    except xp.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(str(error))
    return xp


def _random(xp: Any, rng: Any, size: int, dtype: str) -> Any:
    if dtype == "fp8_e4m3":
        codes = np.flatnonzero(np.abs(_e4m3()) <= 2)
        return xp.asarray(rng.choice(codes, size).astype(np.uint8))
    return narrow(xp, xp.asarray(rng.standard_normal(size).astype(np.float32)), dtype)


def _wide(xp: Any, array: Any, dtype: str) -> Any:
    return xp.asarray(_e4m3())[array] if dtype == "fp8_e4m3" else widen(xp, array, dtype)


CASES = [*((dtype, layout) for dtype in ("fp32", "tf32", "fp16", "bf16") for layout in LAYOUTS), ("fp8_e4m3", "nt")]


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("dtype", "layout"), CASES)
def test_real_products_are_right(dtype: str, layout: str, batch: int) -> None:
    xp, rng = _gpu(), np.random.default_rng(7)
    gemm = Gemm(m=64, n=96, k=128, batch=batch, dtype=dtype, layout=layout, alpha=0.5, beta=2.0)
    out = "bf16" if dtype == "fp8_e4m3" else dtype
    inputs = _random(xp, rng, 2 * input_elements(gemm), dtype)
    outputs = _random(xp, rng, 2 * output_elements(gemm), out)
    sets, before = Carved(gemm, inputs, outputs, 2), outputs.copy()
    a, b = (_wide(xp, array, dtype) for array in (sets[1].a, sets[1].b))
    a, b = a.swapaxes(1, 2) if layout[0] == "t" else a, b.swapaxes(1, 2) if layout[1] == "t" else b
    want = 0.5 * xp.matmul(a, b) + 2.0 * widen(xp, sets[1].c, out)
    family, done = CublasLt(), []
    for kernel in ("default", "heuristic-1", "heuristic-2", *(f"enumerated-{i}" for i in range(5))):
        outputs[:] = before
        try:
            prepared = family.prepare(gemm, _config(kernel), sets)
        except MeasurementError:  # a list may be shorter
            continue
        prepared.launch(1)
        error_of = float(xp.max(xp.abs(widen(xp, sets[1].c, out) - want)) / xp.sqrt(xp.mean(want * want)))
        assert error_of <= tolerance(out, gemm.k), prepared.facts
        assert bool((sets[0].c == Carved(gemm, inputs, before, 2)[0].c).all())  # the other set is untouched
        assert prepared.facts["kernel"] == kernel and prepared.facts["workspace_bytes"] <= WORKSPACE_BYTES
        assert family.prepare(gemm, _config(**_knobs(prepared.facts)), sets).facts["algo_id"] == prepared.facts["algo_id"]
        done.append(kernel)
    assert {"default", "enumerated-0"} <= set(done) and len(done) >= 3  # few configurations take ragged batches


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
def test_cublas_tells_the_knobs_of_the_heuristics_first_choice() -> None:
    xp, gemm = _gpu(), Gemm(m=300, n=200, k=128, dtype="fp16", beta=1.0)
    sets = Carved(gemm, *(xp.zeros(size, xp.float16) for size in (input_elements(gemm), output_elements(gemm))), 1)
    facts = load("cublas").prepare(gemm, KernelConfig(family="cublas"), sets).facts
    assert _knobs(facts) == _knobs(CublasLt().prepare(gemm, _config(), sets).facts) != dict.fromkeys(KNOBS, 0)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
def test_a_real_launch_can_be_captured_into_a_graph() -> None:
    xp, rng = _gpu(), np.random.default_rng(7)
    gemm = Gemm(m=64, n=96, k=128, dtype="fp16")
    inputs, outputs = (_random(xp, rng, size, "fp16") for size in (input_elements(gemm), output_elements(gemm)))
    sets = Carved(gemm, inputs, outputs, 1)
    prepared = CublasLt().prepare(gemm, _config(), sets)
    xp.cuda.Device().synchronize()  # the arrays were filled on another stream
    with xp.cuda.Stream(non_blocking=True) as stream:
        prepared.launch(0)
        stream.synchronize()
        want = outputs.copy()
        outputs.fill(0)
        stream.synchronize()
        stream.begin_capture()
        prepared.launch(0)
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    assert bool((outputs == want).all())
    assert CARRIERS["fp16"] == str(outputs.dtype)
