"""What choices lose, in groups that can be computed by hand, and the benchmark as a command."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from costmodel.dataset import TrainingSet, training_set
from costmodel.evaluate.nvidia_heuristics import NvidiaHeuristics
from costmodel.evaluate.regret import (
    Ranked,
    at_random,
    groups_of,
    is_default,
    layers_with_groups,
    losses,
    pooled,
    regrets,
)
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.device import Device
from gemmcast.gain import Costs
from gemmcast.gemm import Gemm
from gemmcast.query import Rows
from gemmcast.rows import Row
from gemmcast.triton_sets import configs

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "tuning_regret.py"
LAYERS = tuple((64 * i, 128) for i in range(1, 7))
Measure = Callable[..., Row]
MakeRows = Callable[..., list[Row]]


class OneAnswer:
    """Every configuration is predicted alike, so that the ranking is the order of the rows."""

    outputs_ = ("runtime_us", "tflops")

    def predict(self, queries: Rows) -> dict[str, Any]:
        """1 us, and an interval from half to double."""
        ones = np.ones((len(queries), 2), dtype=np.float32)
        is_unsure = np.zeros(len(queries), dtype=bool)
        intervals = {"low": ones / 2, "high": 2 * ones, "extrapolating": is_unsure}
        return {"runtime_us": ones[:, 0], **intervals}

    def prefilter(self, queries: Rows) -> Rows:
        """[n_rows] 0 for all."""
        return np.zeros(len(queries), dtype=np.float32)


def ranked(
    value: Sequence[float], width: float = 0.0, estimates: Sequence[float] | None = None
) -> Ranked:
    """With intervals that reach by a factor exp(width) up and down."""
    values = np.array(value, dtype=np.float64)
    return Ranked(
        costs=Costs(values, np.full(len(values), width)),
        estimates=values if estimates is None else np.array(estimates),
        is_unsure=np.zeros(len(values), dtype=bool),
    )


@pytest.fixture
def rows_of(measure: Measure, gpu: Device) -> MakeRows:
    """A row of each of the first configurations of a Triton kernel; the first is the default."""

    def make(
        gemm: Gemm, kernel: str, runtimes_us: Sequence[float], board: str = "one"
    ) -> list[Row]:
        device = replace(gpu, uuid=board, peak_tflops={"bf16": 600.0, "fp8_e4m3": 1200.0})
        listed = configs("short", "sm_90", kernel, gemm.dtype, gemm.layout)
        rows: list[Row] = []
        for config, runtime_us in zip(listed, runtimes_us, strict=False):
            cell = Cell(gemm=gemm, config=config, device_key=device.name)
            row = measure(cell, device)
            # As measured rows say of the kernels that are not split
            row |= {"runtime_us": runtime_us, "split_k": 1}
            rows.append(row)
        return rows

    return make


def test_each_choice_loses_what_it_took_over_the_best() -> None:
    measured = np.array([2.0, *range(20, 3, -1), 1.0])
    # The best one is predicted tenth, behind nine of 20 to 12
    predicted = [30.0, *range(1, 10), *range(11, 19), 10.0]
    lost = regrets(measured, ranked(predicted), 0)
    assert lost["model_top1"] == pytest.approx(19.0)
    assert lost["model_top8"] == pytest.approx(12.0)
    assert lost["default"] == pytest.approx(1.0)
    assert lost["cautious"] == pytest.approx(19.0)


def test_eight_of_fewer_than_sixteen_and_an_unmeasured_default_say_nothing() -> None:
    measured = np.arange(1.0, 16.0)
    assert set(regrets(measured, ranked(measured), None)) == {"model_top1"}
    measured = np.arange(1.0, 17.0)
    assert set(regrets(measured, ranked(measured), None)) == {"model_top1", "model_top8", "random8"}


def test_random_choices_lose_their_mean_over_all_draws() -> None:
    measured = np.array([3.0, 1.0, 7.0, 4.0, 1.5])
    draws = list(itertools.combinations(measured, 3))
    expected = np.mean([min(draw) for draw in draws]) - 1
    assert at_random(measured, 3) == pytest.approx(expected)


def test_the_ranking_is_of_what_the_prefilter_keeps() -> None:
    value = list(range(20, 0, -1))
    in_order = ranked(value, estimates=range(20))
    assert in_order.first(1).tolist() == [7]
    assert in_order.first(2).tolist() == [15, 14]


@pytest.mark.parametrize(("width", "chosen"), [(0.0, 1), (0.8, 1), (0.85, 0)])
def test_a_cautious_choice_leaves_the_default_for_a_sure_gain(width: float, chosen: int) -> None:
    # ln 2 = 0.69 is beyond 0.6 sqrt(2) x 0.8 = 0.68 and within 0.6 sqrt(2) x 0.85 = 0.72
    assert ranked([2.0, 1.0, 1.5], width).cautious(0) == chosen


@pytest.mark.parametrize(("unsure", "chosen"), [([1], 2), ([1, 2], 0), ([0], 0)])
def test_an_unsure_prediction_is_no_sure_gain(unsure: list[int], chosen: int) -> None:
    of_group = ranked([2.0, 1.0, 1.5])
    of_group.is_unsure[unsure] = True
    assert of_group.cautious(0) == chosen


def test_a_group_is_one_problem_of_one_kernel_on_one_board(rows_of: MakeRows) -> None:
    gemm = Gemm(m=64, n=128, k=256, dtype="fp8_e4m3", layout="nt")
    runtimes_us = np.arange(1.0, 10.0)
    rows = rows_of(gemm, "scaled_block", runtimes_us) + rows_of(gemm, "matmul", runtimes_us)
    rows += rows_of(gemm, "matmul", 2 * runtimes_us, "another")
    rows += rows_of(replace(gemm, m=65), "matmul", runtimes_us[:7])
    data = training_set(to_table(rows))
    groups = list(groups_of(data, "time"))
    assert [group.measured.tolist() for group in groups] == [
        runtimes_us.tolist(),
        runtimes_us.tolist(),
        (2 * runtimes_us).tolist(),
    ]
    assert is_default(data).sum() == 4
    assert set(layers_with_groups(data)) == {"128x256"}
    small = training_set(to_table(rows_of(gemm, "matmul", runtimes_us[:7])))
    assert set(layers_with_groups(small)) == {None}


def test_energy_delay_is_energy_times_sustained_runtime(rows_of: MakeRows) -> None:
    gemm = Gemm(m=64, n=128, k=256, dtype="bf16", layout="nt")
    rows = rows_of(gemm, "matmul", np.ones(8))
    for i, row in enumerate(rows, start=1):
        row.update(energy_mj=float(i), sustained_runtime_us=float(10 - i))
    data = training_set(to_table(rows))
    (energy,), (edp,) = groups_of(data, "energy"), groups_of(data, "edp")
    assert energy.measured.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert edp.measured.tolist() == [9, 16, 21, 24, 25, 24, 21, 16]


def test_losses_are_pooled_by_family_and_objective(rows_of: MakeRows) -> None:
    gemm = Gemm(m=64, n=128, k=256, dtype="bf16", layout="nt")
    rows = rows_of(gemm, "matmul", [3.0, *np.arange(2.0, 17.0)])
    rows += rows_of(replace(gemm, n=64), "matmul", [2.0, *np.arange(1.0, 8.0)])
    data = training_set(to_table(rows))
    last = {"last": lambda of_group: np.array([len(of_group) - 1])}
    table = pooled(losses(data, OneAnswer(), last))
    of_default = table["triton"]["time"]["default"]
    assert of_default == {"mean_regret": 0.75, "worst_regret": 1.0, "groups": 2}
    assert table["triton"]["time"]["last"]["worst_regret"] == pytest.approx(7.0)
    assert table["triton"]["time"]["random8"]["groups"] == 1
    # Without power there is nothing to say of energy
    assert set(table["triton"]) == {"time"}


# nvMatmulHeuristics


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What a stand-in for the package lists of every problem."""
    kernels: list[SimpleNamespace] = []

    class Lister:
        def __init__(self, **_options: object) -> None: ...

        def makeNvMatmulHeuristicsProblem(self, *sizes: object) -> object:
            return sizes

        def get(self, _problem: object, _count: int, precision: str) -> list[dict[str, object]]:
            assert precision == "TST"
            return [{"kernel": kernel} for kernel in kernels]

    package = ModuleType("nvMatmulHeuristics")
    named = {
        "NvMatmulHeuristicsInterfaceEx": Lister,
        "NvMatmulHeuristicsTarget": SimpleNamespace(CUTLASS3=4),
        "NvMatmulHeuristicsNvidiaGpu": {"H100_SXM": 9000},
        "NvMatmulHeuristicsMatmulLayout": {"NT_ROW_MAJOR": 1},
    }
    vars(package).update(named)
    monkeypatch.setitem(sys.modules, "nvMatmulHeuristics", package)
    return kernels


