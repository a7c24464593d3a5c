"""A folder with a workspace (samples and a model), copied for each slip."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from coordinator.samples.store import SampleStore
from costmodel.train import TrainedModel
from registry.registry import Registry

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory, cpu_samples: pa.Table, candidate: TrainedModel
) -> Path:
    """Made once: MLflow takes seconds."""
    folder = tmp_path_factory.mktemp("slips")
    SampleStore.open(folder / "ws" / "samples", create=True).append([cpu_samples])
    few = SampleStore.open(folder / "few" / "samples", create=True)
    few.append([cpu_samples.slice(0, 60)])
    registry = Registry(folder / "ws" / "registry")
    registry.promote(registry.publish(candidate.model, candidate.card).number)
    (folder / "model.onnx").write_bytes(candidate.model)
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, which is the current folder."""
    folder = Path(shutil.copytree(template, tmp_path / "place"))
    monkeypatch.chdir(folder)
    return folder
