"""Files that the program of contract 2 and schema 2 wrote are read and served (tests/before)."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemmcast import Gemm, KernelConfig, Predictor, modeldir, query
from gemmcast.arrow import conform, read_samples
from gemmcast.card import ModelCard
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.renames import FAMILIES as RENAMED_FAMILIES
from gemmcast.renames import current_kernel

BEFORE = Path(__file__).parents[1] / "before"
ARCHIVE = BEFORE / "contract2.tar.xz"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.fixture(scope="module")
def answers(before: Path) -> dict[str, Any]:
    """What the program of that time predicted."""
    values: dict[str, Any] = json.loads((before / "answers.json").read_text())
    return values


def current_config(values: dict[str, Any]) -> KernelConfig:
    """A configuration of schema 2, whose `threads` were those of a block or of the CPU."""
    family = RENAMED_FAMILIES.get(values["family"], values["family"])
    knobs = {name: value for name, value in values.items() if name not in ("family", "threads")}
    knobs["kernel"] = current_kernel(family, values["kernel"])
    column = "cpu_threads" if family == "blas" else "block_threads"
    return KernelConfig(family=family, **{**knobs, column: values["threads"]})


@pytest.fixture
def older_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """At that time, threads that a query did not name were 0 for every family."""
    monkeypatch.setattr(query, "_threads_of_tile", lambda _: 0)


def test_the_archive_is_of_the_older_names(before: Path) -> None:
    (path,) = (before / "model_directory").glob("model-*.onnx")
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert properties["gemmcast.contract"] == "2"
    assert {"workers", "device_launch_us"} < set(json.loads(properties["gemmcast.fields"]))
    assert {"sm_count", "launch_overhead_us"} < set(json.loads(properties["gemmcast.devices"])[0])
    assert "own" in json.loads(properties["gemmcast.families"])
    assert "gemmcast-shortlist" in properties


@pytest.mark.usefixtures("older_threads")
def test_a_model_directory_answers_as_it_did(
    before: Path, answers: dict[str, Any], answer_now: Callable[..., dict[str, Any]]
) -> None:
    configs = [current_config(answer["config"]) for answer in answers["predictions"]]
    families = {config.family for config in configs}
    assert "custom" in families and len(families) == 5
    with Predictor(before / "model_directory") as predictor:
        for answer, config in zip(answers["predictions"], configs, strict=True):
            now = answer_now(predictor, Gemm(**answer["gemm"]), config, answer)
            assert now == answer["prediction"]


@pytest.mark.usefixtures("older_threads")
def test_the_smaller_graph_is_its_prefilter(before: Path, answers: dict[str, Any]) -> None:
    tiles = [
        KernelConfig(family="tiled", tile_m=tile, tile_n=tile, tile_k=16)
        for tile in range(4, 100, 4)
    ]
    with Predictor(before / "model_directory") as predictor:
        rows = query.encode_configs(Gemm(m=512, n=512, k=512), tiles, predictor.devices[0])
        assert predictor._model.estimate_us(rows) is not None
        ranking = predictor.rank(Gemm(m=512, n=512, k=512), tiles, device="GPU A", top=2)
    assert [ranked.config.tile_m for ranked in ranking] == answers["best_tiles"]


def test_its_devices_have_the_current_names(before: Path, gpu: Device, cpu: Device) -> None:
    """What an empty kernel takes on a GPU was not measured then."""
    older_gpu = replace(gpu, empty_kernel_us=None)
    assert modeldir.devices(before / "model_directory") == [older_gpu]
    with Predictor(before / "model_directory") as predictor:
        assert predictor.devices == [older_gpu, cpu]
        assert (predictor.version, predictor.metadata["contract"]) == ("7", "2")


def test_a_new_model_follows_the_older_one(
    before: Path, tmp_path: Path, power_model: bytes
) -> None:
    directory = shutil.copytree(before / "model_directory", tmp_path / "node")
    modeldir.put_model(directory, power_model, "8")
    with Predictor(directory) as predictor:
        assert (predictor.version, predictor.metadata["contract"]) == ("8", "4")


@pytest.mark.parametrize("name", ["cpu", "kernels"])
def test_a_standard_error_becomes_an_uncertainty(name: str) -> None:
    path = BEFORE / f"{name}.parquet"
    older = pq.read_table(path).to_pylist()
    present = read_samples(path).to_pylist()
    assert "runtime_rse" not in present[0]
    for old, row in zip(older, present, strict=True):
        error = old["runtime_rse"]
        if error is None:
            assert row["runtime_uncertainty"] is None
        elif name == "cpu":
            assert row["runtime_uncertainty"] == pytest.approx(3 * error)
        else:
            state = 0.010 if old["sustained_runtime_us"] is None else 0.0
            expected = np.sqrt(0.006**2 + state**2 + error**2)
            assert row["runtime_uncertainty"] == pytest.approx(expected)


def test_an_uncertainty_beside_a_standard_error_stays() -> None:
    table = pq.read_table(BEFORE / "kernels.parquet")
    stated = pa.array([0.07] * len(table))
    read = conform(table.append_column("runtime_uncertainty", stated), "both")
    assert set(read["runtime_uncertainty"].to_pylist()) == {0.07}


def test_a_standard_error_that_is_no_number_is_refused() -> None:
    table = pq.read_table(BEFORE / "kernels.parquet").drop_columns(["runtime_rse"])
    table = table.append_column("runtime_rse", pa.array(["small"] * len(table)))
    with pytest.raises(InputError, match="column = 'runtime_rse'"):
        conform(table, "words")


def test_a_card_has_the_current_names(before: Path) -> None:
    path = next((before / "registry").rglob("card.json"))
    older = json.loads(path.read_text())
    card = ModelCard.from_json(path.read_text())
    assert card.generalisation == older["unseen"] != {}
    assert card.repeatability == older["noise"] != {}
    assert card.tree_weight == older["tree_shares"] != {}
    assert card.latency_p50_us == older["single_p50_us"] == 61.5
    assert card.sklearn_latency_p50_us == older["sklearn_single_p50_us"] == 900.0
    assert set(card.ranking["runtime_us"]) == {"model", "prefilter"}
    assert (card.contract, card.sha256) == (2, older["sha256"])
