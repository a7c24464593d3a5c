"""The seam of families, and NumPy's BLAS behind it: layouts, blocks, batches, thread counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from agent.kernels import Operands, carve, load, refuse
from agent.kernels.blas import library, set_threads
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
    sizes = gemm.batch * (gemm.m * gemm.k + gemm.k * gemm.n), gemm.batch * gemm.m * gemm.n
    inputs, outputs = (rng.standard_normal(count * size).astype(TYPES[gemm.dtype]) for size in sizes)
    return carve(gemm, inputs, outputs, count)


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


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "config",
    [
        _config(),
        _config(kernel="numpy", threads=1),
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
        (Gemm(m=4, n=4, k=4), _config(threads=1_000_000), "threads when asked for 1000000"),
    ],
)
def test_what_it_cannot_do_is_unsupported(gemm: Gemm, config: KernelConfig, reason: str) -> None:
    with pytest.raises(MeasurementError, match=reason) as caught:
        load("blas").prepare(gemm, config, _sets(gemm))
    assert caught.value.status == "unsupported"


def test_threads_are_set_and_recorded_as_blas_reports_them() -> None:
    gemm = Gemm(m=4, n=4, k=4)
    facts = load("blas").prepare(gemm, _config(threads=1), _sets(gemm)).facts
    assert facts == {"threads": 1, "kernel": "numpy", "library": library()}
    assert "None" not in library()
    assert load("blas").prepare(gemm, _config(kernel="blocked", threads=2), _sets(gemm)).facts["threads"] == 2


def test_a_cell_that_names_no_threads_is_not_measured_with_those_of_the_cell_before() -> None:
    gemm, own = Gemm(m=4, n=4, k=4), set_threads(0)
    for threads in (1, 2, 3):
        assert load("blas").prepare(gemm, _config(threads=threads), _sets(gemm)).facts["threads"] == threads
        assert load("blas").prepare(gemm, _config(), _sets(gemm)).facts["threads"] == own


def test_a_family_is_refused_where_it_has_no_business() -> None:
    refuse(Gemm(m=4, n=4, k=4, dtype="fp64"), _config(), "cpu")
    with pytest.raises(MeasurementError, match="family blas runs on cpu, this device is cuda"):
        refuse(Gemm(m=4, n=4, k=4), _config(), "cuda")
    with pytest.raises(MeasurementError, match="family tiled runs on cuda"):
        refuse(Gemm(m=4, n=4, k=4), KernelConfig(family="tiled"), "cpu")
    with pytest.raises(MeasurementError, match=r"family blas has no bf16 \(it has fp32, fp64\)"):
        refuse(Gemm(m=4, n=4, k=4, dtype="bf16"), _config(), "cpu")
