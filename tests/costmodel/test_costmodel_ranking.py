"""Rank agreement and regret, on orders that can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from coordinator import terminal
from costmodel.dataset import training_set
from costmodel.evaluate.ranking import MIN_CONFIGS, agreement, ranking
from gemmcast.arrow import to_table
from gemmcast.card import ModelCard
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.rows import Row
from gemmcast.score_table import ranking_rows

Measure = Callable[..., Row]
MakeTable = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def table(measure: Measure, gpu: Device) -> MakeTable:
    """One problem of size m, a row a tile, with these runtimes and energies."""

    def make(
        runtimes_us: Sequence[float],
        energies_mj: Sequence[float | None] | None = None,
        m: int = 64,
        tiles: Sequence[int] = range(1, 99),
    ) -> pa.Table:
        rows: list[Row] = []
        for i, runtime_us in enumerate(runtimes_us):
            cell = Cell(
                gemm=Gemm(m=m, n=64, k=64),
                config=KernelConfig(family="tiled", tile_m=tiles[i]),
                device_key=gpu.name,
            )
            row = measure(cell, gpu)
            row["runtime_us"] = runtime_us
            row["energy_mj"] = energies_mj[i] if energies_mj else None
            rows.append(row)
        return to_table(rows)

    return make


def test_the_same_order_loses_nothing() -> None:
    measured = np.arange(1.0, 11.0)
    values = agreement(measured, measured**3)
    assert values == {"tau": pytest.approx(1.0), "regret": 0.0, "regret_8": 0.0}


def test_the_reverse_order_chooses_the_worst() -> None:
    measured = np.arange(1.0, 11.0)
    values = agreement(measured, -measured)
    assert values["tau"] == pytest.approx(-1.0)

    # 10 is chosen, 1 is the best
    assert values["regret"] == pytest.approx(900.0)

    # the best of 10..3 is 3
    assert values["regret_8"] == pytest.approx(200.0)


def test_one_exchanged_pair() -> None:
    """Two neighbours of nine are exchanged: one of 36 pairs, and the second best is chosen."""
    measured = np.array([10.0, 11.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0])
    predicted = measured.copy()
    predicted[[0, 1]] = predicted[[1, 0]]
    assert agreement(measured, predicted) == {
        "tau": pytest.approx(34 / 36),
        "regret": pytest.approx(10.0),
        "regret_8": 0.0,
    }


def test_eight_of_eight_are_no_choice() -> None:
    values = agreement(np.arange(1.0, 9.0), np.ones(8))
    assert set(values) == {"tau", "regret"}


def test_equal_predictions_are_a_fixed_guess() -> None:
    measured = np.arange(1.0, 33.0)
    equal = np.ones(32)
    values = agreement(measured, equal)
    assert values == agreement(measured, equal)
    assert values["tau"] == 0.0
    assert 0 < values["regret"] < 3100
    assert values["regret_8"] < values["regret"]

    # drawn, not in the order of the rows
    assert agreement(measured[::-1], equal) != values


def test_a_row_without_energy_takes_no_ranking_away(table: MakeTable) -> None:
    """A row of a table from elsewhere has no power limit, and so no predicted energy."""
    measured = list(np.arange(1.0, MIN_CONFIGS + 2))
    data = training_set(table([*measured, 1.0], [*measured, None]))
    predicted = data.measured["energy_mj"].copy()
    assert np.isnan(predicted).sum() == 1
    assert ranking(data, {"energy_mj": {"model": predicted}})["energy_mj"]["model"]["groups"] == 1
    predicted[0] = np.nan
    assert ranking(data, {"energy_mj": {"model": predicted}}) == {}


def test_groups_are_problems_with_enough_configurations(table: MakeTable) -> None:
    enough = table(np.arange(1.0, MIN_CONFIGS + 2))
    few = table(np.arange(1.0, MIN_CONFIGS), m=128)
    data = training_set(pa.concat_tables([enough, few]))
    right = data.measured["runtime_us"]
    predicted = {
        "runtime_us": {"model": right, "lookup": -right, "low": right},
        "tflops": {"model": right},
    }
    values = ranking(data, predicted)
    assert set(values) == {"runtime_us"}
    assert set(values["runtime_us"]) == {"model", "lookup"}
    model, lookup = values["runtime_us"]["model"], values["runtime_us"]["lookup"]
    assert model["groups"] == lookup["groups"] == 1
    assert model["tau_mean"] == pytest.approx(1.0)
    assert model["regret_median"] == 0.0
    assert lookup["tau_median"] == pytest.approx(-1.0)
    names = [row[:2] for row in ranking_rows(values)]
    assert names == [["runtime_us", "model"], ["runtime_us", "lookup"]]


def test_without_a_group_there_is_no_ranking(table: MakeTable) -> None:
    data = training_set(table(np.arange(1.0, MIN_CONFIGS), m=128))
    predicted = {"runtime_us": {"model": data.measured["runtime_us"]}}
    assert ranking(data, predicted) == {}


def test_what_train_prints_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "groups": 3,
        "tau_mean": 0.8711,
        "tau_median": 0.9,
        "regret_mean": 1.14,
        "regret_median": 0.0,
    }
    repeatability = {
        "power_w": {"median": 0.456, "p90": 1.0, "max": 2.0, "cells": 4},
        "runtime_uncertainty": {"median": 0.1, "p90": 0.1, "max": 0.1, "rows": 9},
    }
    card = ModelCard(
        created_at="",
        program_version="",
        contract=2,
        targets=(),
        rows=9,
        rows_by_device={},
        store_version=1,
        split="",
        holdout=0.2,
        train_rows=7,
        test_rows=2,
        train_shapes=5,
        test_shapes=1,
        ranking={"runtime_us": {"model": values}},
        repeatability=repeatability,
    )
    monkeypatch.setattr(terminal, "out", Console(width=80))
    terminal.show_card(card, "model 1")
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith(" runtime_us")]
    assert line.split() == ["runtime_us", "model", "0.871", "0.900", "1.1", "0.0", "-", "-", "3"]
    assert lines[-1] == "repeated measurements of a cell differ by (median): power_w 0.46 %"


def test_energy_is_ranked_among_the_rows_that_have_it(table: MakeTable) -> None:
    energies_mj = [*np.arange(1.0, MIN_CONFIGS + 1), None, None]
    data = training_set(table(np.arange(1.0, MIN_CONFIGS + 3), energies_mj))
    predicted = {"energy_mj": {"model": np.arange(10.0)}}
    assert ranking(data, predicted)["energy_mj"]["model"]["groups"] == 1

    # less power is not better by itself
    with_power = {**predicted, "power_w": {"model": np.arange(10.0)}}
    assert ranking(data, with_power).keys() == {"energy_mj"}


def test_too_few_rows_with_energy_are_no_group(table: MakeTable) -> None:
    data = training_set(table(np.arange(1.0, 11.0), [1.0] * 7 + [None] * 3))
    assert ranking(data, {"energy_mj": {"model": np.arange(10.0)}}) == {}


def test_repeats_of_a_configuration_are_one_with_their_mean(table: MakeTable) -> None:
    tiles = [1, 1, 2, 3, 4, 5, 6, 7, 8]
    runtimes_us = [1.0, 3.0, 1.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    predicted = np.array([1.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    data = training_set(table(runtimes_us, tiles=tiles))
    values = ranking(data, {"runtime_us": {"model": predicted}})
    regret = values["runtime_us"]["model"]["regret_mean"]
    assert regret == pytest.approx(100 * (2.0 / 1.5 - 1))

    # eight rows of seven configurations
    fewer = training_set(table(runtimes_us[:8], tiles=tiles[:8]))
    assert ranking(fewer, {"runtime_us": {"model": predicted[:8]}}) == {}
