"""The models that come with gemmcast: found without a path, listed with what they may be asked."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemmcast import Gemm, InputError, KernelConfig, Predictor, models
from gemmcast.card import ModelCard
from gemmcast.cli import main
from gemmcast.cli_models import errors_by_split
from gemmcast.config import FAMILIES, library_config
from gemmcast.gemm import DTYPES
from gemmcast.score_table import summary_rows

H100 = "NVIDIA H100 80GB HBM3"
GEMM = Gemm(m=4096, n=4096, k=4096, dtype="bf16", layout="nt")
WORDS = ["4096", "4096", "4096", "--dtype", "bf16", "--layout", "nt"]
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """What a successful command prints."""

    def run(*words: str) -> str:
        assert main(words) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return run


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return models.card()


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return Predictor()


def test_a_predictor_without_a_path_uses_the_default_model(
    shipped: Predictor, card: ModelCard
) -> None:
    assert shipped.source == models.path() == models.path("default")
    assert shipped.version == card.sha256[:12]
    assert shipped.outputs == card.targets
    again = pickle.loads(pickle.dumps(shipped))
    config = KernelConfig(family="cublas")
    assert again.predict(GEMM, config, "h100") == shipped.predict(GEMM, config, "h100")


def test_an_unknown_model_is_refused_with_the_names() -> None:
    with pytest.raises(
        InputError, match="model = 'b100': .* use one of: default; or name an .onnx"
    ):
        models.path("b100")


def test_it_answers_about_all_that_it_lists(shipped: Predictor, card: ModelCard) -> None:
    """In the middle of what a family was measured with, every dtype and layout has an answer."""
    assert {"cublas", "cublaslt", "cutlass", "tiled"} <= set(card.scope[H100])
    for device, families in card.scope.items():
        assert shipped.device(device).name == device
        for family, asked in families.items():
            sizes = {name: sum(asked[name]) // 2 for name in ("m", "n", "k")}
            for dtype, layouts in asked["layouts"].items():
                gemms = [Gemm(**sizes, dtype=dtype, layout=layout) for layout in layouts]
                config = KernelConfig(family=family)
                answers = shipped.predict_batch([(gemm, config) for gemm in gemms], device)
                for answer in answers:
                    assert answer.runtime_us > 0 and answer.power_w and answer.power_w > 0


def test_without_a_configuration_the_library_chooses(shipped: Predictor) -> None:
    by_library = shipped.predict(GEMM, device="h100")
    assert by_library == shipped.predict(GEMM, KernelConfig(family="cublas"), "h100")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_librarys_own_choice_has_the_dtype(dtype: str) -> None:
    config = library_config(dtype, "cuda")
    assert dtype in FAMILIES[config.family].dtypes
    is_cublas = dtype not in ("fp8_e4m3", "int8")
    assert str(config) == ("cublas" if is_cublas else "cublaslt:kernel=default")
    assert library_config(dtype, "cpu") == KernelConfig(family="blas")


def test_commands_need_neither_a_model_nor_a_configuration(run: Run, shipped: Predictor) -> None:
    answer: dict[str, Any] = json.loads(run("predict", *WORDS, "--device", "h100", "--json"))
    expected = shipped.predict(GEMM, device=H100)
    assert answer["device"] == H100
    assert answer["config"]["family"] == "cublas"
    assert answer["prediction"]["runtime_us"] == expected.runtime_us
    first = run("predict", *WORDS, "--device", "H100_SXM").splitlines()[0]
    assert first == f"4096x4096x4096 bf16 nt  cublas  on {H100}"
    config = "cublaslt:algo_id=66,tile_m=128,tile_n=256"
    ranking = json.loads(run("rank", *WORDS, "--device", "h200", "cublas", config, "--json"))
    assert ranking["device"] == "NVIDIA H200"
    assert len(ranking["ranking"]) == 2
    picked = run("pick", *WORDS, "--device", "h200", "cublas", config)
    assert picked.startswith("4096x4096x4096 bf16 nt on NVIDIA H200, lowest time:  cublas")
    assert json.loads(run("info", "--json"))["version"] == shipped.version


def test_models_says_what_there_is_and_how_wrong(run: Run, card: ModelCard) -> None:
    (model,) = json.loads(run("models", "--json"))["models"]
    assert (model["name"], model["file"]) == ("default", str(models.path()))
    assert model["version"] == card.sha256[:12]
    assert model["scope"] == card.scope
    assert model["errors"]["shape"] == card.scores
    assert model["errors"]["layer"] == card.generalisation["layer"]["scores"]
    assert model["datasets"] == card.datasets


def test_models_shows_ranges_and_errors(run: Run, card: ModelCard) -> None:
    text = run("models")
    assert text.startswith(f"default: version {card.sha256[:12]}, ")
    low, high = card.scope[H100]["cublas"]["m"]
    lines = text.splitlines()
    of_cublas = lines[lines.index(H100) + 1 :][:3]
    assert of_cublas[0].split()[0] == "cublas"
    assert of_cublas[1].split()[0] == "dtypes" and "bf16 (" in of_cublas[1]
    assert f" m {low} to {high}, n " in of_cublas[2]
    table = lines[-len(errors_by_split(card)) :]
    for line, row in zip(table, summary_rows(errors_by_split(card)), strict=True):
        assert " ".join(line.split()) == " ".join(" ".join(row).split())
    assert max(map(len, lines)) <= 140


def test_a_model_whose_card_has_no_scope_is_listed(
    run: Run, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cards that are older than the field."""
    values = json.loads(card.to_json())
    del values["scope"], values["datasets"]
    (tmp_path / "old.json").write_text(json.dumps(values))
    (tmp_path / "old.onnx").write_bytes(b"not read")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    assert run("models").startswith("old: version ")


def test_what_the_library_can_not_multiply_is_doubted(shipped: Predictor) -> None:
    config = KernelConfig(family="cublaslt", kernel="default")
    for gemm, is_possible in (
        (Gemm(m=64, n=4096, k=4096, dtype="fp8_e4m3", layout="nt"), True),
        (Gemm(m=64, n=4100, k=4096, dtype="fp8_e4m3", layout="nt"), False),
        (Gemm(m=64, n=4096, k=4104, dtype="fp8_e4m3", layout="nt"), False),
    ):
        one = shipped.predict(gemm, device="h100")
        (batched,) = shipped.predict_batch([(gemm, config)], "h100")
        assert is_possible != one.extrapolating == batched.extrapolating


def test_a_device_that_two_words_name_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(Path(__file__).parents[2] / "examples" / "llama-3.1-8b.json")
    devices = ["--device", "h100", "--device", "H100-SXM"]
    assert main(["llm", config, "--tokens", "1", *devices, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["passes"]
    assert one["device"] == "NVIDIA H100 80GB HBM3"
