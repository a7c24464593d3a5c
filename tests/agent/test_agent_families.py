"""The contract of a kernel family, run over every family.

blas is real; the families of CUDA run over the fakes of CuPy and of their libraries.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from agent.kernels import Family, Prepared, cublaslt, custom, load, refuse
from agent.kernels.cutlass import Cutlass
from agent.kernels.cutlass.libraries import BuiltKernel
from agent.kernels.triton import Triton, read_triton
from agent.kernels.triton.cubins import Cubins
from agent.operands import Operands
from gemmcast.config import FAMILIES, KNOBS, KernelConfig
from gemmcast.cutlass.sets import kernels
from gemmcast.device import Device
from gemmcast.errors import MeasurementError
from gemmcast.gemm import Gemm
from gemmcast.sample import COLUMNS
from tests.agent import fake_cublaslt, fake_triton
from tests.agent.fake_cublaslt import operand_sets
from tests.agent.fake_cupy import FakeCublas, FakeCutlass, fake_cupy

GEMM = Gemm(m=33, n=20, k=48)


class FamilyContract:
    """What agent/kernels/__init__.py promises of a Family."""

    name: str
    config: KernelConfig
    """One that the family has."""
    impossible_gemm = GEMM
    impossible_config: KernelConfig
    """With `impossible_gemm`: what the family does not have."""
    scales = True
    """It computes any alpha and beta."""

    @pytest.fixture
    def family(self) -> Family:
        raise NotImplementedError

    def _launched(self, family: Family, gemm: Gemm, sets: list[Operands]) -> Prepared:
        prepared = family.prepare(gemm, self.config, sets)
        gc.collect()
        prepared.launch(1)
        return prepared

    def test_a_launch_multiplies_its_set_and_changes_nothing_else(self, family: Family) -> None:
        sets = operand_sets(GEMM, 3)
        before = [(one.a.copy(), one.b.copy(), one.c.copy()) for one in sets]
        sets[1].c.fill(np.nan)
        prepared = self._launched(family, GEMM, sets)
        # A second launch computes the same; it does not add.
        prepared.launch(1)
        a, b, _ = before[1]
        np.testing.assert_allclose(sets[1].c, a @ b, rtol=1e-4, atol=1e-4)
        for i, (a, b, c) in enumerate(before):
            assert np.array_equal(sets[i].a, a)
            assert np.array_equal(sets[i].b, b)
            assert i == 1 or np.array_equal(sets[i].c, c)

    def test_alpha_and_beta_scale_or_are_unsupported(self, family: Family) -> None:
        gemm = replace(GEMM, alpha=0.5, beta=2.0)
        sets = operand_sets(gemm)
        if not self.scales:
            with pytest.raises(MeasurementError) as caught:
                self._launched(family, gemm, sets)
            assert caught.value.status == "unsupported"
            return
        before = sets[1].c.copy()
        self._launched(family, gemm, sets)
        want = 0.5 * (sets[1].a @ sets[1].b) + 2.0 * before
        np.testing.assert_allclose(sets[1].c, want, rtol=1e-4, atol=1e-4)

    def test_facts_are_columns_of_a_sample(self, family: Family) -> None:
        facts = family.prepare(GEMM, self.config, operand_sets(GEMM)).facts
        assert set(facts) <= set(COLUMNS)
        assert facts["kernel"]
        for knob in set(facts) & set(KNOBS):
            assert type(facts[knob]) is int

    def test_a_recorded_row_prepares_the_same_kernel(self, family: Family) -> None:
        sets = operand_sets(GEMM)
        facts = family.prepare(GEMM, self.config, sets).facts
        recorded: dict[str, Any] = {knob: getattr(self.config, knob) for knob in KNOBS}
        for knob in set(facts) & set(KNOBS):
            recorded[knob] = facts[knob]
        again = KernelConfig(family=self.name, kernel=self._recorded_kernel(facts), **recorded)
        assert family.prepare(GEMM, again, sets).facts == facts

    def _recorded_kernel(self, facts: dict[str, Any]) -> str:
        return str(facts["kernel"])

    def test_what_it_does_not_have_is_unsupported_with_a_reason(self, family: Family) -> None:
        sets = operand_sets(self.impossible_gemm)
        with pytest.raises(MeasurementError) as caught:
            family.prepare(self.impossible_gemm, self.impossible_config, sets).launch(0)
        assert caught.value.status == "unsupported"
        assert caught.value.reason

    def test_it_is_refused_on_another_kind_of_device(self, devices: dict[str, Device]) -> None:
        kind = FAMILIES[self.name].device_kind
        refuse(GEMM, self.config, devices.pop(kind))
        (other,) = devices.values()
        with pytest.raises(MeasurementError):
            refuse(GEMM, self.config, other)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A fake CuPy; modules that import it are imported anew, and forgotten afterwards."""
    module = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    names = [f"agent.kernels.{name}" for name in ("cublas", "launch", "tiled")]
    for name in names:
        # What is here now is put back afterwards, also where it is nothing.
        monkeypatch.setitem(sys.modules, name, module)
        del sys.modules[name]
    for name in names:
        importlib.import_module(name)
    return module


