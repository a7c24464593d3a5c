"""What a run's models start from: named in the plan, published first, corrected later."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fake_fleet import FakeAgent, FakeFleet, FakeTrainer, Measure, run_all

from coordinator.fleet.bases import base_for, judged_base, named_bases, read_bases
from coordinator.fleet.publishing import publish
from coordinator.plan.schema import Plan, parse_plan, read_plan
from coordinator.progress import RunDisplay
from coordinator.samples.store import SampleStore
from costmodel.base import Base
from costmodel.dataset import training_set
from gemmcast import models
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.modelfile import LoadedModel
from registry.registry import Registry
from tests.small_base import small_base

BEFORE = Path(__file__).parents[1] / "before"
PLAN = """
name = "based"
[train]
base = {base}
[[sweep]]
family = "cublas"
shapes = {{ sample = 5 }}
"""


@pytest.fixture(scope="module")
def base(power_samples: pa.Table) -> Base:
    return small_base(power_samples)


def _read(folder: Path, base: str) -> Plan:
    path = folder / "plan.toml"
    path.write_text(PLAN.format(base=base))
    return read_plan(path)


def test_a_plan_starts_from_the_shipped_model(make_plan: Callable[..., Plan]) -> None:
    assert make_plan().train.base == "shipped"
    (shipped,) = read_bases("shipped")
    assert shipped.model == models.path().read_bytes()
    assert shipped.card.rows > 0
    assert read_bases("none") == []


def test_files_of_a_plan_lie_beneath_it(tmp_path: Path, base: Base) -> None:
    (tmp_path / "mine.onnx").write_bytes(base.model)
    plan = _read(tmp_path, '["mine.onnx"]')
    (read,) = read_bases(plan.train.base)
    assert (read.name, read.model) == ("mine.onnx", base.model)
    with pytest.raises(InputError, match=r"train.base = .* leads out of the plan's folder"):
        _read(tmp_path, '["/etc/passwd"]')


@pytest.mark.parametrize("value", ["", "H100", [], [1], 3, {"file": "x"}])
def test_other_values_are_refused(value: object) -> None:
    sweep = [{"family": "blas", "shapes": {"sample": 5}}]
    plan: dict[str, Any] = {"name": "bad", "sweep": sweep, "train": {"base": value}}
    with pytest.raises(InputError, match='train = .*base must be "shipped", "none" or a list'):
        parse_plan(plan)


@pytest.mark.parametrize(
    ("names", "refusal"),
    [
        (["none", "a.onnx"], "--base = .* stands beside other names"),
        (["missing.onnx"], "base = .*missing.onnx.* can't be read"),
    ],
)
def test_the_command_line_names_what_it_refuses(names: Sequence[str], refusal: str) -> None:
    with pytest.raises(InputError, match=refusal):
        named_bases(names)


def test_a_model_of_an_older_contract_is_no_base(tmp_path: Path) -> None:
    with tarfile.open(BEFORE / "contract3.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    (path,) = tmp_path.glob("model_directory/*.onnx")
    with pytest.raises(InputError, match="is of contract 3, a base must be of 4"):
        named_bases([str(path)])


def test_samples_of_a_cpu_have_no_base(
    base: Base, cpu_samples: pa.Table, power_samples: pa.Table
) -> None:
    assert base_for(cpu_samples, [base]) is None
    assert base_for(power_samples, [base]) is base


def test_the_base_is_a_version_like_any_other(tmp_path: Path, base: Base) -> None:
    registry = Registry(tmp_path)
    assert publish(registry, judged_base(base)) == "1"
    published = registry.load("champion")
    assert published.model == base.model
    assert published.card.is_base
    display = RunDisplay()
    display.show_model(published.card, "1")
    assert display.model_line == f"model 1: {base.title}, before any sample from here"


def test_every_device_that_joins_is_shown_to_the_trainer(
    store: SampleStore, measure: Measure, make_plan: Callable[..., Plan], cpu: Device
) -> None:
    other = replace(cpu, uuid="CPU-other")
    fleet = FakeFleet(measure, {"a": FakeAgent(cpu), "b": FakeAgent(other, joins_at=2)})
    trainer = FakeTrainer(fleet)
    run_all(make_plan(), store, fleet, trainer)
    assert trainer.joined == [cpu, other]


def test_a_card_beside_a_file_is_read(tmp_path: Path, base: Base) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(base.model)
    assert Base.read(path).card.rows == 0
    path.with_suffix(".json").write_text(replace(base.card, rows=77).to_json())
    assert Base.read(path).card.rows == 77


def test_a_training_from_the_shipped_model_is_one_file(power_samples: pa.Table) -> None:
    """The shipped model and what is learned on top of it, read as any model."""
    from costmodel.adapted import AdaptedModel
    from costmodel.dataset import devices_of
    from costmodel.onnx_export import export

    (shipped,) = read_bases("shipped")
    data = training_set(power_samples)
    model = AdaptedModel(shipped).fit_dataset(data)
    loaded = LoadedModel(export(model, devices_of(data)), "adapted", "2")
    assert loaded.outputs == list(shipped.outputs)
    assert loaded.estimate_us(data.queries) is not None
