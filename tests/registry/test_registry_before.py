"""A registry that the program of contract 2 wrote is read, extended and promoted (tests/before)."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gemmcast import Gemm, KernelConfig, Predictor
from gemmcast.card import ModelCard
from gemmcast.modeldir import sha256
from registry.registry import Registry

MakeModel = Callable[..., bytes]
ARCHIVE = Path(__file__).parents[1] / "before" / "contract2.tar.xz"
# Inside MLflow 3.17 with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def before(tmp_path: Path) -> Registry:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Registry(tmp_path / "registry")


def test_its_versions_are_whole(before: Registry) -> None:
    versions = before.list()
    assert [version.number for version in versions] == ["2", "1"]
    assert [version.status for version in versions] == ["champion", "retired"]
    assert [before.verify(version.number) for version in versions] == versions
    published = before.load("champion")
    assert published.card.contract == 2
    assert published.version.sha256 == published.card.sha256 == sha256(published.model)


def test_its_champion_predicts(before: Registry, tmp_path: Path) -> None:
    path = tmp_path / "champion.onnx"
    before.export("champion", path)
    with Predictor(path) as predictor:
        gemm, config = Gemm(m=64, n=64, k=64), KernelConfig(family="tiled", tile_m=16)
        assert predictor.predict(gemm, config, "GPU A").runtime_us > 0


def test_a_version_of_today_joins_them(
    before: Registry, make_model: MakeModel, card: ModelCard
) -> None:
    published = before.publish(make_model(1), card)
    assert published.number == "3"
    assert before.promote("3").status == "champion"
    assert before.rollback().number == "2"
    assert before.rollback().number == "1"
