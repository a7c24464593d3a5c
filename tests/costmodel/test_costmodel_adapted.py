"""A model that starts from a base: few own samples help, none of them hurts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pyarrow as pa
import pytest

from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import parse_plan
from costmodel.adapted import AdaptedModel
from costmodel.base import Base, choose
from costmodel.dataset import TrainingSet, devices_of, training_set
from costmodel.gate import MAX_TIMES_EMPTY, times_of_empty
from costmodel.joined import JoinedModel
from costmodel.onnx_export import export
from costmodel.onnx_session import PARITY_LIMIT, open_session, parity
from costmodel.settings import TrainSettings
from costmodel.train import TrainedModel, train
from gemmcast import Predictor
from gemmcast.arrow import to_table
from gemmcast.cell import Cell
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.query import AT, INPUT
from gemmcast.rows import Row
from tests.conftest import GPU, GPU_PLAN
from tests.small_base import small_base

SLOWER = 1.3
OTHER = replace(
    GPU,
    name="Paper GPU 2",
    uuid="GPU-paper-2",
    dram_gbps=2 * GPU.dram_gbps,
    l2_bytes=2 * GPU.l2_bytes,
)
Measure = Callable[[Cell, Device], Row]


def _samples(measure: Measure, device: Device, slower: float, seed: int) -> TrainingSet:
    """The paper's GPU plan over other shapes, on a device that takes longer than its law."""
    cells = plan_cells(parse_plan({**GPU_PLAN, "seed": seed}), device).cells
    rows = [measure(cell, device) for cell in cells]
    for row in rows:
        row["runtime_us"] *= slower
        row["sustained_runtime_us"] *= slower
        row["energy_mj"] *= slower
    return training_set(to_table(rows))


@pytest.fixture(scope="module")
def base(power_samples: pa.Table) -> Base:
    return small_base(power_samples)


@pytest.fixture(scope="module")
def own(measure: Measure) -> TrainingSet:
    return _samples(measure, OTHER, SLOWER, seed=1)


@pytest.fixture(scope="module")
def new(measure: Measure) -> TrainingSet:
    """Other shapes of the same device."""
    return _samples(measure, OTHER, SLOWER, seed=2)


@pytest.fixture(scope="module")
def adapted(base: Base, own: TrainingSet) -> AdaptedModel:
    return AdaptedModel(base).fit_dataset(own)


def _drawn(data: TrainingSet, count: int) -> TrainingSet:
    return data.take(np.random.default_rng(0).permutation(len(data))[:count])


def _error(predicted: npt.NDArray[np.floating], data: TrainingSet, output: str) -> float:
    """Mean absolute error in per cent."""
    return float(100 * np.mean(np.abs(predicted / data.measured[output] - 1)))


@pytest.mark.parametrize("output", ["runtime_us", "sustained_runtime_us", "energy_mj"])
def test_fifty_samples_of_another_device_help_a_lot(
    base: Base, own: TrainingSet, new: TrainingSet, output: str
) -> None:
    model = AdaptedModel(base).fit_dataset(_drawn(own, 50))
    before = _error(base.predict(new.queries)[output], new, output)
    assert _error(model.predict(new.queries)[output], new, output) < 0.7 * before


@pytest.mark.parametrize("slower", [1.0, SLOWER])
def test_ten_samples_do_not_hurt(base: Base, measure: Measure, slower: float) -> None:
    device = OTHER if slower > 1 else GPU
    rows = _samples(measure, device, slower, seed=3)
    test = _samples(measure, device, slower, seed=4)
    model = AdaptedModel(base).fit_dataset(_drawn(rows, 10))
    before = _error(base.predict(test.queries)["runtime_us"], test, "runtime_us")
    after = _error(model.predict(test.queries)["runtime_us"], test, "runtime_us")
    assert after < 1.03 * before


def test_another_device_has_the_answers_of_the_base(
    base: Base, adapted: AdaptedModel, power_samples: pa.Table
) -> None:
    queries = training_set(power_samples).queries
    ours, theirs = adapted.predict(queries), base.answered(queries)
    for output in (*base.outputs, "low", "high"):
        np.testing.assert_allclose(ours[output], np.asarray(theirs[output]), rtol=1e-5)
    np.testing.assert_array_equal(ours["extrapolating"], theirs["extrapolating"])


def test_own_rows_end_the_extrapolation_of_the_base(
    base: Base, adapted: AdaptedModel, new: TrainingSet
) -> None:
    assert base.answered(new.queries)["extrapolating"].all()
    # some of the new shapes are beyond the own ones
    assert adapted.predict(new.queries)["extrapolating"].mean() < 0.2
    few = AdaptedModel(base).fit_dataset(_drawn(new, 10))
    assert few.predict(new.queries)["extrapolating"].all()


def test_intervals_hold_on_new_shapes(adapted: AdaptedModel, new: TrainingSet) -> None:
    predicted = adapted.predict(new.queries)
    for column, output in enumerate(adapted.outputs_):
        measured = new.measured[output]
        low, high = predicted["low"][:, column], predicted["high"][:, column]
        assert 0.8 < np.mean((low <= measured) & (measured <= high)) <= 1.0


