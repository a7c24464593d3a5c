"""A workspace handed out as a dataset: the file replays, the card says what is in it, bad names change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agent.devices.replay import ReplayInstrument
from coordinator.samples.export import counts, noise_floor, repeatability, write_recording
from gemmcast.arrow import SCHEMA, to_table
from gemmcast.errors import InputError
from gemmcast.rows import config_of, gemm_of

DATASET = Path(__file__).parents[2] / "datasets" / "h100_repeatability.parquet"
Rows = list[dict[str, Any]]
WORDS = (
    "# mine", "NVIDIA H100 80GB HBM3", "GPU-43ea8348-acd5-90a7-7868-4fd6aca1ee70", "580.159.04", "cublaslt 13.1.0", '{"power_steps": 5}',
    "2026-11-25T15:16:14", "| rows | 500; not ok: none |", "| rows with power | 250 |", "| different cells, shapes | 50, 17 |",
)  # fmt: skip


@pytest.fixture(scope="module")
def samples() -> pa.Table:
    return pq.read_table(DATASET)


def test_what_is_written_is_every_row_in_the_order_of_measuring(samples: pa.Table, tmp_path: Path) -> None:
    write_recording(samples, path := tmp_path / "new" / "mine.parquet")
    written = pq.read_table(path)
    assert written.schema == SCHEMA
    assert sorted(written["sample_id"].to_pylist()) == sorted(samples["sample_id"].to_pylist())
    assert written["measured_at"].to_pylist() == sorted(written["measured_at"].to_pylist())
    assert {entry.name for entry in path.parent.iterdir()} == {"mine.parquet", "mine.md"}


def test_a_recording_replays(power_samples: pa.Table, tmp_path: Path) -> None:
    write_recording(power_samples, path := tmp_path / "mine.parquet")
    assert ReplayInstrument(path, "me").device.name == power_samples["device"][0].as_py()


def test_the_card_says_what_on_what_when_and_how(samples: pa.Table, tmp_path: Path) -> None:
    write_recording(samples, path := tmp_path / "mine.parquet", {"power_steps": 5})
    card = path.with_suffix(".md").read_text()
    for word in WORDS:
        assert word in card


def test_cells_are_counted_once_groups_from_twenty_on_and_failures_by_status(samples: pa.Table) -> None:
    rows: Rows = samples.to_pylist()
    first = next(row for row in rows if row["family"] == "cublaslt")
    group = [{**first, "algo_id": 1000 + i} for i in range(20)]
    found = counts([*rows, *group[:19], {**first, "status": "incorrect", "reason": "so", "algo_id": 2000}])
    assert (found["cells"], found["groups_of_20"], found["not_ok"]) == (50 + 19, 1, {"incorrect": 1})
    assert counts(group[:19])["groups_of_20"] == 0
    assert counts([*rows, *rows])["cells"] == len({(gemm_of(row), config_of(row)) for row in rows})


@pytest.mark.parametrize(("name", "message"), [("mine.csv", "FILE = .*name it SOMETHING.parquet"), ("mine", "FILE = ")])
def test_another_kind_of_file_is_refused(samples: pa.Table, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_recording(samples, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_nothing_measured_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="samples = 0: there are no samples"):
        write_recording(to_table([]), tmp_path / "mine.parquet")


def test_a_cpus_card_has_no_drivers(cpu_samples: pa.Table, tmp_path: Path) -> None:
    write_recording(cpu_samples, path := tmp_path / "mine.parquet")
    card = path.with_suffix(".md").read_text()
    assert "| driver, CUDA | none |" in card and "| devices |" in card
    assert "| counter against instantaneous power, median | not read |" in card


def test_the_noise_floor_is_of_good_readings_that_both_recordings_have(samples: pa.Table) -> None:
    rows: Rows = samples.to_pylist()[:12]
    again = [{**row, "runtime_us": row["runtime_us"] * (1 + i / 100), "power_w": None} for i, row in enumerate(rows)]
    found = noise_floor(rows, [*reversed(again[1:]), {**again[0], "cell_id": "another"}])
    assert set(found) == {"runtime_us", "sustained_runtime_us", "energy_mj"}
    assert found["runtime_us"] == {"median": pytest.approx(6), "p90": pytest.approx(10), "max": pytest.approx(11), "cells": 11}
    assert found["energy_mj"]["max"] == 0
    again[5]["status"] = "throttled"
    assert noise_floor(rows, again)["runtime_us"]["cells"] == 11
    assert noise_floor(rows, []) == {}


def test_repeats_are_each_against_the_one_before(samples: pa.Table) -> None:
    rows: Rows = samples.to_pylist()
    found = repeatability(rows)
    assert found["runtime_us"]["cells"] == 500 - 50 and found["power_w"]["cells"] == 250 - 50  # ten readings of 50 cells, five with power
    assert 0 < found["power_w"]["median"] < found["power_w"]["p90"] < found["power_w"]["max"]
    assert found["runtime_rse"]["rows"] == 500
    first = next(row for row in rows if row["runtime_us"])
    again = [
        {**first, "runtime_us": first["runtime_us"] * by, "measured_at": f"2030-01-0{day}", "cell_id": str(day)} for day, by in ((2, 1.1), (1, 1.0))
    ]
    assert repeatability(again)["runtime_us"] == {**dict.fromkeys(("median", "p90", "max"), pytest.approx(10.0)), "cells": 1}
    assert "runtime_us" not in repeatability([again[0], {**again[1], "device": "another"}])
    assert "runtime_us" not in repeatability([again[0], {**again[1], "status": "timeout"}])
    assert repeatability([]) == {}
