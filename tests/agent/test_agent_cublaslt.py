"""cuBLASLt: the family over a fake of nvmath's bindings that multiplies."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from agent.kernels import load
from agent.kernels.cublaslt import MAX_SPACES, CublasLt
from agent.kernels.cublaslt.candidates import MAX_CHECKS
from agent.kernels.cublaslt.cli import main
from agent.kernels.cublaslt.library import WORKSPACE_BYTES
from agent.kernels.cublaslt.names import LT_KNOBS
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import LAYOUTS, Gemm
from tests.agent.fake_cublaslt import (
    DECODER,
    FIRST,
    SECOND,
    FakeLt,
    fake_cuda,
    memory,
    operand_sets,
)
from tests.agent.fake_cublaslt import family as make_family

Facts = dict[str, Any]
WIDE = (256, 256, 256)
SMALL = Gemm(m=5, n=7, k=3)


def _config(kernel: str = "", **knobs: int) -> KernelConfig:
    return KernelConfig(family="cublaslt", kernel=kernel, **knobs)


def _facts(family: CublasLt, kernel: str = "", gemm: Gemm = SMALL, **knobs: int) -> Facts:
    return family.prepare(gemm, _config(kernel, **knobs), operand_sets(gemm)).facts


def _knobs(facts: Facts) -> dict[str, int]:
    return {knob: facts[knob] for knob in LT_KNOBS}


def _values(facts: Facts) -> tuple[int, ...]:
    return tuple(facts[knob] for knob in LT_KNOBS)


def _refusal(call: Callable[[], object], status: str = "unsupported") -> str:
    with pytest.raises(MeasurementError) as caught:
        call()
    assert caught.value.status == status
    return caught.value.reason


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.5, 2.0)])
def test_every_layout_and_batch_is_multiplied_right(
    layout: str, batch: int, alpha: float, beta: float
) -> None:
    family, _ = make_family()
    gemm = Gemm(m=5, n=7, k=3, batch=batch, layout=layout, alpha=alpha, beta=beta)
    sets = operand_sets(gemm)
    before = [one.c.copy() for one in sets]
    prepared = family.prepare(gemm, _config(), sets)
    gc.collect()
    prepared.launch(1)
    a = sets[1].a.swapaxes(1, 2) if layout[0] == "t" else sets[1].a
    b = sets[1].b.swapaxes(1, 2) if layout[1] == "t" else sets[1].b
    want = alpha * (a @ b) + beta * before[1]
    np.testing.assert_allclose(sets[1].c, want, rtol=1e-5, atol=1e-5)
    assert np.array_equal(sets[0].c, before[0])


def test_the_library_gets_the_batch() -> None:
    family, lt = make_family()
    gemm = Gemm(m=5, n=7, k=3, batch=4)
    prepared = family.prepare(gemm, _config(), operand_sets(gemm))
    layouts = [attributes for attributes in lt.alive.values() if "rows" in attributes]
    shapes = sorted((one["rows"], one["cols"], one[5], one[6]) for one in layouts)
    assert shapes == [(3, 5, 4, 15), (7, 3, 4, 21), (7, 5, 4, 35)]
    # Algorithm 70 has no batches.
    enumerated = [_facts(family, f"enumerated-{i}", gemm) for i in range(10)]
    assert 70 not in {facts["algo_id"] for facts in enumerated}
    del prepared


def test_the_default_is_the_heuristics_first_choice() -> None:
    family, lt = make_family()
    facts = _facts(family)
    assert facts == {
        **DECODER.knobs(FIRST),
        "kernel": "default",
        "library": "cublaslt 13.10.2",
        "workspace_bytes": 166,
    }
    assert (facts["tile_m"], facts["tile_n"]) == (64, 128)
    assert (facts["cluster_m"], facts["cluster_n"]) == (1, 2)
    assert _facts(family, "default") == facts
    second = _facts(family, "heuristic-1")
    assert second["kernel"] == "heuristic-1"
    assert _knobs(second) == DECODER.knobs(SECOND)
    # One query for all, and no capability was read.
    assert lt.log == ["create", "heuristic"]
    assert lt.preference[1] == WORKSPACE_BYTES
    assert all(lt.preference[attribute] % 4 == 0 for attribute in (5, 6, 7, 8))


@pytest.mark.parametrize(
    ("dtype", "compute", "inputs", "output"),
    [
        ("fp32", 68, 0, 0),
        ("tf32", 77, 0, 0),
        ("fp16", 68, 2, 2),
        ("bf16", 68, 14, 14),
        ("fp8_e4m3", 68, 28, 14),
        ("int8", 72, 3, 10),
    ],
)
def test_dtypes_are_passed_in_the_librarys_numbers(
    dtype: str, compute: int, inputs: int, output: int
) -> None:
    family, lt = make_family()
    gemm = Gemm(m=5, n=7, k=3, dtype=dtype, layout="nt")
    prepared = family.prepare(gemm, _config(), operand_sets(replace(gemm, dtype="fp32")))
    descriptors = list(lt.alive.values())
    assert [one["compute"] for one in descriptors if "compute" in one] == [compute]
    scale = 10 if dtype == "int8" else 0
    assert [one["scale"] for one in descriptors if "scale" in one] == [scale]
    assert all(25 not in one for one in descriptors), "fast accumulation is not set"
    dtypes = sorted(one["dtype"] for one in descriptors if "dtype" in one)
    assert dtypes == sorted((inputs, inputs, output))
    del prepared


@pytest.mark.parametrize("dtype", ["fp8_e4m3", "int8"])
@pytest.mark.parametrize("layout", ["nn", "tn", "tt"])
def test_fp8_and_int8_have_one_layout(dtype: str, layout: str) -> None:
    family, lt = make_family()
    gemm = Gemm(m=5, n=7, k=3, dtype=dtype, layout=layout)
    assert f"{dtype} in layout nt only" in _refusal(lambda: _facts(family, gemm=gemm))
    assert not lt.log


def test_int8_is_multiplied_by_whole_numbers() -> None:
    family, lt = make_family()
    gemm = Gemm(m=5, n=7, k=3, dtype="int8", layout="nt", alpha=3.0, beta=-2.0)
    sets = operand_sets(replace(gemm, dtype="fp32"))
    prepared = family.prepare(gemm, _config(), sets)
    scalars: list[Any] = []
    lt.matmul = lambda *arguments: scalars.extend(memory(arguments[i], "i4")[0] for i in (2, 7))
    prepared.launch(0)
    assert scalars == [3, -2]
    for scaled in (replace(gemm, alpha=0.5), replace(gemm, beta=0.5)):
        reason = _refusal(partial(family.prepare, scaled, _config(), sets))
        assert "multiplies int8 by whole numbers only" in reason


@pytest.mark.parametrize(
    ("kernel", "knobs", "reason"),
    [
        (
            "heuristic-2",
            {},
            "has 2 algorithms for 5x7x3 fp32 nn in cublaslt 13.10.2, no heuristic-2",
        ),
        ("fastest", {}, "no kernel 'fastest'"),
        ("enumerated", {}, "no kernel 'enumerated' without knobs"),
        ("", {"tile_m": 7}, "accepts no cublaslt:tile_m=7"),
        (
            "default",
            {"tile_m": 256},
            "default of 5x7x3 fp32 nn in cublaslt 13.10.2 is algo_id=66, tile_m=64",
        ),
    ],
)
def test_a_refusal_says_what_there_is(kernel: str, knobs: dict[str, int], reason: str) -> None:
    family, _ = make_family()
    assert reason in _refusal(lambda: _facts(family, kernel, **knobs))


def test_a_name_may_have_knobs_that_agree() -> None:
    family, _ = make_family()
    assert _facts(family, "default", tile_m=64, tile_n=128)["kernel"] == "default"


def test_without_a_heuristic_there_are_enumerated_algorithms() -> None:
    family = CublasLt(FakeLt(heuristic=15), fake_cuda())
    assert "heuristic has 0 algorithms" in _refusal(lambda: _facts(family))
    assert _facts(family, "enumerated-0")["kernel"] == "enumerated-0"


def _all_enumerated(family: CublasLt, gemm: Gemm = SMALL) -> list[Facts]:
    rows: list[Facts] = []
    for i in range(1000):
        try:
            rows.append(_facts(family, f"enumerated-{i}", gemm))
        except MeasurementError:
            break
    reason = _refusal(lambda: _facts(family, f"enumerated-{len(rows)}", gemm))
    assert f"accepts {len(rows)} configurations outside its list" in reason
    return rows


def test_the_enumeration_is_deterministic_distinct_and_disjoint_from_the_list() -> None:
    family, _ = make_family()
    rows = _all_enumerated(family)
    values = [_values(row) for row in rows]
    assert len(set(values)) == len(values) > 20
    listed = {tuple(DECODER.knobs(ids).values()) for ids in (FIRST, SECOND)}
    assert not listed & set(values)
    assert [row["kernel"] for row in rows] == [f"enumerated-{i}" for i in range(len(rows))]
    again, _ = make_family()
    for i in (20, 3, 11):
        assert _values(_facts(again, f"enumerated-{i}")) == values[i]


def test_every_problem_has_an_order_of_its_own() -> None:
    family, _ = make_family()
    first = [_values(row) for row in _all_enumerated(family)]
    second = [_values(row) for row in _all_enumerated(family, Gemm(m=6, n=7, k=3))]
    assert sorted(first) == sorted(second)
    assert first != second
    assert second != sorted(second)


def test_what_the_library_refuses_or_the_workspace_cannot_hold_is_left_out() -> None:
    family, _ = make_family()
    rows = _all_enumerated(family)
    for row in rows:
        assert row["split_k"] != 16
        assert (row["tile_n"], row["stages"]) != (128, 4)
        assert row["cluster_m"] != 2
        assert row["workspace_bytes"] == 1000 * row["split_k"]
    assert {row["split_k"] for row in rows} == {1, 2, 3, 4, 8}
    # 70 needs 64 bytes of alignment; the rows of B have 4.
    assert {row["algo_id"] for row in rows} == {0, 66}


def test_checks_are_capped_and_not_repeated() -> None:
    family, lt = make_family(check=15)
    assert "accepts 0 configurations" in _refusal(lambda: _facts(family, "enumerated-0"))
    checks = lt.log.count("check")
    assert 20 < checks <= MAX_CHECKS
    _refusal(lambda: _facts(family, "enumerated-1"))
    assert lt.log.count("check") == checks


def test_every_recorded_row_is_selected_again_by_its_knobs() -> None:
    family, _ = make_family()
    rows = [_facts(family), _facts(family, "heuristic-1"), *_all_enumerated(family)]
    for row in rows:
        assert _facts(family, **_knobs(row)) == row
        assert _facts(family, row["kernel"], **_knobs(row)) == row


def test_an_open_knob_takes_the_list_first() -> None:
    family, _ = make_family()
    assert _facts(family, algo_id=66)["kernel"] == "default"
    assert _facts(family, split_k=2)["kernel"] == "heuristic-1"
    wide = _facts(family, tile_m=256)
    assert wide["kernel"].startswith("enumerated-")
    assert wide["tile_n"] == 128
    assert _facts(family, "enumerated", algo_id=66)["kernel"].startswith("enumerated-")


@pytest.mark.parametrize(
    ("failing", "status", "reason"),
    [
        ({"create": 1}, "cuda_error", "cublasLtCreate: cublasStatus_t 1 (not initialized)"),
        (
            {"heuristic": 14},
            "cuda_error",
            "cublasLtMatmulAlgoGetHeuristic: cublasStatus_t 14 (internal error)",
        ),
        ({"heuristic": 7}, "unsupported", "cublasStatus_t 7 (invalid value)"),
        ({"ids": 13}, "cuda_error", "cublasLtMatmulAlgoGetIds of fp32: cublasStatus_t 13"),
        ({"init": 3}, "cuda_error", "capabilities of algorithm 0 of fp32: cublasStatus_t 3"),
        ({"init": 15}, "unsupported", "accepts 0 configurations outside its list"),
        ({"check": 99}, "cuda_error", "cublasStatus_t 99 (unknown)"),
    ],
)
def test_a_status_of_the_library_is_a_failed_measurement(
    failing: dict[str, int], status: str, reason: str
) -> None:
    family, _ = make_family(**failing)
    assert reason in _refusal(lambda: _facts(family, "enumerated-0"), status)


@pytest.mark.parametrize(("number", "status"), [(13, "cuda_error"), (15, "unsupported")])
def test_a_failed_launch_is_a_failed_measurement(number: int, status: str) -> None:
    family, _ = make_family(matmul=number)
    prepared = family.prepare(SMALL, _config(), operand_sets(SMALL))
    assert "cublasLtMatmul: " in _refusal(lambda: prepared.launch(0), status)


def test_descriptors_are_freed_with_the_problem_and_its_last_launch() -> None:
    family, lt = make_family()
    kept = family.prepare(SMALL, _config(), operand_sets(SMALL))
    for m in range(10, 10 + 2 * MAX_SPACES):
        _facts(family, gemm=Gemm(m=m, n=7, k=3))
    gc.collect()
    assert len(lt.alive) == 4 * (MAX_SPACES + 1)
    kept.launch(0)
    del kept
    gc.collect()
    assert len(lt.alive) == 4 * MAX_SPACES


def test_alpha_and_beta_share_one_query() -> None:
    family, lt = make_family()
    for beta in (0.0, 1.0):
        _facts(family, gemm=Gemm(m=5, n=7, k=3, beta=beta))
    assert lt.log.count("heuristic") == 1


def test_the_default_of_cublas_is_the_heuristics_first_choice() -> None:
    family, lt = make_family()
    knobs = family.default_knobs(SMALL, WIDE, "13.10.2")
    assert knobs == _knobs(_facts(family)) == DECODER.knobs(FIRST)
    config = family.default_config(replace(SMALL, beta=1.0))
    assert config == KernelConfig(family="cublas", **knobs)
    assert lt.log.count("heuristic") == 1


@pytest.mark.parametrize("name", ["", "default", "heuristic-1", "enumerated-0"])
def test_a_name_is_resolved_to_what_would_run(name: str) -> None:
    family, lt = make_family()
    facts = _facts(family, name)
    config = family.resolve(SMALL, _config(name))
    assert config == _config(facts["kernel"], **_knobs(facts))
    assert config.algo_id or config.tile_m
    assert lt.log.count("matmul") == 0


def test_the_command_prints_what_a_configs_file_holds(capsys: pytest.CaptureFixture[str]) -> None:
    family, _ = make_family()
    names = ["default", "heuristic-1", "enumerated-0"]
    assert main(["5", "7", "3", *names, "--layout", "nt"], family) == 0
    configs = [KernelConfig(**values) for values in json.loads(capsys.readouterr().out)]
    gemm = replace(SMALL, layout="nt")
    assert configs == [family.resolve(gemm, _config(name)) for name in names]
    assert len({config.algo_id for config in configs}) > 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["0", "7", "3", "default"], 2, "error: m = 0: must be a whole number"),
        (["5", "7", "3", "beyond-0"], 2, "error: NAME = 'beyond-0': no name of cublaslt; use def"),
        (["5", "7", "3", "heuristic-7"], 1, "error: unsupported: cublaslt's heuristic has 2"),
    ],
)
def test_the_command_ends_with_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(arguments, make_family()[0]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message) and err.count("\n") == 1


@pytest.mark.parametrize(
    ("dtype", "version", "failing"),
    [("fp64", None, {}), ("fp32", "13.10.3", {}), ("fp32", None, {"heuristic": 15})],
)
def test_the_default_of_cublas_may_be_unknown(
    dtype: str, version: str | None, failing: dict[str, int]
) -> None:
    family, _ = make_family(**failing)
    assert family.default_knobs(replace(SMALL, dtype=dtype), WIDE, version) == {}


def test_a_fault_of_the_heuristic_is_raised() -> None:
    family, _ = make_family(heuristic=14)
    with pytest.raises(MeasurementError, match="cuda_error"):
        family.default_config(SMALL)


def test_without_nvmath_the_default_of_cublas_has_no_knobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    assert CublasLt().default_config(SMALL) == KernelConfig(family="cublas")


def test_without_nvmath_the_family_is_unsupported() -> None:
    try:
        import nvmath  # noqa: F401
    except ImportError:
        family = load("cublaslt")
        reason = _refusal(lambda: family.prepare(SMALL, _config(), operand_sets(SMALL)))
        assert "needs nvmath-python" in reason
    else:
        pytest.skip("nvmath is here")