class TestBlas(FamilyContract):
    name = "blas"
    config = KernelConfig(family="blas", kernel="blocked", tile_m=16, tile_n=7, tile_k=20)
    impossible_config = KernelConfig(family="blas", kernel="strassen")
    scales = False

    @pytest.fixture
    def family(self) -> Family:
        return load("blas")


class TestTiled(FamilyContract):
    name = "tiled"
    config = KernelConfig(family="tiled", tile_m=16, tile_n=16, tile_k=16)
    impossible_config = KernelConfig(family="tiled", tile_m=3, tile_n=3, tile_k=3)

    @pytest.fixture
    def family(self, cupy: ModuleType) -> Family:
        return load("tiled")


class TestCublas(FamilyContract):
    name = "cublas"
    config = KernelConfig(family="cublas")
    impossible_gemm = replace(GEMM, layout="nt")
    impossible_config = config

    @pytest.fixture
    def family(self, cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Family:
        heuristic, _ = fake_cublaslt.family()
        monkeypatch.setattr(cublaslt, "FAMILY", heuristic)
        family = load("cublas")
        vars(family)["_library"] = FakeCublas()
        return family

    def test_the_knobs_are_those_of_the_heuristics_first_choice(self, family: Family) -> None:
        facts = family.prepare(GEMM, self.config, operand_sets(GEMM)).facts
        knobs = fake_cublaslt.DECODER.knobs(fake_cublaslt.FIRST)
        assert {knob: facts[knob] for knob in knobs} == knobs


class TestCublasLt(FamilyContract):
    name = "cublaslt"
    config = KernelConfig(family="cublaslt", kernel="enumerated-3")
    impossible_config = KernelConfig(family="cublaslt", kernel="fastest")

    @pytest.fixture
    def family(self) -> Family:
        family, _ = fake_cublaslt.family()
        return family


class TestCutlass(FamilyContract):
    name = "cutlass"
    config = KernelConfig(family="cutlass", tile_m=128, tile_n=64, split_k=2)
    impossible_config = KernelConfig(family="cutlass", tile_m=96)

    @pytest.fixture
    def family(self, cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Family:
        built = []
        for kernel in kernels("paper", "sm_90"):
            knobs = {knob: getattr(kernel.config, knob) for knob in KNOBS}
            del knobs["split_k"], knobs["block_threads"], knobs["cpu_threads"], knobs["algo_id"]
            library: Any = FakeCutlass()
            built.append(
                BuiltKernel(
                    library, 0, kernel.name, kernel.dtype, kernel.layout, knobs, 1, "cutlass 0"
                )
            )
        family = Cutlass(Path("nowhere"))
        monkeypatch.setattr(family, "kernels", lambda arch: built)
        return family


class TestCustom(FamilyContract):
    name = "custom"
    config = KernelConfig(family="custom", kernel="examples/kernels/tiled_vec4.toml", tile_m=64)
    impossible_config = KernelConfig(family="custom", kernel="examples/kernels/nowhere.toml")

    @pytest.fixture
    def family(self, cupy: ModuleType) -> Iterator[Family]:
        # Compiled kernels are kept by their content: a fake one must not stay.
        custom._compiled.cache_clear()
        yield load("custom")
        custom._compiled.cache_clear()


class TestTriton(FamilyContract):
    name = "triton"
    config = KernelConfig(family="triton", kernel=fake_triton.KERNEL, tile_m=16, swizzle=8)
    impossible_config = KernelConfig(family="triton", kernel="matmul")
    scales = False

    @pytest.fixture
    def family(self, cupy: ModuleType, tmp_path: Path) -> Family:
        fake_triton.write_project(tmp_path)
        cubins = Cubins(tmp_path / "cubins")
        fake_triton.compile_into(cubins, read_triton(fake_triton.KERNEL, tmp_path), GEMM)
        return Triton(cubins.folder, tmp_path)


def test_every_family_is_held_to_the_contract() -> None:
    contracts = FamilyContract.__subclasses__()
    assert {contract.name for contract in contracts} == set(FAMILIES)
