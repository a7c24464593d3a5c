"""The model in the wheel: it belongs to datasets/, and the same tables make the same bytes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from operator import itemgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from costmodel import shipped
from costmodel.shipped import DATASETS, MAX_BYTES, hashes, make, training_files
from costmodel.train import TrainedModel
from gemmcast import Predictor, models
from gemmcast.errors import InputError
from gemmcast.modeldir import sha256
from gemmcast.query import CONTRACT

ROWS = 120
"""Of the tables that the tests make a model from."""
REMAKE = "datasets/ has changed since the shipped model was made: run python -m costmodel.shipped"


def _write(folder: Path, **tables: pa.Table) -> Path:
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(power_samples: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tables to train on, and one of the demo."""
    return _write(
        tmp_path_factory.mktemp("datasets"),
        gpu_first=power_samples.slice(0, 70),
        gpu_second=power_samples.slice(70, ROWS - 70),
        gpu_demo=power_samples.slice(0, 1),
    )


@pytest.fixture(scope="module")
def made(folder: Path) -> TrainedModel:
    return make(folder)


@pytest.mark.parametrize("name", models.names())
def test_the_shipped_model_belongs_to_the_datasets_and_to_its_card(name: str) -> None:
    card = models.card(name)
    model = models.path(name).read_bytes()
    assert card.datasets == hashes(training_files(DATASETS)), REMAKE
    assert card.sha256 == sha256(model)
    assert len(model) <= MAX_BYTES == 2.5 * 2**20
    assert card.contract == CONTRACT


def test_the_shipped_model_is_as_old_as_its_newest_sample() -> None:
    tables = [pq.read_table(path, columns=["measured_at"]) for path in training_files(DATASETS)]
    newest = pc.max(pa.concat_tables(tables)["measured_at"]).as_py()
    with Predictor() as predictor:
        assert predictor.metadata["created_at"] == models.card().created_at == newest


def test_it_is_made_from_every_table_but_exams_and_the_demo(tmp_path: Path) -> None:
    wanted = ["gpu.parquet", "gpu_again.parquet", "gpu_democratic.parquet"]
    others = ["gpu_exam.parquet", "gpu_exam_again.parquet", "gpu_demo.parquet", "gpu.md"]
    for name in (*others, *wanted):
        (tmp_path / name).write_text(name)
    files = training_files(tmp_path)
    assert [path.name for path in files] == wanted
    assert hashes(files)["gpu.parquet"] == sha256(b"gpu.parquet")
    names = [path.name for path in training_files(DATASETS)]
    assert {"h100_sxm.parquet", "h200_sxm.parquet"} <= set(names)
    assert not [name for name in names if "exam" in name or "demo" in name]


def test_the_same_tables_make_the_same_bytes(folder: Path, made: TrainedModel) -> None:
    again = make(folder)
    assert again.model == made.model
    assert again.card == made.card
    assert made.card.latency_p50_us is None and made.card.sklearn_latency_p50_us is None


def test_the_card_names_the_tables_and_what_may_be_asked(
    folder: Path, made: TrainedModel, power_samples: pa.Table
) -> None:
    card = made.card
    assert card.datasets == hashes([folder / "gpu_first.parquet", folder / "gpu_second.parquet"])
    assert card.rows == ROWS
    assert card.created_at == pc.max(power_samples["measured_at"]).as_py()
    ((device, families),) = card.scope.items()
    assert device == "Paper GPU 80GB"
    assert sum(of_family["rows"] for of_family in families.values()) == card.train_rows
    assert set(families) == {"cublas", "tiled"}
    assert json.loads(card.to_json())["scope"] == card.scope


def test_a_quick_model_has_whole_shapes_of_each_table(
    folder: Path,
    made: TrainedModel,
    power_samples: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[pa.Table] = []

    def train(table: pa.Table, *_: object, **__: object) -> TrainedModel:
        given.append(table)
        return made

    monkeypatch.setattr(shipped, "train", train)
    quick = make(folder, rows=40)
    assert quick.card.split.endswith("; of each table about 40 rows at most")
    assert quick.card.datasets == made.card.datasets
    make(folder, rows=ROWS)
    few, whole = (Counter(map(itemgetter("m", "n", "k"), one.to_pylist())) for one in given)
    assert len(given[1]) == ROWS and 40 < len(given[0]) < 100
    first = Counter(map(itemgetter("m", "n", "k"), power_samples.slice(0, 70).to_pylist()))
    second = whole - first
    for shape, count in few.items():
        assert count in (first[shape], second[shape], whole[shape])


def test_a_table_that_shares_a_layer_with_an_exam_is_refused(
    tmp_path: Path, power_samples: pa.Table
) -> None:
    folder = _write(tmp_path, gpu=power_samples, gpu_exam=power_samples.slice(0, 5))
    with pytest.raises(InputError, match=r"exam = 'gpu_exam.parquet': shares .* with gpu.parquet"):
        make(folder)


def test_a_folder_without_tables_is_refused(tmp_path: Path, power_samples: pa.Table) -> None:
    folder = _write(tmp_path, gpu_exam=power_samples)
    with pytest.raises(InputError, match="holds no tables to train on"):
        make(folder)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    words = ["shipped", "--datasets", str(folder), "--out", str(tmp_path / "file" / "models")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(shipped, "train", None)
    with pytest.raises(InputError, match="no model can be written there"):
        shipped.main()


def test_the_command_writes_the_model_and_its_card(
    folder: Path, made: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["shipped", "--datasets", str(folder), "--out", str(tmp_path / "models")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(shipped, "train", lambda *_, **__: made)
    shipped.main()
    monkeypatch.setattr(models, "FOLDER", tmp_path / "models")
    assert models.names() == ["default"]
    assert models.card() == made.card
    with Predictor() as predictor:
        assert predictor.version == made.card.sha256[:12]


def test_too_large_a_file_is_refused(
    folder: Path, made: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "train", lambda *_, **__: made)
    monkeypatch.setattr(shipped, "MAX_BYTES", len(made.model))
    assert make(folder).model == made.model
    monkeypatch.setattr(shipped, "MAX_BYTES", len(made.model) - 1)
    with pytest.raises(InputError, match="every wheel would hold it"):
        make(folder)
