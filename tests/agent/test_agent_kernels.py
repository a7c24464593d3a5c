"""The seam of families, and NumPy's BLAS behind it: layouts, blocks, batches, thread counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from agent.kernels import load, refuse
from agent.kernels.blas import library, set_threads
from agent.operands import (
    ALIGNMENT,
    Array,
    Carved,
    Operands,
    addresses,
    input_elements,
    output_elements,
)
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import LAYOUTS, Gemm

TYPES = {"fp32": np.float32, "fp64": np.float64}
SMALL = Gemm(m=4, n=4, k=4)


@pytest.fixture(autouse=True)
def _default_threads() -> Iterator[None]:
    yield
    set_threads(0)


def _sets(gemm: Gemm, count: int = 2) -> Carved:
    rng = np.random.default_rng(1)
    dtype = TYPES[gemm.dtype]
    inputs = rng.standard_normal(count * input_elements(gemm)).astype(dtype)
    outputs = rng.standard_normal(count * output_elements(gemm)).astype(dtype)
    return Carved(gemm, inputs, outputs, count)


def _want(gemm: Gemm, operands: Operands) -> Array:
    a = operands.a.swapaxes(1, 2) if gemm.layout[0] == "t" else operands.a
    b = operands.b.swapaxes(1, 2) if gemm.layout[1] == "t" else operands.b
    return np.einsum("bmk,bkn->bmn", a.astype(np.float64), b.astype(np.float64))


def _config(**knobs: Any) -> KernelConfig:
    return KernelConfig(family="blas", **knobs)


def _facts(**knobs: Any) -> dict[str, Any]:
    return load("blas").prepare(SMALL, _config(**knobs), _sets(SMALL)).facts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_are_carved_as_they_are_stored(layout: str) -> None:
    gemm = Gemm(m=3, n=5, k=7, batch=2, layout=layout)
    first, second = _sets(gemm)
    assert first.a.shape == ((2, 7, 3) if layout[0] == "t" else (2, 3, 7))
    assert first.b.shape == ((2, 5, 7) if layout[1] == "t" else (2, 7, 5))
    assert first.c.shape == (2, 3, 5)
    arrays = [first.a, first.b, first.c, second.a, second.b, second.c]
    for i, array in enumerate(arrays):
        assert array.flags.c_contiguous
        assert not any(np.shares_memory(array, other) for other in arrays[i + 1 :])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("m", "n", "k", "batch"),
    [(1, 1, 1, 1), (3, 5, 7, 2), (16, 16, 16, 1), (1, 257, 255, 1), (33, 8, 100, 5)],
)
def test_every_operand_starts_where_a_matrix_that_is_allocated_alone_would(
    m: int, n: int, k: int, batch: int, layout: str
) -> None:
    gemm, sets = Gemm(m=m, n=n, k=k, batch=batch, layout=layout), 3
    inputs = np.arange(sets * input_elements(gemm))
    outputs = np.arange(sets * output_elements(gemm))
    carved = Carved(gemm, inputs, outputs, sets)
    for one in carved:
        assert (one.a.size, one.b.size) == (batch * m * k, batch * k * n)
        assert one.c.size == batch * m * n
        for array in (one.a, one.b, one.c):
            assert int(array.flat[0]) % ALIGNMENT == 0
    # No arena is larger than necessary: the last operand and its padding end it.
    last = carved[-1]
    assert -(-(int(last.b.flat[-1]) + 1) // ALIGNMENT) * ALIGNMENT == len(inputs)
    assert -(-(int(last.c.flat[-1]) + 1) // ALIGNMENT) * ALIGNMENT == len(outputs)


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
        # Ragged in m, wider than n, one by one in k.
        _config(kernel="blocked", tile_m=7, tile_n=64, tile_k=1),
        # Exactly one block.
        _config(kernel="blocked", tile_m=33, tile_n=20, tile_k=50),
        _config(kernel="blocked"),
    ],
    ids=str,
)
def test_every_layout_is_multiplied_right(config: KernelConfig, layout: str, dtype: str) -> None:
    gemm = Gemm(m=33, n=20, k=50, layout=layout, dtype=dtype)
    sets = _sets(gemm)
    before = [(one.a.copy(), one.b.copy()) for one in sets]
    prepared = load("blas").prepare(gemm, config, sets)
    for i, operands in enumerate(sets):
        operands.c.fill(np.nan)
        prepared.launch(i)
        # A second launch computes the same; it does not add.
        prepared.launch(i)
        np.testing.assert_allclose(operands.c, _want(gemm, operands), rtol=1e-4, atol=1e-4)
        assert np.array_equal(operands.a, before[i][0])
        assert np.array_equal(operands.b, before[i][1])


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
        (
            Gemm(m=4, n=4, k=4, batch=2),
            _config(kernel="blocked", tile_m=2),
            "the blocked kernel has no batch",
        ),
        (Gemm(m=4, n=4, k=4, alpha=2.0), _config(), "alpha=2.0"),
        (Gemm(m=4, n=4, k=4, beta=1.0), _config(), "beta=1.0"),
        (
            SMALL,
            _config(kernel="strassen"),
            "blas has kernels numpy and blocked, not 'strassen'",
        ),
        (SMALL, _config(cpu_threads=1_000_000), "threads instead of 1000000"),
    ],
)
def test_what_it_cannot_do_is_unsupported(gemm: Gemm, config: KernelConfig, reason: str) -> None:
    with pytest.raises(MeasurementError, match=reason) as caught:
        load("blas").prepare(gemm, config, _sets(gemm))
    assert caught.value.status == "unsupported"


def test_threads_are_set_and_recorded_as_blas_reports_them() -> None:
    assert _facts(cpu_threads=1) == {"cpu_threads": 1, "kernel": "numpy", "library": library()}
    assert "None" not in library()
    assert _facts(kernel="blocked", cpu_threads=2)["cpu_threads"] == 2


def test_a_cell_without_threads_is_not_measured_with_those_of_the_cell_before() -> None:
    default = set_threads(0)
    for threads in (1, 2, 3):
        assert _facts(cpu_threads=threads)["cpu_threads"] == threads
        assert _facts()["cpu_threads"] == default


def test_a_family_is_refused_on_another_kind_of_device(devices: dict[str, Device]) -> None:
    cpu, gpu = devices["cpu"], devices["cuda"]
    refuse(Gemm(m=4, n=4, k=4, dtype="fp64"), _config(), cpu)
    with pytest.raises(MeasurementError, match="blas: this family runs on cpu, Paper GPU"):
        refuse(SMALL, _config(), gpu)
    with pytest.raises(MeasurementError, match="tiled: this family runs on cuda"):
        refuse(SMALL, KernelConfig(family="tiled"), cpu)
    with pytest.raises(MeasurementError, match=r"family blas has no bf16 \(it has fp32, fp64\)"):
        refuse(Gemm(m=4, n=4, k=4, dtype="bf16"), _config(), cpu)


def test_what_no_gpu_can_run_is_refused_before_anything_is_allocated(
    devices: dict[str, Device],
) -> None:
    huge = KernelConfig(family="cublaslt", tile_m=4096, tile_n=4096, tile_k=64, stages=1000)
    with pytest.raises(MeasurementError, match="a tile of 4096x4096 is over") as caught:
        refuse(SMALL, huge, devices["cuda"])
    assert caught.value.status == "unsupported"


def test_a_family_that_this_version_has_no_kernel_for_is_unsupported() -> None:
    reason = "family wmma can be recorded and predicted, but this version has no kernel for it"
    with pytest.raises(MeasurementError, match=reason) as caught:
        load("wmma")
    assert caught.value.status == "unsupported"


def test_a_library_that_a_family_misses_is_not_mistaken_for_a_missing_family(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.delitem(sys.modules, "agent.kernels.blas")
    with pytest.raises(ModuleNotFoundError, match="threadpoolctl"):
        load("blas")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("c_dtype", [np.uint8, np.float64])
def test_the_addresses_of_carved_sets_are_those_of_their_windows(layout: str, c_dtype: Any) -> None:
    gemm = Gemm(m=33, n=8, k=100, batch=3, layout=layout)
    inputs = np.zeros(4 * input_elements(gemm), np.uint16)
    outputs = np.zeros(4 * output_elements(gemm), c_dtype)
    sets = Carved(gemm, inputs, outputs, 4)
    expected = []
    for one in sets:
        expected.append([one.a.ctypes.data, one.b.ctypes.data, one.c.ctypes.data])
    assert addresses(sets).tolist() == expected
    assert addresses(list(sets)).tolist() == expected
    assert addresses(sets[1:3]).tolist() == expected[1:3]
    assert sets[-1] is sets[3]
    with pytest.raises(IndexError):
        sets[4]
