"""Short names of devices: what they mean, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gemmcast import Gemm, InputError, KernelConfig, Predictor
from gemmcast.device import Device
from gemmcast.device_names import chosen, fitting

H100 = "NVIDIA H100 80GB HBM3"
H100_500 = "NVIDIA H100 80GB HBM3 (500 W)"
H100_SLICE = "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
H100_PCIE = "NVIDIA H100 PCIe"
H100_NVL = "NVIDIA H100 NVL"
H200 = "NVIDIA H200"
H200_NVL = "NVIDIA H200 NVL"
H20 = "NVIDIA H20"
GH200 = "NVIDIA GH200 480GB"
A100 = "NVIDIA A100-SXM4-80GB"
A100_40 = "NVIDIA A100-SXM4-40GB"
EVERY = [
    H100,
    H100_500,
    H100_SLICE,
    H100_PCIE,
    H100_NVL,
    H200,
    H200_NVL,
    H20,
    GH200,
    A100,
    A100_40,
]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((name, name) for name in EVERY),
        (H100.lower(), H100),
        ("h100-sxm", H100),
        ("H100_SXM", H100),
        ("h100_sxm5", H100),
        ("h100 500 w", H100_500),
        ("h100-pcie", H100_PCIE),
        ("nvl h100", H100_NVL),
        ("h100 mig", H100_SLICE),
        ("h200-sxm", H200),
        ("nvidia-h200", H200),
        ("h20", H20),
        ("gh200", GH200),
        ("a100_80gb", A100),
        ("A100-SXM4-40GB", A100_40),
    ],
)
def test_words_of_a_name_mean_one_device(text: str, name: str) -> None:
    assert fitting(text, EVERY) == [name]
    assert chosen("device", text, reversed(EVERY)) == name


def test_of_names_with_the_same_words_each_means_itself_alone() -> None:
    names = ["GPU A", "gpu-a", "GPU B"]
    assert [fitting(name, names) for name in names] == [["GPU A"], ["gpu-a"], ["GPU B"]]
    assert fitting("gpu_a", names) == ["GPU A", "gpu-a"]


@pytest.mark.parametrize("text", ["h100", "H100", "h100 sxm", "hbm3", "nvidia 80gb"])
def test_the_plain_name_comes_before_the_same_device_under_other_conditions(text: str) -> None:
    assert chosen("device", text, [H100_500, H100_SLICE, H100, H200]) == H100


@pytest.mark.parametrize(
    ("text", "candidates"),
    [("h100", f"{H100}, {H100_500}, {H100_NVL}, {H100_PCIE}"), ("A100", f"{A100_40}, {A100}")],
)
def test_what_several_devices_fit_is_refused_with_their_names(text: str, candidates: str) -> None:
    with pytest.raises(InputError) as refused:
        chosen("--device", text, EVERY, "or a file")
    message = f"--device = '{text}': fits several devices; name one of: {candidates}; or a file"
    assert str(refused.value) == message


@pytest.mark.parametrize("text", ["", "-", "h1", "h10", "00", "h300", "h100 h200", "sxm100"])
def test_what_no_device_fits_is_refused_with_all_names(text: str) -> None:
    assert fitting(text, EVERY) == []
    with pytest.raises(InputError, match=f"is no known device; name one of: {H100}, {H200}$"):
        chosen("device", text, [H200, H100])


def test_a_slice_is_never_meant_by_the_name_of_its_gpu() -> None:
    assert fitting("h100", [H100_SLICE, H200]) == []
    assert fitting("h100-mig", [H100_SLICE, H200]) == [H100_SLICE]


def test_a_predictor_takes_short_names(
    power_model: bytes, gpu: Device, edit: Callable[..., bytes], tmp_path: Path
) -> None:
    devices = [replace(gpu, name=H100), replace(gpu, name=H200, uuid="GPU-b", dram_gbps=4000.0)]
    path = tmp_path / "model.onnx"
    path.write_bytes(edit(power_model, devices=json.dumps([asdict(one) for one in devices])))
    gemm, config = Gemm(m=512, n=256, k=128), KernelConfig(family="tiled", tile_m=16)
    with Predictor(path) as predictor:
        assert [predictor.device(name) for name in ("h100", "H200_SXM")] == devices
        assert predictor.device(devices[1]) == devices[1]
        by_short_name = predictor.predict(gemm, config, "h200")
        assert by_short_name == predictor.predict(gemm, config, H200)
        assert by_short_name != predictor.predict(gemm, config, "h100")
        assert predictor.rank(gemm, [config], device="h200")[0].prediction.runtime_us > 0
        (of_batch,) = predictor.predict_batch([(gemm, config)], "h200-sxm")
        assert of_batch.runtime_us == pytest.approx(by_short_name.runtime_us, rel=1e-5)
        with pytest.raises(InputError, match="fits several devices"):
            predictor.predict(gemm, config, "nvidia")
