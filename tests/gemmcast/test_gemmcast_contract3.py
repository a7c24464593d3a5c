"""Files of contract 3 and schema 3 (tests/before): the host's launch cost was an input then."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from gemmcast import Gemm, KernelConfig, Predictor
from gemmcast.arrow import SCHEMA, read_samples
from gemmcast.contracts import HOST_LAUNCH_US, device_for
from gemmcast.device import Device
from gemmcast.sample import SCHEMA_VERSION

ARCHIVE = Path(__file__).parents[1] / "before" / "contract3.tar.xz"
SLOW_HOST_US = 11.253170000031787


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("contract3")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.fixture(scope="module")
def answers(before: Path) -> dict[str, list[dict[str, Any]]]:
    """What the program of that time predicted."""
    values: dict[str, list[dict[str, Any]]] = json.loads((before / "answers.json").read_text())
    return values


def _query(answer: dict[str, Any]) -> tuple[Gemm, KernelConfig]:
    return Gemm(**answer["gemm"]), KernelConfig(**answer["config"])


def test_a_model_of_contract_3_answers_as_it_did(
    before: Path,
    answers: dict[str, list[dict[str, Any]]],
    answer_now: Callable[..., dict[str, Any]],
) -> None:
    with Predictor(before / "model_directory") as predictor:
        assert predictor.metadata["contract"] == "3"
        for answer in answers["predictions"]:
            assert answer_now(predictor, *_query(answer), answer) == answer["prediction"]


def test_it_still_reads_the_host_as_it_was_trained(
    before: Path, answers: dict[str, list[dict[str, Any]]], gpu: Device
) -> None:
    runtimes_us = set()
    with Predictor(before / "model_directory") as predictor:
        for answer in answers["hosts"]:
            host = replace(gpu, empty_launch_us=answer["launch_us"])
            prediction = predictor.predict(*_query(answer), host)
            assert asdict(prediction) == answer["prediction"]
            runtimes_us.add(prediction.runtime_us)
    assert len(runtimes_us) == 2


def test_many_queries_and_a_ranking_are_in_its_terms_too(
    before: Path, answers: dict[str, list[dict[str, Any]]], gpu: Device
) -> None:
    answer = answers["hosts"][1]
    gemm, config = _query(answer)
    host = replace(gpu, empty_launch_us=answer["launch_us"])
    expected_us = pytest.approx(answer["prediction"]["runtime_us"], rel=1e-5)
    with Predictor(before / "model_directory") as predictor:
        (one,) = predictor.predict_batch([(gemm, config)], host)
        (ranked,) = predictor.rank(gemm, [config], device=host)
    assert one.runtime_us == expected_us
    assert ranked.prediction.runtime_us == expected_us


def test_an_unknown_host_is_one_that_imports_estimated(gpu: Device) -> None:
    unknown = device_for(replace(gpu, empty_launch_us=None), 3)
    assert unknown.empty_kernel_us == HOST_LAUNCH_US
    assert device_for(gpu, 2).empty_kernel_us == gpu.empty_launch_us
    assert device_for(gpu, 4) == gpu


def test_its_devices_have_an_empty_kernel_only_on_a_cpu(before: Path) -> None:
    with Predictor(before / "model_directory") as predictor:
        known = {one.name: (one.empty_kernel_us, one.empty_launch_us) for one in predictor.devices}
    assert known == {"GPU A": (None, 2.1), "GPU S": (None, 11.25), "CPU C": (0.7, 0.7)}


def test_rows_of_schema_3_are_read_in_the_present_schema(before: Path) -> None:
    table = read_samples(before / "rows.parquet")
    assert table.schema == SCHEMA
    assert set(table["schema_version"].to_pylist()) == {SCHEMA_VERSION}
    empties: dict[str, set[Any]] = {"cuda": set(), "cpu": set()}
    for row in table.to_pylist():
        empties[row["device_kind"]].add((row["empty_kernel_us"], row["empty_launch_us"]))
    assert empties["cuda"] == {(None, SLOW_HOST_US)}
    ((kernel_us, launch_us),) = empties["cpu"]
    assert kernel_us == launch_us > 0
