"""cuBLASLt without a library: ids and knobs, kernel names, the enumeration's order, matrices."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from agent.kernels.cublaslt import aligned
from agent.kernels.cublaslt.enumeration import axes_of, shuffled, size, without
from agent.kernels.cublaslt.matrices import matrices, row_alignment
from agent.kernels.cublaslt.names import (
    LT_KNOBS,
    Capabilities,
    Ids,
    reduction_scheme,
)
from agent.operands import Operands
from gemmcast.gemm import LAYOUTS, Gemm
from gemmcast.kernel_names import library_name
from tests.agent.fake_cublaslt import DECODER

WIDE = (256, 256, 256)
PLAIN = Capabilities(
    algo=1,
    tiles=(15, 18),
    stages=(9, 10),
    scheme=2,
    swizzles=1,
    batched=True,
    alignment=(4, 4, 4),
)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("", ("heuristic", 0)),
        ("default", ("heuristic", 0)),
        ("heuristic-7", ("heuristic", 7)),
        ("enumerated-0", ("enumerated", 0)),
        ("heuristic-0", None),
        ("enumerated-01", None),
        ("enumerated", None),
        ("enumerated--1", None),
        ("beyond-0", None),
        ("fastest", None),
    ],
)
def test_kernels_have_names(kernel: str, expected: tuple[str, int] | None) -> None:
    assert library_name(kernel) == expected


@pytest.mark.parametrize(
    ("ids", "values"),
    [
        (Ids(66, 23, 35, 1, 0, 3), (66, 256, 128, 64, 0, 1, 0, 1, 2)),
        (Ids(6, 18, 31, 4, 1, 5), (6, 64, 128, 8, 3, 4, 1, 2, 1)),
        (Ids(6, 0, 0, 0, 0, 0), (6, 0, 0, 0, 0, 1, 0, 0, 0)),
    ],
)
def test_ids_become_knobs_with_tile_and_cluster_swapped(ids: Ids, values: tuple[int, ...]) -> None:
    assert DECODER.knobs(ids) == dict(zip(LT_KNOBS, values, strict=True))


def test_an_id_that_is_newer_than_the_binding_has_no_knobs() -> None:
    assert DECODER.knobs(Ids(6, 9999, 9999, -1, 0, 9999))["tile_m"] == 0


def test_the_axes_are_what_the_capabilities_allow() -> None:
    plain = replace(PLAIN, stages=(9,), alignment=(16, 4, 4))
    deep = Capabilities(
        algo=2,
        tiles=(23,),
        stages=(35,),
        scheme=0,
        swizzles=0,
        batched=False,
        alignment=(16, 16, 16),
    )
    axes = axes_of([plain, deep], DECODER, batched=False, alignment=WIDE)
    rows = shuffled(axes, "one").tolist()
    distinct = {tuple(row) for row in rows}
    assert len(distinct) == len(rows) == size(axes) == 2 * 6 * 2 + 4
    assert {row[5] for row in rows if row[0] == 1} == {0}
    # Neither three blocks nor sixteen.
    assert {row[5] for row in rows if row[0] == 2} == {0, 2, 3, 5}


def test_axes_need_batches_and_alignment() -> None:
    plain = replace(PLAIN, alignment=(16, 4, 4))
    deep = replace(PLAIN, algo=2, batched=False, alignment=(16, 16, 16))
    batched = axes_of([plain, deep], DECODER, batched=True, alignment=WIDE)
    assert [axes[0].tolist() for axes in batched] == [[1]]
    less_aligned = axes_of([plain, deep], DECODER, batched=False, alignment=(16, 8, 4))
    assert [axes[0].tolist() for axes in less_aligned] == [[1]]
    unaligned = axes_of([plain, deep], DECODER, batched=False, alignment=(8, 256, 256))
    assert shuffled(unaligned, "one").shape == (0, 6)


def test_the_most_exact_reduction_scheme_is_used() -> None:
    assert [reduction_scheme(mask) for mask in (0, 1, 3, 4, 7)] == [0, 1, 2, 4, 2]


def test_the_order_goes_by_the_problem_and_each_row_alone() -> None:
    one = axes_of([PLAIN], DECODER, batched=False, alignment=WIDE)
    two = axes_of([replace(PLAIN, algo=2)], DECODER, batched=False, alignment=WIDE)
    mixed = shuffled([*one, *two], "one").tolist()
    assert mixed == shuffled([*two, *one], "one").tolist()
    alone = shuffled(one, "one").tolist()
    assert [row for row in mixed if row[0] == 1] == alone
    assert alone != sorted(alone)
    assert mixed != shuffled([*one, *two], "two").tolist()
    # Pinned: recorded rows name configurations by their place.
    assert mixed[:3] == [[1, 15, 9, 8, 0, 0], [2, 15, 9, 16, 0, 0], [2, 15, 10, 16, 1, 0]]


def test_listed_rows_are_left_out_and_move_no_other() -> None:
    axes = axes_of([PLAIN], DECODER, batched=False, alignment=WIDE)
    rows = shuffled(axes, "one")
    listed = Ids(*rows[5].tolist())
    kept = without(rows, [listed]).tolist()
    assert kept == rows.tolist()[:5] + rows.tolist()[6:]
    assert len(without(rows, [])) == size(axes)


@pytest.mark.parametrize("first", [0, 1, 7, 95, 96, 1000])
def test_the_first_places_are_those_of_the_whole_order(first: int) -> None:
    algorithms = [PLAIN, replace(PLAIN, algo=2)]
    axes = axes_of(algorithms, DECODER, batched=False, alignment=WIDE)
    assert size(axes) == 96
    whole = shuffled(axes, "one").tolist()
    assert shuffled(axes, "one", first).tolist() == whole[:first]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_are_swapped_and_read_as_their_transposes(layout: str) -> None:
    a, b, c = matrices(Gemm(m=5, n=7, k=3, layout=layout))
    assert a == ((3, 7, True) if layout[1] == "t" else (7, 3, False))
    assert b == ((5, 3, True) if layout[0] == "t" else (3, 5, False))
    assert c == (7, 5, False)


def _pointer(address: int) -> SimpleNamespace:
    return SimpleNamespace(data=SimpleNamespace(ptr=address))


def test_alignment_is_that_of_every_set() -> None:
    first = Operands(_pointer(4096), _pointer(512), _pointer(1024))
    second = Operands(_pointer(4096 + 48), _pointer(520), _pointer(2048))
    # B, A, C.
    assert aligned([first, second]) == (8, 16, 256)


def test_alignment_of_rows_is_that_of_every_row() -> None:
    assert row_alignment(Gemm(m=8, n=6, k=4), WIDE) == (8, 16, 8)
    batched = Gemm(m=8, n=64, k=3, batch=2, layout="nt")
    assert row_alignment(batched, WIDE) == (4, 4, 256)
