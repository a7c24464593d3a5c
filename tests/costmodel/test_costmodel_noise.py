"""How well readings of one cell agree: between two datasets, and within one."""

from __future__ import annotations

from math import exp, isnan
from pathlib import Path

import pytest

from costmodel.evaluate.noise import (
    coverage,
    noise_floor,
    pairs_between,
    pairs_within,
    repeatability,
)
from gemmcast.arrow import read_samples
from gemmcast.rows import Row

DATASETS = Path(__file__).parents[2] / "datasets"
DATASET = DATASETS / "h100_repeatability.parquet"
"""Ten readings of 50 cells each; five of the ten with power."""
COLUMNS = ("cell_id", "status", "runtime_us", "runtime_uncertainty")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    listed: list[Row] = read_samples(DATASET).to_pylist()
    return listed


def test_the_noise_floor_is_of_ok_readings_that_both_datasets_have(rows: list[Row]) -> None:
    rows = rows[:12]
    again = []
    for i, row in enumerate(rows):
        again.append({**row, "runtime_us": row["runtime_us"] * (1 + i / 100), "power_w": None})
    other_cell = {**again[0], "cell_id": "another"}
    floor = noise_floor(rows, [*reversed(again[1:]), other_cell])
    assert set(floor) == {"runtime_us", "sustained_runtime_us", "energy_mj"}
    assert floor["runtime_us"] == {
        "median": pytest.approx(6),
        "p90": pytest.approx(10),
        "max": pytest.approx(11),
        "cells": 11,
    }
    assert floor["energy_mj"]["max"] == 0
    again[5]["status"] = "throttled"
    assert noise_floor(rows, again)["runtime_us"]["cells"] == 11
    assert noise_floor(rows, []) == {}


def test_each_repeated_reading_is_compared_with_the_one_before_it(rows: list[Row]) -> None:
    spreads = repeatability(rows)
    # Two cells have a power window that was warm (gemmcast/warm_windows.py).
    assert spreads["runtime_us"]["cells"] == 490 - 50
    assert spreads["power_w"]["cells"] == 240 - 48
    assert 0 < spreads["power_w"]["median"] < spreads["power_w"]["p90"] < spreads["power_w"]["max"]
    assert spreads["runtime_uncertainty"]["rows"] == 490


def test_readings_are_compared_in_the_order_of_measuring(rows: list[Row]) -> None:
    later = _reading(rows, day=2, runtime_factor=1.1)
    earlier = _reading(rows, day=1, runtime_factor=1.0)
    ten_percent = dict.fromkeys(("median", "p90", "max"), pytest.approx(10.0))
    assert repeatability([later, earlier])["runtime_us"] == {**ten_percent, "cells": 1}


def test_other_devices_and_failed_rows_are_not_compared(rows: list[Row]) -> None:
    later = _reading(rows, day=2, runtime_factor=1.1)
    earlier = _reading(rows, day=1, runtime_factor=1.0)
    assert "runtime_us" not in repeatability([later, {**earlier, "device": "another"}])
    assert "runtime_us" not in repeatability([later, {**earlier, "status": "timeout"}])
    assert repeatability([]) == {}


@pytest.mark.parametrize("name", ["h100_demo", "h100_sxm", "h200_sxm"])
def test_another_board_reads_what_the_uncertainty_says(name: str) -> None:
    first = read_samples(DATASETS / f"{name}.parquet", COLUMNS).to_pylist()
    second = read_samples(DATASETS / f"{name}_again.parquet", COLUMNS).to_pylist()
    covered = coverage(pairs_between(first, second))
    assert covered["cells"] > 300
    assert 90 <= covered["within_2u"] <= 98
    # More than the 68 % of a normal distribution: the tails are heavy, and 2u is what counts.
    assert 65 <= covered["within_1u"] <= 95


def test_another_hour_reads_what_the_uncertainty_says(rows: list[Row]) -> None:
    covered = coverage(pairs_within(rows))
    assert covered["cells"] == 490 - 50
    assert 90 <= covered["within_2u"] <= 98


def test_coverage_counts_runtimes_by_both_uncertainties(rows: list[Row]) -> None:
    first = {**rows[0], "runtime_us": 100.0, "runtime_uncertainty": 0.03}
    pairs = []
    for differs_by in (0.0, 0.04, 0.06, 0.09, 0.2):
        runtime_us = 100.0 * exp(differs_by)
        pairs.append((first, {**first, "runtime_us": runtime_us, "runtime_uncertainty": 0.04}))
    unknown = {**first, "runtime_uncertainty": None}
    certain = {**first, "runtime_uncertainty": 0.0}
    assert coverage([(certain, certain)])["within_2u"] == 100
    assert coverage([*pairs, (first, unknown), (unknown, first)]) == {
        "within_1u": pytest.approx(40.0),
        "within_2u": pytest.approx(80.0),
        "cells": 5,
    }
    assert isnan(coverage([])["within_2u"])


def _reading(rows: list[Row], *, day: int, runtime_factor: float) -> Row:
    first = next(row for row in rows if row["runtime_us"])
    return {
        **first,
        "runtime_us": first["runtime_us"] * runtime_factor,
        "measured_at": f"2030-01-0{day}",
        "cell_id": str(day),
    }
