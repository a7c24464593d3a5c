"""The nouns: what they refuse and how they say it; what names them for good."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gemmcast.card import ModelCard
from gemmcast.cell import Cell
from gemmcast.config import FAMILIES, KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import GemmcastError, InputError, MeasurementError, ModelFileError
from gemmcast.gemm import DTYPES, LAYOUTS, MAX_DIM, Gemm
from gemmcast.prediction import Prediction


def refusal(make: Callable[..., object], **values: Any) -> str:
    """The message, which must hold field, value, rule and way out."""
    with pytest.raises(InputError) as caught:
        make(**values)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.rule and error.way_out
    assert str(error) == f"{error.field} = {error.value!r}: {error.rule}; {error.way_out}"
    return str(error)


@pytest.mark.parametrize("field", ["m", "n", "k", "batch"])
@pytest.mark.parametrize("value", [0, -1, MAX_DIM + 1, 2.0, "8", None, True])
def test_gemm_refuses_a_size_that_is_no_whole_number_in_range(field: str, value: object) -> None:
    message = refusal(Gemm, **{"m": 1, "n": 1, "k": 1, field: value})
    assert (
        message
        == f"{field} = {value!r}: must be a whole number from 1 to {MAX_DIM}; correct the shape"
    )


def test_gemm_names_the_dtypes_and_layouts_it_knows() -> None:
    assert (
        refusal(Gemm, m=1, n=1, k=1, dtype="int4")
        == f"dtype = 'int4': unknown dtype; use one of {', '.join(DTYPES)}"
    )
    assert (
        refusal(Gemm, m=1, n=1, k=1, layout="NN")
        == f"layout = 'NN': unknown layout; use one of {', '.join(LAYOUTS)}"
    )


@pytest.mark.parametrize("field", ["alpha", "beta"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1.0", None])
def test_gemm_refuses_a_scale_that_is_no_finite_number(field: str, value: object) -> None:
    assert (
        refusal(Gemm, m=1, n=1, k=1, **{field: value})
        == f"{field} = {value!r}: must be finite; give a number"
    )


def test_gemm_counts() -> None:
    gemm = Gemm(m=3, n=5, k=7, batch=2, dtype="fp8_e4m3")
    assert gemm.flops == 2 * 3 * 5 * 7 * 2
    assert gemm.operand_bytes == 2 * (3 * 7 * 1 + 7 * 5 * 1 + 3 * 5 * 2)
    assert (gemm.shape_key, str(gemm)) == ("3x5x7x2", "2x 3x5x7 fp8_e4m3 nn")


def test_config_names_the_families_it_knows() -> None:
    assert (
        refusal(KernelConfig, family="cuda")
        == f"family = 'cuda': unknown kernel family; use one of {', '.join(FAMILIES)}"
    )


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("value", [-1, 2**24, 1.0, "16", None, True])
def test_config_refuses_a_knob_that_is_no_whole_number(knob: str, value: object) -> None:
    message = refusal(KernelConfig, family="tiled", **{knob: value})
    assert (
        message == f"{knob} = {value!r}: must be a whole number from 0 (unknown) to 16777215; "
        "correct the configuration"
    )


def test_config_refuses_a_knob_that_is_given_twice() -> None:
    with pytest.raises(InputError, match="'tile_m' stands there twice"):
        KernelConfig.parse("tiled:tile_m=16,tile_m=32")


def test_config_shows_what_is_known_of_it() -> None:
    assert (
        str(KernelConfig(family="tiled", kernel="naive", tile_m=16, stages=2))
        == "tiled:kernel=naive,tile_m=16,stages=2"
    )


def test_device_refuses_a_kind_it_does_not_know(gpu: Device) -> None:
    assert (
        refusal(partial(replace, gpu), kind="gpu")
        == "kind = 'gpu': unknown kind of device; use one of cuda, cpu"
    )


@pytest.mark.parametrize(
    "field",
    [
        "compute_units",
        "memory_bytes",
        "l2_bytes",
        "dram_gbps",
        "empty_kernel_us",
        "empty_launch_us",
        "clock_max_mhz",
        "power_limit_w",
    ],
)
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "132", True])
def test_device_refuses_a_number_that_no_device_has(gpu: Device, field: str, value: object) -> None:
    message = refusal(partial(replace, gpu), **{field: value})
    assert (
        message == f"{field} = {value!r}: must be a finite number, not negative; "
        "correct the device description"
    )


def test_device_refuses_a_peak_that_is_no_number(gpu: Device) -> None:
    assert refusal(partial(replace, gpu), peak_tflops={"fp32": -1}).startswith(
        "peak_tflops['fp32'] = -1: must be a finite number"
    )


def test_device_survives_json(gpu: Device, cpu: Device) -> None:
    for device in (gpu, cpu):
        assert Device.from_json(device.to_json()) == device
    assert (gpu.has_power, cpu.has_power) == (True, False)
    newer = json.dumps({**json.loads(gpu.to_json()), "a_field_of_tomorrow": 1})
    assert Device.from_json(newer) == gpu


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"name": "x"}'])
def test_device_refuses_other_json(text: str) -> None:
    message = refusal(Device.from_json, text=text)
    assert (
        message.startswith("device = ")
        and "not a device description" in message
        and "gemmcast info --json" in message
    )


def test_errors_about_a_file_of_a_device_name_the_file(gpu: Device, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    wrong = {**json.loads(gpu.to_json()), "compute_units": -1}
    for text, reason in (("m,n,k", "Expecting value"), (json.dumps(wrong), "compute_units = -1")):
        path.write_text(text)
        message = refusal(Device.read, path=path)
        assert message.startswith(f"--device = '{path}': not a device description ({reason}")


def test_cell_ids_are_for_ever() -> None:
    """A change here means that every store measures everything again."""
    cell = Cell(
        gemm=Gemm(m=4096, n=11008, k=4096, dtype="bf16"),
        config=KernelConfig(family="cublas"),
        device_key="NVIDIA H100 80GB HBM3",
        power=True,
    )
    assert cell.cell_id == "562cde0ecdc8e148"
    assert pickle.loads(pickle.dumps(cell)).cell_id == cell.cell_id


def test_every_part_of_a_cell_is_in_its_id() -> None:
    tiled: Callable[..., KernelConfig] = partial(KernelConfig, family="tiled")
    gemm = Gemm(m=1, n=2, k=3)
    cell = Cell(gemm=gemm, config=tiled(), device_key="x")
    others = [
        *(
            replace(cell, gemm=changed)
            for changed in (
                replace(gemm, m=9),
                replace(gemm, dtype="fp64"),
                replace(gemm, beta=1.0),
            )
        ),
        *(replace(cell, config=tiled(**{name: 1})) for name in KNOBS if name != "cpu_threads"),
        replace(cell, config=KernelConfig(family="blas")),
        replace(cell, config=KernelConfig(family="blas", cpu_threads=1)),
        replace(cell, config=tiled(kernel="other")),
        replace(cell, device_key="y"),
        replace(cell, cache="warm"),
        replace(cell, power=True),
        replace(cell, repeat=1),
    ]
    assert len({cell.cell_id, *(other.cell_id for other in others)}) == len(others) + 1


def test_equal_problems_have_one_cell_id() -> None:
    """1 and 1.0 are equal, and the store gives back 1.0 for either."""
    whole, real = (Gemm(m=1, n=2, k=3, alpha=one, beta=one) for one in (1, 1.0))
    config = KernelConfig(family="blas")
    assert whole == real
    assert (
        Cell(gemm=whole, config=config, device_key="x").cell_id
        == Cell(gemm=real, config=config, device_key="x").cell_id
    )


def test_errors_survive_a_process_border_and_stay_short() -> None:
    for error in (InputError("m", 0, "rule", "way out"), ModelFileError("model", "x.onnx", "rule")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.field, again.value) == (
            type(error),
            str(error),
            error.field,
            error.value,
        )
    assert len(str(InputError("text", "x" * 10_000, "too long"))) < 250
    measurement = MeasurementError("timeout", "60 s")
    assert isinstance(measurement, GemmcastError) and not isinstance(measurement, ValueError)


def test_energy_delay_needs_energy() -> None:
    timed = Prediction(runtime_us=2.0, tflops=1.0)
    assert timed.edp_mj_us is None
    assert replace(timed, sustained_runtime_us=3.0, power_w=4.0, energy_mj=5.0).edp_mj_us == 15.0


def test_a_prediction_without_intervals_is_one() -> None:
    """Written by hand, as in a user's test: no intervals and no flag."""
    timed = Prediction(runtime_us=2.0, tflops=1.0)
    assert (timed.low, timed.high, timed.extrapolating) == ({}, {}, False)


def test_card_survives_json_and_refuses_other_text() -> None:
    card = ModelCard(
        created_at="2026-01-01T00:00:00+00:00",
        program_version="0.1.0",
        contract=2,
        targets=("runtime_us", "tflops"),
        rows=9,
        rows_by_device={"x": 9},
        store_version=3,
        split="by shape",
        holdout=0.2,
        train_rows=7,
        test_rows=2,
        train_shapes=5,
        test_shapes=1,
        scores={"runtime_us": {"model": {"mape": 3.1}}},
    )
    assert ModelCard.from_json(card.to_json()) == card
    for text in ("", "[]", "{}", '{"targets": []}'):
        with pytest.raises(ModelFileError, match="not a model card"):
            ModelCard.from_json(text)
