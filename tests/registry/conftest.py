"""What the registry's tests share: a tiny model of ours, its card, and a registry of three versions that each test copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gemmcast.card import ModelCard
from registry.registry import Registry

MakeModel = Callable[..., bytes]


def _make_model(seed: int = 0, contract: str | None = "2") -> bytes:
    query = helper.make_tensor_value_info("question", TensorProto.FLOAT, [None, 1])
    runtime = helper.make_tensor_value_info("runtime_us", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph([helper.make_node("Identity", ["question"], ["runtime_us"])], f"tiny{seed}", [query], [runtime])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if contract is not None:
        helper.set_model_props(model, {"gemmcast.contract": contract})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _make_card() -> ModelCard:
    metrics = {"mape": 4.7, "median_ape": 3.0, "p90_ape": 11.25, "r2": 0.98, "rows": 4683.0}
    scores = {"runtime_us": {"model": metrics, "lookup": {**metrics, "mape": 31.0}, "roofline": {**metrics, "mape": 40.0}}}
    return ModelCard(
        created_at="2026-01-01T00:00:00+00:00", program_version="0.1.0", contract=2, targets=("runtime_us",), rows=22683,
        rows_by_device={"NVIDIA H100 80GB HBM3": 22683}, store_version=3, split="grouped by shape", holdout=0.15, train_rows=18000, test_rows=4683,
        train_shapes=440, test_shapes=110, scores=scores, scores_by_family={"cutlass": scores}, parity_max_rel=4e-6, latency_p50_us=12.3,
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    return _make_model


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return _make_card()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 (retired), 2 (champion), 3 (challenger): made once, as MLflow takes seconds for it."""
    directory = tmp_path_factory.mktemp("registry template") / "registry"
    registry = Registry(directory)
    for seed in (1, 2, 3):
        registry.publish(_make_model(seed), _make_card())
    registry.promote("1")
    registry.promote("2")
    registry.challenge("3")
    return directory


@pytest.fixture
def directory(tmp_path: Path, template: Path) -> Path:
    """A copy of the template, as a user would move a registry: nothing may depend on where it was made."""
    return Path(shutil.copytree(template, tmp_path / "workspace" / "registry"))


@pytest.fixture
def registry(directory: Path) -> Registry:
    return Registry(directory)
