"""What a forward pass costs: sums of the GEMMs' predictions, and `gemmcast llm`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemmcast import Device, InputError, KernelConfig, Predictor
from gemmcast.cli import main
from gemmcast.forward_pass import Cost, PassCost, costs_on_devices, pareto, pass_cost
from gemmcast.gemm_list import read_gemms
from gemmcast.language_models import LanguageModel, Step, gemms_of

FILE = Path(__file__).with_name("language_model_configs.json")
CONFIGS: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor()


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS["deepseek-v3"]))
    return path


def cost_of(predictor: Predictor, name: str, tp: int = 1, **options: Any) -> PassCost:
    model = LanguageModel.of(CONFIGS[name], tp=tp)
    return pass_cost(predictor, predictor.device(H100), model, Step(16), **options)


@pytest.mark.parametrize("tp", [1, 4])
def test_a_pass_is_the_sum_of_its_launches(predictor: Predictor, tp: int) -> None:
    total = cost_of(predictor, "llama-3.1-8b", tp).total
    runtime_us = energy_mj = low_us = high_us = 0.0
    for one in gemms_of(CONFIGS["llama-3.1-8b"], tokens=16, tp=tp):
        launch = predictor.predict(one.gemm, device=H100)
        assert launch.energy_mj is not None
        runtime_us += one.weight * launch.runtime_us
        low_us += one.weight * launch.low["runtime_us"]
        high_us += one.weight * launch.high["runtime_us"]
        # Energy is that of all GPUs, time that of one.
        energy_mj += tp * one.weight * launch.energy_mj
    assert total.runtime_us == pytest.approx(runtime_us, rel=1e-5)
    assert total.energy_mj == pytest.approx(energy_mj, rel=1e-5)
    assert total.low["runtime_us"] == pytest.approx(low_us, rel=1e-5)
    assert total.high["runtime_us"] == pytest.approx(high_us, rel=1e-5)


def test_layers_and_lm_head_are_the_pass(predictor: Predictor) -> None:
    cost = cost_of(predictor, "deepseek-v3", tp=8)
    assert [(layer.name, layer.count) for layer in cost.layers] == [
        ("dense layer", 3),
        ("expert layer", 58),
    ]
    layers_us = sum(layer.count * layer.cost.runtime_us for layer in cost.layers)
    head = cost.gemms[-1]
    assert head.listed.name == "lm_head"
    expected = layers_us + head.prediction.runtime_us
    assert cost.total.runtime_us == pytest.approx(expected)


def test_a_family_computes_what_it_can(predictor: Predictor) -> None:
    cost = cost_of(predictor, "qwen2-57b-a14b", family="triton")
    kernels = {one.listed.name: (one.config.family, one.config.kernel) for one in cost.gemms}
    assert kernels["qkv"] == ("triton", "matmul")
    assert kernels["experts.down"] == ("triton", "grouped")
    # n = 1 is none of Triton's multiples of 16.
    assert kernels["shared.gate"] == ("cublas", "")


def test_weights_that_do_not_fit(predictor: Predictor) -> None:
    assert cost_of(predictor, "llama-3.1-8b").fits
    assert not cost_of(predictor, "llama-3.1-70b").fits
    assert cost_of(predictor, "llama-3.1-70b", tp=2).fits


def test_a_device_without_a_power_limit_has_no_energy(predictor: Predictor) -> None:
    device = replace(predictor.device(H100), power_limit_w=None)
    model = LanguageModel.of(CONFIGS["llama-3.1-8b"])
    total = pass_cost(predictor, device, model, Step(1)).total
    assert total.energy_mj is None
    assert "energy_mj" not in total.low
    assert total.runtime_us > 0


def one_pass(time_us: float, energy_mj: float | None, fits: bool = True) -> PassCost:
    total = Cost(
        runtime_us=time_us, sustained_runtime_us=time_us, energy_mj=energy_mj, low={}, high={}
    )
    return PassCost(
        device="GPU",
        tp=1,
        tokens=1,
        sequences=1,
        total=total,
        layers=[],
        gemms=[],
        weight_bytes=1.0,
        fits=fits,
    )


def test_the_front_of_time_and_energy() -> None:
    fast = one_pass(1.0, 9.0)
    cheap = one_pass(3.0, 2.0)
    worse = one_pass(4.0, 2.0)
    as_fast = one_pass(1.0, 9.5)
    too_large = one_pass(0.5, 1.0, fits=False)
    unmetered = one_pass(0.5, None)
    front = pareto([worse, cheap, too_large, as_fast, unmetered, fast])
    assert [id(one) for one in front] == [id(fast), id(cheap)]


def test_devices_without_the_dtype_are_left_out(predictor: Predictor) -> None:
    devices = [predictor.device("h100"), predictor.device("h200")]
    model = LanguageModel.of(CONFIGS["llama-3.1-8b"], dtype="int8")
    passes, reasons = costs_on_devices(predictor, devices, [model], [Step(16)])
    assert [one.device for one in passes] == ["NVIDIA H200"]
    assert list(reasons) == [H100]
    assert "int8" in reasons[H100]
    model = LanguageModel.of(CONFIGS["llama-3.1-8b"], dtype="fp64")
    with pytest.raises(InputError, match="fp64"):
        costs_on_devices(predictor, devices, [model], [Step(16)])


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    return out.out


def test_every_device_tp_and_number_of_tokens(
    capsys: pytest.CaptureFixture[str], config_path: Path
) -> None:
    devices = ("--device", "h100", "--device", "h200")
    words = ("llm", config_path, "--tokens", "1,32", "--tp", "8,16", *devices)
    values = json.loads(printed(capsys, *words, "--json"))
    passes = values["passes"]
    assert [(one["tokens"], one["device"], one["tp"]) for one in passes] == [
        (tokens, device, tp)
        for tokens in (1, 32)
        for device in (H100, "NVIDIA H200")
        for tp in (8, 16)
    ]
    assert values["architecture"] == "DeepseekV3ForCausalLM"
    assert "GEMMs only" in values["note"]
    # 80 GiB of weights do not fit on an H100, and an H200 is faster than it on as many GPUs.
    assert [one["pareto"] for one in passes] == 2 * [False, False, True, True]


def test_every_device_of_the_model_by_default(
    capsys: pytest.CaptureFixture[str], config_path: Path, predictor: Predictor
) -> None:
    values = json.loads(printed(capsys, "llm", config_path, "--tokens", 1, "--json"))
    priced = {one["device"] for one in values["passes"]}
    known = {device.name for device in predictor.devices}
    assert priced | set(values["left_out"]) == known
    assert len(priced) > 1


def test_the_text_says_what_it_is_and_what_it_is_not(
    capsys: pytest.CaptureFixture[str], config_path: Path
) -> None:
    text = printed(capsys, "llm", config_path, "--tokens", 64, "--sequences", 2, "--tp", 8)
    assert "attention, norms, communication" in text
    assert "tokens: 64, rows of lm_head: 2" in text
    assert "one expert layer of 58" in text
    assert "does not fit: 80 GiB of weights on each GPU" in text
    assert "8 x NVIDIA H200 *" in text


def test_costs_that_are_too_high_are_said_to_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS["gpt-oss-120b"]))
    words = ("llm", path, "--tokens", 1, "--device", "h200")
    assert "Experts are stored in mxfp4 and counted as if in bf16" in printed(capsys, *words)
    assert "mxfp4" in json.loads(printed(capsys, *words, "--json"))["note"]


def test_a_device_from_a_file_without_a_power_limit(
    capsys: pytest.CaptureFixture[str], config_path: Path, predictor: Predictor, tmp_path: Path
) -> None:
    device = replace(predictor.device(H100), name="unmetered", power_limit_w=None)
    path = tmp_path / "device.json"
    path.write_text(device.to_json())
    text = printed(capsys, "llm", config_path, "--tokens", 16, "--tp", 16, "--device", path)
    (line,) = [line for line in text.splitlines() if line.startswith("16 x unmetered")]
    assert line.endswith("unknown")
    assert "*" not in line


def test_a_listed_model_can_be_read_back(
    capsys: pytest.CaptureFixture[str], config_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "gemms.csv"
    words = ("llm", config_path, "--tokens", "1,32", "--tp", 8, "--list")
    path.write_text(printed(capsys, *words))
    assert read_gemms(path) == gemms_of(CONFIGS["deepseek-v3"], tokens=[1, 32], tp=8)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["--tokens", "1,x"],
            "--tokens = '1,x': must be whole numbers of at most 8 digits; write them as 1,16,256",
        ),
        (["--tokens", "0"], "tokens = 0: must be a whole number, 1 or more"),
        (["--tp", "3"], "num_attention_heads = 128 can't be divided by it"),
        (["--device", "v100"], "device = 'v100': is no known device"),
        (["--family", "foo"], "families = 'foo': unknown kernel family"),
        (["--sequences", "9", "--tokens", "8"], "sequences = 9: there are 8 tokens"),
    ],
)
def test_bad_input(
    capsys: pytest.CaptureFixture[str], config_path: Path, words: list[str], error: str
) -> None:
    assert main(["llm", str(config_path), *words]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert error in out.err
    assert out.err.count("\n") == 1


def test_an_imagined_device(predictor: Predictor) -> None:
    """A description is enough; its name need not be known."""
    device: Device = replace(predictor.device(H100), name="imagined")
    model = LanguageModel.of(CONFIGS["llama-3.1-8b"])
    cost = pass_cost(predictor, device, model, Step(1))
    assert cost.device == "imagined"
    assert cost.gemms[0].config == KernelConfig(family="cublas")
