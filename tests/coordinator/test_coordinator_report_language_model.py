"""Sections about a language model: what it costs on each device, and what a model would choose."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from coordinator.report import language_model
from coordinator.report.html import write_report
from coordinator.report.language_figures import gains_by_shape, time_and_energy, winning_tiles
from coordinator.report.language_model import LanguageModelCase, language_model_sections
from coordinator.report.winning_tiles import known_family, shape_gains, tile_map
from gemmcast import Gemm, InputError, Predictor
from gemmcast.arrow import SCHEMA
from gemmcast.candidates import candidates, default_config
from gemmcast.carbon import Rates, energy_of
from gemmcast.forward_pass import costs_on_devices, pass_cost
from gemmcast.language_models import LanguageModel, Step

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "vocab_size": 32000,
}
"""A small Llama."""
GEMM = Gemm(m=64, n=2048, k=2048, dtype="bf16", layout="nt")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor()


def test_the_map_shows_the_first_of_the_ranking(predictor: Predictor) -> None:
    device = predictor.device("h100")
    shown = tile_map(predictor, device, GEMM, "cutlass", rows=(64, 4096), columns=(2048,))
    for m, (tile,) in zip((64, 4096), shown.tiles, strict=True):
        gemm = replace(GEMM, m=m)
        configs = candidates(gemm, device, ["cutlass"])
        best = predictor.pick(gemm, configs, "time", device).config
        assert tile is not None
        assert (tile.m, tile.n) == (best.tile_m, best.tile_n)


def test_the_gain_is_that_over_the_family_s_default(predictor: Predictor) -> None:
    device = predictor.device("h100")
    model = LanguageModel.of(CONFIG)
    gains = shape_gains(predictor, device, model, [Step(64), Step(4096)], "cutlass")
    assert list(gains.gains) == ["qkv", "o", "gate_up", "down", "lm_head"]
    default = default_config("cutlass", GEMM, device)
    best = predictor.pick(GEMM, candidates(GEMM, device, ["cutlass"]), "time", device)
    before_us = predictor.predict(GEMM, default, device).runtime_us
    gain = gains.gains["o"][0]
    assert gain == pytest.approx(before_us / best.prediction.runtime_us, rel=1e-5)
    assert min(value for values in gains.gains.values() for value in values if value) >= 1


def test_what_the_model_has_not_seen_is_not_shown(predictor: Predictor) -> None:
    device = predictor.device("h100")
    assert known_family(predictor, device, GEMM) in ("triton", "cutlass")
    assert known_family(predictor, device, replace(GEMM, dtype="fp64")) is None
    outside = tile_map(predictor, device, GEMM, "cutlass", rows=(2**23,), columns=(2048,))
    assert outside.tiles == [[None]]


def test_figures_have_a_panel_for_each(predictor: Predictor) -> None:
    device = predictor.device("h100")
    model = LanguageModel.of(CONFIG)
    steps = [Step(tokens) for tokens in (1, 16, 64, 256, 1024)]
    passes, _ = costs_on_devices(predictor, [device], [model], steps)
    # Further numbers of tokens are in the table only.
    titles = [axes.get_title() for axes in time_and_energy(passes).axes]
    assert titles == ["tokens: 1", "tokens: 16", "tokens: 64", "tokens: 256"]
    gains = shape_gains(predictor, device, model, steps[:1], "cutlass")
    (axes,) = gains_by_shape([gains, gains]).axes[:1]
    assert [line.get_label() for line in axes.lines[:2]] == ["qkv", "o"]
    tiles = tile_map(predictor, device, GEMM, "cutlass", rows=(64, 128), columns=(2048,))
    (axes,) = winning_tiles([tiles]).axes
    assert len(axes.texts) == 2


def test_the_report_has_a_table_and_three_pictures(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    case = LanguageModelCase.read(config, "16,256", "1, 2")
    costs, choice = language_model_sections(case, None)
    (table,) = costs.tables
    assert [row[0] for row in table.rows].count("256") == len(table.rows) / 2
    assert {row[2] for row in table.rows} == {"1", "2"}
    fronts = [row[-1] for row in table.rows if row[0] == "16"]
    assert "yes" in fronts
    assert "" in fronts
    assert not [name for name in table.header if "million" in name]
    assert "GEMMs only" in costs.texts[0]
    assert len(costs.pictures) == 1
    assert len(choice.pictures) == 2
    assert "nothing was measured" in choice.texts[0]


def test_a_pass_has_its_price_and_what_it_emits(predictor: Predictor) -> None:
    rates = Rates(kwh_price=0.25, gco2_per_kwh=380)
    case = LanguageModelCase(config=CONFIG, tokens=[16], tps=[2], rates=rates)
    costs = language_model_sections(case, None)[0]
    (table,) = costs.tables
    assert table.header[-3:-1] == ["cost of a million passes", "gCO2e of a million passes"]
    model = LanguageModel.of(CONFIG, tp=2)
    for row in table.rows:
        cost = pass_cost(predictor, predictor.device(row[1]), model, Step(16)).total
        amounts = [amount.text for amount in rates.amounts(energy_of(cost)).values() if amount]
        assert row[-3:-1] == amounts
    assert "a price of 0.25 a kWh" in costs.texts[-1]
    assert "380 gCO2e a kWh" in costs.texts[-1]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="--tp = '1;2': must be whole numbers"):
        LanguageModelCase.read(tmp_path, "1", "1;2")


def test_a_case_that_can_not_be_listed_is_refused_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for tokens, tp, message in (("0", "1", "tokens = 0"), ("1", "3", "tp = 3")):
        with pytest.raises(InputError, match=message):
            LanguageModelCase.read(tmp_path, tokens, tp)


def test_of_a_model_of_cpus_the_shipped_one_answers(
    monkeypatch: pytest.MonkeyPatch, predictor: Predictor
) -> None:
    def without_dtype(*_: object) -> NoReturn:
        raise InputError("dtype", "bf16", "device CPU has no measured peak for it")

    monkeypatch.setattr(language_model, "_sections_by", without_dtype)
    costs, _ = language_model_sections(LanguageModelCase(config=CONFIG), b"of a CPU")
    assert f"predicted by model {predictor.version}" in costs.texts[0]


def test_a_report_without_a_language_model_has_no_such_section(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, SCHEMA.empty_table(), None)
    assert "A language model" not in path.read_text()


def test_a_configuration_that_cannot_be_listed_writes_no_report(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    case = LanguageModelCase(config={**CONFIG, "architectures": ["FooForCausalLM"]})
    with pytest.raises(InputError, match="known are LlamaForCausalLM"):
        write_report(path, SCHEMA.empty_table(), None, case)
    assert not path.exists()
