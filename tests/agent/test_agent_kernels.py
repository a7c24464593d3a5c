"""The seam of families, and NumPy's BLAS behind it: layouts, blocks, batches, thread counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from agent.kernels import load, refuse
from agent.kernels.blas import library, set_threads
from agent.operands import ALIGNMENT, Carved, Operands, addresses, input_elements, output_elements
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import LAYOUTS, Gemm

TYPES = {"fp32": np.float32, "fp64": np.float64}


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    yield
    set_threads(0)


def _sets(gemm: Gemm, count: int = 2) -> list[Operands]:
    rng = np.random.default_rng(1)
    inputs, outputs = (rng.standard_normal(count * size).astype(TYPES[gemm.dtype]) for size in (input_elements(gemm), output_elements(gemm)))
    return Carved(gemm, inputs, outputs, count)


def _want(gemm: Gemm, operands: Operands) -> Any:
    a = operands.a.swapaxes(1, 2) if gemm.layout[0] == "t" else operands.a
    b = operands.b.swapaxes(1, 2) if gemm.layout[1] == "t" else operands.b
    return np.einsum("bmk,bkn->bmn", a.astype(np.float64), b.astype(np.float64))


def _config(**knobs: Any) -> KernelConfig:
    return KernelConfig(family="blas", **knobs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_are_carved_as_they_are_stored(layout: str) -> None:
    gemm = Gemm(m=3, n=5, k=7, batch=2, layout=layout)
    first, second = _sets(gemm)
    assert first.a.shape == ((2, 7, 3) if layout[0] == "t" else (2, 3, 7))
    assert first.b.shape == ((2, 5, 7) if layout[1] == "t" else (2, 7, 5))
    assert first.c.shape == (2, 3, 5)
    arrays = [first.a, first.b, first.c, second.a, second.b, second.c]
    assert not any(np.shares_memory(x, y) for i, x in enumerate(arrays) for y in arrays[i + 1 :])
    assert all(array.flags.c_contiguous for array in arrays)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("m", "n", "k", "batch"), [(1, 1, 1, 1), (3, 5, 7, 2), (16, 16, 16, 1), (1, 257, 255, 1), (33, 8, 100, 5)])
def test_every_operand_starts_where_a_matrix_of_its_own_would(m: int, n: int, k: int, batch: int, layout: str) -> None:
    gemm, sets = Gemm(m=m, n=n, k=k, batch=batch, layout=layout), 3
    inputs, outputs = np.arange(sets * input_elements(gemm)), np.arange(sets * output_elements(gemm))
    made = Carved(gemm, inputs, outputs, sets)
    assert [int(array.flat[0]) % ALIGNMENT for one in made for array in (one.a, one.b, one.c)] == [0] * 9
    assert [(one.a.size, one.b.size, one.c.size) for one in made] == [(batch * m * k, batch * k * n, batch * m * n)] * sets
    # no arena is larger than need be: the last operand and its padding end it
    assert -(-(int(made[-1].b.flat[-1]) + 1) // ALIGNMENT) * ALIGNMENT == len(inputs)
    assert -(-(int(made[-1].c.flat[-1]) + 1) // ALIGNMENT) * ALIGNMENT == len(outputs)


def test_an_arena_that_is_too_small_is_not_carved() -> None:
    gemm = Gemm(m=40, n=40, k=40)
    arenas = np.zeros(2 * input_elements(gemm)), np.zeros(2 * output_elements(gemm))
    assert len(Carved(gemm, *arenas, 2)) == 2
    with pytest.raises(ValueError, match="too small for 3 sets"):
        Carved(gemm, *arenas, 3)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "config",
    [
        _config(),
        _config(kernel="numpy", cpu_threads=1),
        _config(kernel="blocked", tile_m=16, tile_n=16, tile_k=16),
        _config(kernel="blocked", tile_m=7, tile_n=64, tile_k=1),  # ragged in m, over n, one by one in k
        _config(kernel="blocked", tile_m=33, tile_n=20, tile_k=50),  # exactly one block
        _config(kernel="blocked"),
    ],
    ids=str,
)
def test_every_layout_is_multiplied_right(config: KernelConfig, layout: str, dtype: str) -> None:
    gemm = Gemm(m=33, n=20, k=50, layout=layout, dtype=dtype)
    sets = _sets(gemm)
    before = [(s.a.copy(), s.b.copy()) for s in sets]
    prepared = load("blas").prepare(gemm, config, sets)
    for i, operands in enumerate(sets):
        operands.c.fill(np.nan)
        prepared.launch(i)
        prepared.launch(i)  # a second launch computes the same, it does not add
        np.testing.assert_allclose(operands.c, _want(gemm, operands), rtol=1e-4, atol=1e-4)
        assert np.array_equal(operands.a, before[i][0]) and np.array_equal(operands.b, before[i][1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_is_many_products(layout: str) -> None:
    gemm = Gemm(m=9, n=8, k=7, batch=5, layout=layout)
    sets = _sets(gemm)
    prepared = load("blas").prepare(gemm, _config(), sets)
    prepared.launch(1)
    np.testing.assert_allclose(sets[1].c, _want(gemm, sets[1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("gemm", "config", "reason"),
    [
        (Gemm(m=4, n=4, k=4, batch=2), _config(kernel="blocked", tile_m=2), "the blocked kernel has no batch"),
        (Gemm(m=4, n=4, k=4, alpha=2.0), _config(), "alpha=2.0"),
        (Gemm(m=4, n=4, k=4, beta=1.0), _config(), "beta=1.0"),
        (Gemm(m=4, n=4, k=4), _config(kernel="strassen"), "blas has kernels numpy and blocked, not 'strassen'"),
        (Gemm(m=4, n=4, k=4), _config(cpu_threads=1_000_000), "threads when asked for 1000000"),
    ],
)
def test_what_it_cannot_do_is_unsupported(gemm: Gemm, config: KernelConfig, reason: str) -> None:
    with pytest.raises(MeasurementError, match=reason) as caught:
        load("blas").prepare(gemm, config, _sets(gemm))
    assert caught.value.status == "unsupported"


def test_threads_are_set_and_recorded_as_blas_reports_them() -> None:
    gemm = Gemm(m=4, n=4, k=4)
    facts = load("blas").prepare(gemm, _config(cpu_threads=1), _sets(gemm)).facts
    assert facts == {"cpu_threads": 1, "kernel": "numpy", "library": library()}
    assert "None" not in library()
    assert load("blas").prepare(gemm, _config(kernel="blocked", cpu_threads=2), _sets(gemm)).facts["cpu_threads"] == 2


def test_a_cell_that_names_no_threads_is_not_measured_with_those_of_the_cell_before() -> None:
    gemm, own = Gemm(m=4, n=4, k=4), set_threads(0)
    for threads in (1, 2, 3):
        assert load("blas").prepare(gemm, _config(cpu_threads=threads), _sets(gemm)).facts["cpu_threads"] == threads
        assert load("blas").prepare(gemm, _config(), _sets(gemm)).facts["cpu_threads"] == own


def test_a_family_is_refused_where_it_has_no_business() -> None:
    refuse(Gemm(m=4, n=4, k=4, dtype="fp64"), _config(), "cpu")
    with pytest.raises(MeasurementError, match="family blas runs on cpu, this device is cuda"):
        refuse(Gemm(m=4, n=4, k=4), _config(), "cuda")
    with pytest.raises(MeasurementError, match="family tiled runs on cuda"):
        refuse(Gemm(m=4, n=4, k=4), KernelConfig(family="tiled"), "cpu")
    with pytest.raises(MeasurementError, match=r"family blas has no bf16 \(it has fp32, fp64\)"):
        refuse(Gemm(m=4, n=4, k=4, dtype="bf16"), _config(), "cpu")


def test_a_family_that_this_version_has_no_kernel_for_is_unsupported() -> None:
    with pytest.raises(MeasurementError, match="family wmma can be recorded and predicted, but this version has no kernel for it") as caught:
        load("wmma")
    assert caught.value.status == "unsupported"


def test_a_library_that_a_family_misses_is_not_mistaken_for_a_missing_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.delitem(sys.modules, "agent.kernels.blas")
    with pytest.raises(ModuleNotFoundError, match="threadpoolctl"):
        load("blas")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("of_c", [np.uint8, np.float64])
def test_the_addresses_of_carved_sets_are_those_of_their_windows(layout: str, of_c: Any) -> None:
    gemm = Gemm(m=33, n=8, k=100, batch=3, layout=layout)
    sets = Carved(gemm, np.zeros(4 * input_elements(gemm), np.uint16), np.zeros(4 * output_elements(gemm), of_c), 4)
    assert addresses(sets).tolist() == addresses(list(sets)).tolist() == [[x.ctypes.data for x in (one.a, one.b, one.c)] for one in sets]
    assert addresses(sets[1:3]).tolist() == addresses(sets)[1:3].tolist() and sets[-1] is sets[3]
    with pytest.raises(IndexError):
        sets[4]