def test_the_first_that_a_group_has_are_taken_once(listed: list[SimpleNamespace]) -> None:
    gemm = {"m": 1, "n": 2, "k": 3, "batch": 1, "dtype": "bf16", "layout": "nt"}
    knobs = {"tile_n": 128, "tile_k": 64, "cluster_m": 1, "cluster_n": 2, "split_k": 1}
    device = {"family": "cutlass", "device": "NVIDIA H100 80GB HBM3"}
    rows = [{**gemm, **device, **knobs, "tile_m": tile_m} for tile_m in (64, 128, 256)]
    for tile_m in (192, 256, 256, 64, 128):
        sides = {"cta_tile_m": tile_m, "cta_tile_n": 128, "cta_tile_k": 64}
        listed.append(SimpleNamespace(**sides, cluster_m=1, cluster_n=2, split_k=1))
    assert NvidiaHeuristics(2)(rows).tolist() == [2, 0]
    others = [{**row, "device": "NVIDIA A100"} for row in rows]
    assert not len(NvidiaHeuristics(2)(others))


# the command


@cache
def program() -> ModuleType:
    spec = spec_from_file_location("tuning_regret", PROGRAM)
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = program().main(list(map(str, arguments)))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[TrainingSet]:
    """What each model of the command is trained_on on."""
    seen: list[TrainingSet] = []

    def fit(training: TrainingSet) -> OneAnswer:
        seen.append(training)
        return OneAnswer()

    monkeypatch.setattr(program(), "fit", fit)
    monkeypatch.setattr(program(), "other_choosers", dict)
    return seen


