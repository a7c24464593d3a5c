"""Rank agreement and regret, on orders that can be reckoned by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from coordinator import terminal
from costmodel.dataset import dataset
from costmodel.evaluate.ranking import MIN_CONFIGS, agreement, ranking
from gemmcast.arrow import to_table
from gemmcast.card import ModelCard
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.score_table import ranking_rows

Measure = Callable[..., dict[str, Any]]
MakeTable = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def table(measure: Measure, gpu: Device) -> MakeTable:
    """One problem of size m, a row a tile, with these runtimes; and energies, where they are given."""

    def make(runtimes_us: Sequence[float], energies_mj: Sequence[float | None] | None = None, m: int = 64, tiles: Sequence[int] = ()) -> pa.Table:
        rows = []
        for i, runtime_us in enumerate(runtimes_us):
            config = KernelConfig(family="tiled", tile_m=(list(tiles) or range(1, 99))[i])
            row = measure(Cell(gemm=Gemm(m=m, n=64, k=64), config=config, device_key=gpu.name), gpu)
            rows.append({**row, "runtime_us": runtime_us, "energy_mj": energies_mj[i] if energies_mj else None})
        return to_table(rows)

    return make


def test_the_same_order_loses_nothing() -> None:
    measured = np.arange(1.0, 11.0)
    assert agreement(measured, measured**3) == {"tau": pytest.approx(1.0), "regret": 0.0, "regret_8": 0.0}


def test_the_reverse_order_chooses_the_worst() -> None:
    measured = np.arange(1.0, 11.0)
    found = agreement(measured, -measured)
    assert found["tau"] == pytest.approx(-1.0)
    assert (found["regret"], found["regret_8"]) == (pytest.approx(900.0), pytest.approx(200.0))  # 10 over 1; the best of 10..3 is 3


def test_one_exchanged_pair() -> None:
    """Two neighbours of nine in the wrong order: one of 36 pairs, and the second best is chosen."""
    measured = np.array([10.0, 11.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0])
    predicted = measured.copy()
    predicted[[0, 1]] = predicted[[1, 0]]
    assert agreement(measured, predicted) == {"tau": pytest.approx(34 / 36), "regret": pytest.approx(10.0), "regret_8": 0.0}


def test_eight_of_eight_are_no_choice() -> None:
    assert set(agreement(np.arange(1.0, 9.0), np.ones(8))) == {"tau", "regret"}


def test_who_tells_nothing_apart_gets_a_lot_and_no_agreement() -> None:
    measured = np.arange(1.0, 33.0)
    one, again = agreement(measured, np.ones(32)), agreement(measured, np.ones(32))
    assert one == again and one["tau"] == 0.0
    assert 0 < one["regret"] < 3100 and one["regret_8"] < one["regret"]
    assert agreement(measured[::-1], np.ones(32)) != one  # by lot, not by the order of the rows


def test_groups_are_problems_with_enough_configurations(table: MakeTable) -> None:
    enough, few = table(np.arange(1.0, MIN_CONFIGS + 2)), table(np.arange(1.0, MIN_CONFIGS), m=128)
    data = dataset(pa.concat_tables([enough, few]))
    right = data.measured["runtime_us"]
    predicted = {"runtime_us": {"model": right, "lookup": -right, "low": right}, "tflops": {"model": right}}
    found = ranking(data, predicted)
    assert set(found) == {"runtime_us"} and set(found["runtime_us"]) == {"model", "lookup"}
    model, lookup = found["runtime_us"]["model"], found["runtime_us"]["lookup"]
    assert model["groups"] == lookup["groups"] == 1
    assert (model["tau_mean"], model["regret_median"], lookup["tau_median"]) == (pytest.approx(1.0), 0.0, pytest.approx(-1.0))
    assert ranking(dataset(few), {"runtime_us": {"model": dataset(few).measured["runtime_us"]}}) == {}
    assert [row[:2] for row in ranking_rows(found)] == [["runtime_us", "model"], ["runtime_us", "lookup"]]


def test_what_train_prints_of_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"groups": 3, "tau_mean": 0.8711, "tau_median": 0.9, "regret_mean": 1.14, "regret_median": 0.0}
    noise = {"power_w": {"median": 0.456, "p90": 1.0, "max": 2.0, "cells": 4}, "runtime_rse": {"median": 0.1, "p90": 0.1, "max": 0.1, "rows": 9}}
    card = ModelCard(
        created_at="", program_version="", contract=2, targets=(), rows=9, rows_by_device={}, store_version=1, split="", holdout=0.2, train_rows=7,
        test_rows=2, train_shapes=5, test_shapes=1, ranking={"runtime_us": {"model": values}}, noise=noise,
    )  # fmt: skip
    monkeypatch.setattr(terminal, "out", Console(width=150))
    terminal.show_card(card, "model 1")
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("│ runtime_us")]
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["runtime_us", "model", "0.871", "0.900", "1.1", "0.0", "-", "-", "3"]
    assert printed.splitlines()[-1] == "the same cell measured again differs by, median: power_w 0.46 %"


def test_energy_is_ranked_among_the_rows_that_have_it(table: MakeTable) -> None:
    energies = [*np.arange(1.0, MIN_CONFIGS + 1), None, None]
    data = dataset(table(np.arange(1.0, MIN_CONFIGS + 3), energies))
    predicted = {"energy_mj": {"model": np.arange(10.0)}}
    assert ranking(data, predicted)["energy_mj"]["model"]["groups"] == 1
    assert ranking(data, {**predicted, "power_w": {"model": np.arange(10.0)}}).keys() == {"energy_mj"}
    assert ranking(dataset(table(np.arange(1.0, 11.0), [1.0] * 7 + [None] * 3)), predicted) == {}


def test_repeats_of_a_configuration_are_one_with_their_mean(table: MakeTable) -> None:
    tiles = [1, 1, 2, 3, 4, 5, 6, 7, 8]
    data = dataset(table([1.0, 3.0, 1.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], tiles=tiles))
    predicted = np.array([1.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    found = ranking(data, {"runtime_us": {"model": predicted}})["runtime_us"]["model"]
    assert found["regret_mean"] == pytest.approx(100 * (2.0 / 1.5 - 1))
    only_seven = dataset(table([1.0, 3.0, 1.5, 4.0, 5.0, 6.0, 7.0, 8.0], tiles=tiles[:8]))
    assert ranking(only_seven, {"runtime_us": {"model": predicted[:8]}}) == {}
