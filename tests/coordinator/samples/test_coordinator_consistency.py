"""Small cells of a dataset, compared with one another."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.samples.columns import Columns
from coordinator.samples.consistency import step_times_ns, window_over_burst
from gemmcast.arrow import to_table
from gemmcast.sample import Sample


def _measured(*rows: dict[str, Any]) -> Columns:
    return Columns(to_table([{**_ROW, **row} for row in rows]))


_ROW = {
    **Sample(m=64, n=64, k=64, dtype="fp32", family="tiled").row(),
    "runtime_us": 10.0,
    "compute_units": 132,
}


def _window(sustained_us: float, **values: Any) -> dict[str, Any]:
    return {"sustained_runtime_us": sustained_us, "capped": False, **values}


def test_windows_of_small_cold_cells_are_compared_with_their_bursts() -> None:
    small = [_window(9.0), _window(10.0), _window(12.0)]
    others = [
        _window(90.0, capped=True),
        _window(90.0, cache="warm"),
        # 98,304 and 100,352 bytes
        _window(90.0, m=98, n=64, k=128),
        {"sustained_runtime_us": None},
    ]
    ratio = window_over_burst(_measured(*small, *others))
    assert ratio is not None
    assert (ratio["median"], ratio["cells"]) == (1.0, 3)
    assert ratio["p10"] == pytest.approx(0.92)
    assert ratio["p90"] == pytest.approx(1.16)


def test_all_operands_of_a_batch_count() -> None:
    assert window_over_burst(_measured(_window(9.0, m=32, n=32, k=32, batch=8))) is not None
    assert window_over_burst(_measured(_window(9.0, m=32, n=32, k=32, batch=9))) is None


def test_a_step_of_the_tiled_kernel_takes_the_same_time_in_every_cell_of_one_wave() -> None:
    tile = {"tile_m": 8, "tile_n": 8, "tile_k": 8}
    chosen = [
        {**tile, "k": 128, "runtime_us": 3.2},
        {**tile, "k": 1280, "runtime_us": 48.0},
        {**tile, "k": 121, "runtime_us": 6.4},
    ]
    others = [
        # fifteen steps, two waves, another kernel, warm
        {**tile, "k": 120, "runtime_us": 99.0},
        {**tile, "m": 8 * 133, "n": 8, "k": 128, "runtime_us": 99.0},
        {**tile, "family": "cutlass", "k": 128, "runtime_us": 99.0},
        {**tile, "cache": "warm", "k": 128, "runtime_us": 99.0},
    ]
    assert step_times_ns(_measured(*chosen, *others)) == {"8": pytest.approx(300.0)}
