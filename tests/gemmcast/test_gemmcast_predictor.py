"""The embedded predictor on small real models: its answers, rankings, devices and threads."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemmcast import Gemm, KernelConfig, Prediction, Predictor, modeldir, query
from gemmcast.device import Device
from gemmcast.errors import InputError

Draw = Callable[..., list[tuple[Gemm, KernelConfig]]]
Alike = Callable[[Prediction, Prediction], bool]
GEMM = Gemm(m=1000, n=500, k=2000)
# Of the faster device in the training rows.
MOST_GBPS = 2987.6
TILES = [
    KernelConfig(family="tiled", tile_m=m, tile_n=n, tile_k=16)
    for m in (4, 8, 16, 32, 64, 128)
    for n in (4, 16, 64)
]


# answers


def test_a_prediction_is_what_the_graph_says_of_the_question(
    powered: Predictor, gpu: Device, draw: Draw
) -> None:
    for gemm, config in draw(gpu, 50, seed=3):
        prediction = powered.predict(gemm, config, gpu, cache="warm")
        answers = powered.predict_rows(
            np.array([query.encode(gemm, config, gpu, cache="warm")], dtype=np.float32)
        )
        assert list(answers) == [*query.OUTPUTS, *query.INTERVALS, query.EXTRAPOLATING]
        assert all(
            getattr(prediction, name) == value
            for name, (value,) in answers.items()
            if name not in query.INTERVALS
        )
        assert all(
            list(getattr(prediction, name).items())
            == [*zip(query.OUTPUTS, *answers[name], strict=True)]
            for name in query.INTERVALS
        )
        assert prediction.model_version == powered.version


def test_outputs_do_not_contradict_one_another(powered: Predictor, gpu: Device, draw: Draw) -> None:
    for gemm, config in draw(gpu, 50, seed=4):
        p = powered.predict(gemm, config, gpu)
        assert p.power_w and p.sustained_runtime_us and p.energy_mj and p.edp_mj_us
        assert p.tflops == pytest.approx(gemm.flops / p.runtime_us / 1e6, rel=1e-5)
        assert p.energy_mj == pytest.approx(p.power_w * p.sustained_runtime_us / 1e3, rel=1e-5)
        assert p.edp_mj_us == p.energy_mj * p.sustained_runtime_us


def test_a_batch_is_its_questions_one_by_one(
    powered: Predictor, gpu: Device, draw: Draw, alike: Alike
) -> None:
    drawn = [*draw(gpu, 300, seed=5), (GEMM, TILES[0])]
    batch = powered.predict_batch(drawn, gpu)
    for prediction, (gemm, config) in zip(batch, drawn, strict=True):
        assert alike(prediction, powered.predict(gemm, config, gpu))
    assert {prediction.extrapolating for prediction in batch} == {True, False}
    assert powered.predict_batch([], gpu) == []


def test_a_model_without_power_answers_time_alone(timed: Predictor) -> None:
    assert timed.outputs == ("runtime_us", "tflops")
    prediction = timed.predict(GEMM, KernelConfig(family="blas"))
    assert prediction.runtime_us > 0 and prediction.tflops > 0
    assert (
        prediction.sustained_runtime_us,
        prediction.power_w,
        prediction.energy_mj,
        prediction.edp_mj_us,
    ) == (None,) * 4


@pytest.mark.parametrize("limit_w", [None, 0.0, 100.0, 2000.0])
def test_a_device_of_an_unknown_limit_gets_no_power(
    powered: Predictor, gpu: Device, limit_w: float | None
) -> None:
    gemm, config = Gemm(m=1024, n=512, k=256), KernelConfig(family="cublas")
    unknown = replace(gpu, power_limit_w=limit_w)
    cost = powered.predict(gemm, config, unknown)
    assert (cost.power_w, cost.energy_mj, cost.edp_mj_us) == (None, None, None)
    assert set(cost.low) == set(cost.high) == {"runtime_us", "tflops", "sustained_runtime_us"}
    assert cost.runtime_us > 0
    assert json.loads(json.dumps(asdict(cost), allow_nan=False))["power_w"] is None
    assert powered.predict_batch([(gemm, config)], unknown) == [cost]
    encoded = powered.predict_encoded(query.encode(gemm, config, unknown))
    assert set(encoded) == set(cost.low)
    for objective in ("energy", "edp"):
        with pytest.raises(InputError, match="no energy is predicted for GPU A: its power limit"):
            powered.pick(gemm, [config], objective, unknown)
    assert powered.pick(gemm, [config], "time", unknown).prediction.power_w is None


def test_no_prediction_depends_on_the_host(powered: Predictor, gpu: Device) -> None:
    """64³, whose time is next to nothing but that of an empty kernel."""
    gemm, config = Gemm(m=64, n=64, k=64, dtype="fp16"), KernelConfig(family="cublas")
    expected = powered.predict(gemm, config, gpu)
    for launch_us in (1.5, 4.1, 20.0, 40.0, None):
        host = replace(gpu, empty_launch_us=launch_us)
        assert powered.predict(gemm, config, host) == expected
        assert powered.pick(gemm, [config], device=host).prediction.runtime_us == pytest.approx(
            expected.runtime_us, rel=1e-5
        )


def test_a_name_stands_for_the_median_of_the_nodes_boards(
    power_model: bytes, tmp_path: Path, gpu: Device
) -> None:
    modeldir.put_model(tmp_path, power_model, "1")
    by_uuid = {}
    for uuid, dram_gbps in (("GPU-1", 2000.0), ("GPU-2", 3000.0), ("GPU-3", 2500.0)):
        by_uuid[uuid] = replace(gpu, uuid=uuid, dram_gbps=dram_gbps)
        modeldir.put_device(tmp_path, by_uuid[uuid])
    config = KernelConfig(family="cublas")
    with Predictor(tmp_path) as predictor:
        by_name = predictor.predict(GEMM, config, gpu.name)
        assert by_name == predictor.predict(GEMM, config)
        assert by_name == predictor.predict(GEMM, config, by_uuid["GPU-3"])
        for uuid, board in by_uuid.items():
            assert predictor.predict(GEMM, config, uuid) == predictor.predict(GEMM, config, board)
        assert predictor.predict(GEMM, config, "GPU-1") != by_name
        assert [device.uuid for device in predictor.devices][:3] == list(by_uuid)


def test_it_says_what_it_is(powered: Predictor, power_model: bytes) -> None:
    assert powered.version == modeldir.sha256(power_model)[:12]
    assert powered.metadata["contract"] == str(query.CONTRACT)
    assert [device.name for device in powered.devices] == ["GPU A", "GPU B"]


# intervals


def test_a_value_lies_within_its_interval(
    powered: Predictor, timed: Predictor, gpu: Device, cpu: Device, draw: Draw
) -> None:
    for predictor, device in ((powered, gpu), (timed, cpu)):
        drawn = draw(device, 50, seed=7)
        for p in [
            *predictor.predict_batch(drawn, device),
            *(predictor.predict(gemm, config, device) for gemm, config in drawn),
        ]:
            assert tuple(p.low) == tuple(p.high) == predictor.outputs
            for name in p.low:
                # One end is the value where the value is at its bound
                assert 0 < p.low[name] <= getattr(p, name) <= p.high[name] < math.inf
                assert p.low[name] < p.high[name]


def test_throughput_is_as_doubtful_as_the_runtime(powered: Predictor, gpu: Device) -> None:
    p = powered.predict(GEMM, TILES[0], gpu)
    expected = [GEMM.flops / p.high["runtime_us"] / 1e6, GEMM.flops / p.low["runtime_us"] / 1e6]
    assert [p.low["tflops"], p.high["tflops"]] == pytest.approx(expected, rel=1e-4)


def test_rows_have_an_interval_for_each_output_in_their_order(
    powered: Predictor, timed: Predictor, gpu: Device
) -> None:
    rows = np.array([query.encode(GEMM, config, gpu) for config in TILES], dtype=np.float32)
    for predictor in (powered, timed):
        answers = predictor.predict_rows(rows)
        assert (
            tuple(json.loads(predictor.metadata["outputs"]))
            == predictor.outputs
            == tuple(answers)[:-3]
        )
        values = np.column_stack([answers[name] for name in predictor.outputs])
        assert answers["low"].shape == answers["high"].shape == values.shape
        assert (answers["low"] <= values).all() and (values <= answers["high"]).all()
        assert (
            answers["extrapolating"].shape == (len(rows),)
            and answers["extrapolating"].dtype == np.bool_
        )


# outside the training range


def doubted(
    predictor: Predictor,
    device: Device,
    alike: Alike,
    config: KernelConfig = TILES[0],
    **sizes: Any,
) -> bool:
    """Whether a query is outside the training range; alone and in a batch."""
    gemm = replace(GEMM, **sizes)
    one, (batched, _) = (
        predictor.predict(gemm, config, device),
        predictor.predict_batch([(gemm, config), (GEMM, config)], device),
    )
    assert alike(one, batched)
    return one.extrapolating


def test_the_training_range_is_not_doubted(
    powered: Predictor, timed: Predictor, gpu: Device, cpu: Device, alike: Alike
) -> None:
    for config in (*TILES[::6], KernelConfig(family="cublas"), KernelConfig(family="cublaslt")):
        assert not doubted(powered, gpu, alike, config)
        assert not doubted(powered, gpu, alike, config, dtype="fp16", m=2**12)
    assert not doubted(timed, cpu, alike, KernelConfig(family="blas"))


@pytest.mark.parametrize(
    "size", [{"m": 4 * 2**13}, {"n": 4 * 2**13}, {"k": 4 * 2**13}, {"batch": 4 * 5}]
)
def test_a_size_beyond_the_training_rows_is_doubted(
    powered: Predictor, gpu: Device, alike: Alike, size: dict[str, int]
) -> None:
    small = {"m": 16, "n": 16, "k": 16}  # so that work and traffic stay within
    assert not doubted(powered, gpu, alike, **small)
    assert doubted(powered, gpu, alike, **{**small, **size})


def test_more_work_than_any_training_row_is_doubted_though_every_size_is_known(
    powered: Predictor, gpu: Device, alike: Alike
) -> None:
    assert doubted(powered, gpu, alike, m=2**13, n=2**13, k=2**13, batch=5)


def test_a_new_dtype_family_or_algorithm_is_doubted(
    powered: Predictor, gpu: Device, alike: Alike, held_out_family: str
) -> None:
    measured = replace(gpu, peak_tflops={**gpu.peak_tflops, "bf16": gpu.peak_tflops["fp16"]})
    assert not doubted(powered, measured, alike, dtype="fp16")
    assert doubted(powered, measured, alike, dtype="bf16")
    assert doubted(powered, gpu, alike, KernelConfig(family=held_out_family))
    assert doubted(powered, gpu, alike, KernelConfig(family="cublaslt", algo_id=999))


@pytest.mark.parametrize(
    "change",
    [{"dram_gbps": 1.3 * MOST_GBPS}, {"compute_units": 400}, {"peak_tflops": {"fp32": 5000.0}}],
)
def test_a_device_beyond_the_training_rows_is_doubted(
    powered: Predictor, gpu: Device, alike: Alike, change: dict[str, Any]
) -> None:
    assert doubted(powered, replace(gpu, **change), alike)
    assert not doubted(powered, replace(gpu, dram_gbps=1.2 * MOST_GBPS), alike)


# devices


def test_a_device_is_given_by_name_by_uuid_or_whole(powered: Predictor, gpu: Device) -> None:
    config = KernelConfig(family="cublas")
    assert (
        powered.predict(GEMM, config, "GPU A")
        == powered.predict(GEMM, config, "GPU-a")
        == powered.predict(GEMM, config, gpu)
    )
    assert powered.predict(GEMM, config, "GPU B") != powered.predict(GEMM, config, gpu)
    new_gpu = replace(
        gpu, name="a GPU of tomorrow", uuid="GPU-z", compute_units=200, dram_gbps=9000.0
    )
    assert math.isfinite(powered.predict(GEMM, config, new_gpu).runtime_us)


def test_without_a_configuration_a_cpu_uses_its_blas(timed: Predictor) -> None:
    assert timed.predict(GEMM) == timed.predict(GEMM, KernelConfig(family="blas"))


def test_an_unclear_device_is_refused(powered: Predictor) -> None:
    rules = {
        None: "must be given: the model has several",
        "GPU Z": "is no known device",
    }
    for name, rule in rules.items():
        with pytest.raises(InputError) as caught:
            powered.predict(GEMM, KernelConfig(family="cublas"), name)
        way_out = "name one of: GPU A, GPU B; or give a Device"
        assert str(caught.value) == f"device = {name!r}: {rule}; {way_out}"


def test_one_device_needs_no_name(timed: Predictor, cpu: Device) -> None:
    config = KernelConfig(family="blas", cpu_threads=2)
    assert (
        timed.predict(GEMM, config)
        == timed.predict(GEMM, config, cpu)
        != timed.predict(GEMM, replace(config, cpu_threads=1))
    )


def test_a_dtype_that_was_never_measured_is_refused(powered: Predictor) -> None:
    bf16 = replace(GEMM, dtype="bf16")
    for ask in (
        lambda: powered.predict(bf16, TILES[0], "GPU A"),
        lambda: powered.pick(bf16, TILES, device="GPU A"),
    ):
        with pytest.raises(
            InputError,
            match=r"dtype = 'bf16': device GPU A has no measured peak for it "
            r"\(measured: fp16, fp32\)",
        ):
            ask()
    with pytest.raises(InputError, match="cache = 'hot': unknown cache state"):
        powered.predict(GEMM, TILES[0], "GPU A", cache="hot")


def test_a_directory_answers_as_the_file_does_and_knows_its_own_device(
    tmp_path: Path, power_model: bytes, powered: Predictor, gpu: Device
) -> None:
    modeldir.put_model(tmp_path, power_model, "7")
    here = replace(gpu, uuid="GPU-here", dram_gbps=2900.0)
    modeldir.put_device(tmp_path, here)
    with Predictor(tmp_path) as predictor:
        assert (predictor.version, predictor.devices) == ("7", [here, *powered.devices])
        unnamed = predictor.predict(GEMM, TILES[0])
        assert unnamed == replace(powered.predict(GEMM, TILES[0], here), model_version="7")
        assert predictor.predict(GEMM, TILES[0], "GPU A") == unnamed, (
            "the device of this node comes first"
        )


# threads and life


def test_threads_may_share_one_predictor(powered: Predictor, gpu: Device, draw: Draw) -> None:
    drawn = draw(gpu, 64, seed=6)
    expected, batch = (
        [powered.predict(gemm, config, gpu) for gemm, config in drawn],
        powered.predict_batch(drawn, gpu),
    )
    ranked = powered.rank(GEMM, TILES, device=gpu)
    start = threading.Barrier(6)

    def work(number: int) -> bool:
        start.wait()
        order = [(i + 11 * number) % len(drawn) for i in range(len(drawn))] * 5
        right = all(powered.predict(*drawn[i], gpu) == expected[i] for i in order)
        return (
            right
            and powered.rank(GEMM, TILES, device=gpu) == ranked
            and powered.predict_batch(drawn, gpu) == batch
        )

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(6))) == [True] * 6


def test_closed_it_still_answers_and_follows_no_more(
    tmp_path: Path, power_model: bytes, edit: Callable[..., bytes], gpu: Device
) -> None:
    modeldir.put_model(tmp_path, power_model, "1")
    before = threading.active_count()
    with Predictor(tmp_path, refresh_s=0.01) as predictor:
        assert threading.active_count() == before + 1
        prediction = predictor.predict(GEMM, TILES[0], gpu)
    assert threading.active_count() == before
    modeldir.put_model(tmp_path, edit(power_model, faster=0.5), "2")
    threading.Event().wait(0.05)
    assert predictor.predict(GEMM, TILES[0], gpu) == prediction
    predictor.close()