def test_the_file_says_what_the_model_says(adapted: AdaptedModel, new: TrainingSet) -> None:
    session = open_session(export(adapted, devices_of(new)))
    assert parity(adapted, session, new.queries) <= PARITY_LIMIT
    times = times_of_empty(lambda: session.run(None, {INPUT: new.queries[:1]}))
    assert times < MAX_TIMES_EMPTY


def test_the_base_inside_a_file_computes_no_term_twice(
    base: Base, adapted: AdaptedModel, new: TrainingSet
) -> None:
    ours = onnx.load_model_from_string(export(adapted, devices_of(new)))
    theirs = onnx.load_model_from_string(base.model)
    assert len(theirs.graph.node) < len(ours.graph.node) < 1.9 * len(theirs.graph.node)


def test_power_at_a_limit_that_the_base_does_not_have_needs_own_rows(
    base: Base, adapted: AdaptedModel, measure: Measure
) -> None:
    weaker = replace(OTHER, name="Paper GPU 3", power_limit_w=350.0, idle_power_w=35.0)
    rows = _samples(measure, weaker, 1.0, seed=5)
    test = _samples(measure, weaker, 1.0, seed=6)
    assert np.isnan(adapted.predict(test.queries)["power_w"]).all()
    model = AdaptedModel(base).fit_dataset(rows)
    assert _error(model.predict(test.queries)["power_w"], test, "power_w") < 10
    session = open_session(export(model, devices_of(test)))
    assert parity(model, session, test.queries) <= PARITY_LIMIT


def test_a_base_without_power_learns_it(
    cpu_samples: pa.Table, own: TrainingSet, new: TrainingSet
) -> None:
    without = small_base(cpu_samples)
    assert "power_w" not in without.outputs
    model = AdaptedModel(without).fit_dataset(own)
    assert _error(model.predict(new.queries)["power_w"], new, "power_w") < 15


@pytest.fixture(scope="module")
def trained(base: Base, own: TrainingSet) -> TrainedModel:
    return train(own.table, TrainSettings(), base=base)


def test_a_card_names_the_base_and_scores_it(base: Base, trained: TrainedModel) -> None:
    card = trained.card
    assert card.base == f"small (SHA-256 {base.sha256[:12]})"
    assert not card.is_base
    assert replace(base.card, base=base.title).is_base
    errors = card.scores["runtime_us"]
    assert errors["model"]["mape"] < errors["base"]["mape"]
    assert card.rows == 240


def test_a_file_knows_the_devices_of_both(trained: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(trained.model)
    gemm, config = Gemm(m=512, n=512, k=512, dtype="fp16"), KernelConfig(family="cublas")
    with Predictor(path) as predictor:
        names = {device.name for device in predictor.devices}
        assert names == {GPU.name, OTHER.name}
        assert predictor.predict(gemm, config, GPU.name).runtime_us > 0
        assert predictor.predict(gemm, config, OTHER.name).runtime_us > 0


def test_a_kind_of_device_that_the_base_lacks_starts_from_nothing(
    base: Base, cpu_samples: pa.Table
) -> None:
    assert not base.covers(training_set(cpu_samples).queries).any()
    assert choose([base], {"Paper CPU (2 cores)": "cpu"}) is None


def test_a_mixed_fleet_has_one_model_of_both_kinds(
    base: Base, own: TrainingSet, new: TrainingSet, cpu_samples: pa.Table
) -> None:
    on_cpu = training_set(cpu_samples.slice(0, 150))
    both = training_set(pa.concat_tables([own.table, on_cpu.table]))
    model = JoinedModel(base).fit_dataset(both)
    assert _error(model.predict(new.queries)["runtime_us"], new, "runtime_us") < 12
    answers = model.predict(on_cpu.queries)
    assert _error(answers["runtime_us"], on_cpu, "runtime_us") < 12
    assert np.isnan(answers["power_w"]).all()
    session = open_session(export(model.calibrate(both), devices_of(both)))
    assert parity(model, session, both.queries) <= PARITY_LIMIT
    times = times_of_empty(lambda: session.run(None, {INPUT: new.queries[:1]}))
    assert times < MAX_TIMES_EMPTY


def test_of_several_bases_the_one_with_the_device_is_taken(base: Base, own: TrainingSet) -> None:
    other = small_base(own.table)
    assert choose([base, other], {OTHER.name: "cuda"}) is other
    assert choose([base, other], {GPU.name: "cuda"}) is base
    assert choose([base, other], {"Paper GPU 9": "cuda"}) is base


def test_a_base_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read .*; name a model file"):
        Base.read(tmp_path / "none.onnx")


def test_columns_of_a_query_stay_where_they_are(base: Base, own: TrainingSet) -> None:
    """With any limit, the base is asked the same but for the limit."""
    queries = own.queries[:4].copy()
    exact = base.answers(queries, any_limit=False)
    moved = base.answers(queries, any_limit=True)
    np.testing.assert_array_equal(exact.runtime_us, moved.runtime_us)
    queries[:, AT["power_limit_w"]] = 2000.0
    beyond = base.answers(queries, any_limit=True)
    np.testing.assert_array_equal(exact.factors["power"], beyond.factors["power"])
    assert beyond.extrapolating.all()