@pytest.fixture
def table(tmp_path: Path, rows_of: MakeRows) -> Path:
    """Six layers to tune, and one with too few configurations."""
    rows: list[Row] = []
    for n, k in LAYERS:
        gemm = Gemm(m=64, n=n, k=k, dtype="bf16", layout="nt")
        rows += rows_of(gemm, "matmul", [2.0, *np.arange(1.0, 8.0)])
    alone = Gemm(m=64, n=2048, k=128, dtype="bf16", layout="nt")
    rows += rows_of(alone, "matmul", [1.0, 2.0])
    path = tmp_path / "triton.parquet"
    pq.write_table(to_table(rows), path)
    return path


def test_no_layer_is_ranked_by_a_model_that_saw_it(
    table: Path, trained_on: list[TrainingSet]
) -> None:
    code, out, _ = run("--table", table, "--json")
    assert code == 0
    printed = json.loads(out.splitlines()[-1])
    assert printed["triton"]["time"]["default"]["groups"] == len(LAYERS)
    assert len(trained_on) == 5
    trained = [set(training.keys("n", "k")) for training in trained_on]
    for layer in LAYERS:
        assert sum(layer not in layers for layers in trained) == 1
    assert all((2048, 128) in layers for layers in trained)


def test_a_table_that_is_held_out_is_tested_alone(
    table: Path, trained_on: list[TrainingSet]
) -> None:
    code, out, err = run("--table", table, "--holdout", table)
    assert code == 0
    assert "training had 100.0 % of the layers" in err
    assert len(trained_on) == 1
    assert "model_top1" in out
    assert "1.0000" in out


def test_a_table_without_groups_is_refused(table: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.parquet"
    pq.write_table(pq.read_table(table).slice(0, 7), one)
    for arguments in (("--table", one), ("--table", table, "--holdout", one)):
        code, _, err = run(*arguments)
        assert code == 2
        assert "one.parquet" in err
        assert "8 configurations" in err
