"""Launching Triton's cubins over a CuPy on paper: pointers, scales, limits, what is loaded once."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from agent.kernels import triton
from agent.kernels.triton import Triton, read_triton
from agent.kernels.triton.cubins import Cubins
from agent.kernels.triton.fit import fit
from agent.kernels.triton.routing import Routing
from agent.kernels.triton.scales import ScaleSets
from agent.operands import Carved, input_elements, output_elements
from gemmcast.config import KernelConfig
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from tests.agent.fake_cupy import fake_cupy
from tests.agent.fake_triton import compile_into

SCALED = Gemm(m=70, n=208, k=400, dtype="fp8_e4m3", layout="nt")
CONFIG = KernelConfig(family="triton", kernel="scaled_block")


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A fake CuPy whose arrays are NumPy's."""
    module: Any = fake_cupy()
    for name in ("arange", "full", "where", "int32", "uint32", "float32"):
        setattr(module, name, getattr(np, name))
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "agent.kernels.launch", module)
    del sys.modules["agent.kernels.launch"]
    importlib.import_module("agent.kernels.launch")
    return module


@pytest.fixture
def family(cupy: ModuleType, tmp_path: Path) -> Triton:
    compile_into(Cubins(tmp_path), read_triton("scaled_block"), SCALED)
    compile_into(Cubins(tmp_path), read_triton("matmul"), SCALED)
    return Triton(tmp_path)


def sets_of(gemm: Gemm, count: int) -> Carved:
    inputs = np.zeros(count * input_elements(gemm), np.uint8)
    outputs = np.zeros(count * output_elements(gemm), np.uint16)
    return Carved(gemm, inputs, outputs, count)


def test_every_set_has_pointers_to_its_own_scales() -> None:
    sets, scales = sets_of(SCALED, 3), ScaleSets(np, SCALED, 3)
    fitted = fit(read_triton("scaled_block"), SCALED, CONFIG, "sm_90")
    pointers = triton._pointers(fitted, sets, scales)
    for i, row in enumerate(pointers.tolist()):
        assert row[:3] == sets.addresses[i].tolist()
        assert row[3:] == [scales.a[i].ctypes.data, scales.b[i].ctypes.data]


def test_the_row_and_the_check_get_what_the_kernel_was_given(family: Triton) -> None:
    prepared = family.prepare(SCALED, CONFIG, sets_of(SCALED, 2))
    assert prepared.scales is not None
    assert np.array_equal(prepared.scales.a, ScaleSets(np, SCALED, 2).a[0])
    facts = prepared.facts
    assert facts["workspace_bytes"] == 4 * (70 * 4 + 2 * 4)
    assert facts["library"] == f"triton 3.6.0, source {read_triton('scaled_block').digest}"
    assert (facts["kernel"], facts["swizzle"], facts["block_threads"]) == ("scaled_block", 32, 128)
    # 2,048 of the fake kernel, and what Triton asks for.
    assert facts["smem_bytes"] == 2048 + 4096


def test_cells_of_one_problem_share_their_scales(family: Triton) -> None:
    sets = sets_of(SCALED, 2)
    first = family.prepare(SCALED, CONFIG, sets)
    second = family.prepare(SCALED, replace(CONFIG, tile_m=16), sets)
    assert first.scales is second.scales
    other = replace(SCALED, m=16)
    assert family.prepare(other, CONFIG, sets_of(other, 2)).scales is not first.scales


def test_a_plain_product_has_no_scales(family: Triton) -> None:
    prepared = family.prepare(SCALED, replace(CONFIG, kernel="matmul"), sets_of(SCALED, 1))
    assert prepared.scales is None
    assert prepared.facts["workspace_bytes"] == 0


def test_experts_get_their_rows(family: Triton, tmp_path: Path) -> None:
    gemm = replace(SCALED, batch=4)
    compile_into(Cubins(tmp_path), read_triton("grouped"), gemm)
    config = replace(CONFIG, kernel="grouped", tile_m=16)
    sets, routing = sets_of(gemm, 2), Routing(np, gemm, 16)
    fitted = fit(read_triton("grouped"), gemm, config, "sm_90")
    rows = triton._pointers(fitted, sets, None, routing).tolist()
    addresses = [routing.rows.ctypes.data, routing.experts.ctypes.data]
    assert [row[3:] for row in rows] == [addresses, addresses]
    facts = family.prepare(gemm, config, sets).facts
    assert facts["workspace_bytes"] == routing.bytes == 4 * (4 * 5 * 16 + 4 * 5 + 1)


def test_a_cubin_is_loaded_once(family: Triton, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    module = cupy.RawModule

    def load(path: str) -> Any:
        loaded.append(path)
        return module(path)

    monkeypatch.setattr(cupy, "RawModule", load)
    sets = sets_of(SCALED, 1)
    for group_m in (1, 32, 1):
        family.prepare(SCALED, replace(CONFIG, swizzle=group_m), sets)
    assert len(loaded) == 1
    family.prepare(SCALED, replace(CONFIG, tile_m=16), sets)
    assert len(loaded) == 2


def test_what_does_not_fit_on_this_gpu_is_unsupported(family: Triton, cupy: Any) -> None:
    cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"] = 5000
    with pytest.raises(MeasurementError) as caught:
        family.prepare(SCALED, CONFIG, sets_of(SCALED, 1))
    assert caught.value.status == "unsupported"
    reason = "needs 4096 bytes of dynamic shared memory, this GPU has 2952 left for it"
    assert reason in str(caught.value.reason)


@pytest.mark.parametrize(
    ("kernel", "reason"), [("nowhere.toml", "no such file"), ("ragged", "no such Triton kernel")]
)
def test_an_unknown_kernel_is_unsupported(family: Triton, kernel: str, reason: str) -> None:
    with pytest.raises(MeasurementError, match=reason) as caught:
        family.prepare(SCALED, replace(CONFIG, kernel=kernel), sets_of(SCALED, 1))
    assert caught.value.status == "unsupported"
