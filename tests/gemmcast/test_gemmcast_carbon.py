"""`--kwh-price` and `--gco2-per-kwh`: what the energy of GEMMs costs and emits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemmcast import carbon
from gemmcast.carbon import Interval, Rates
from gemmcast.cli import main
from gemmcast.errors import InputError
from gemmcast.prediction import Prediction

RATES = ["--kwh-price", "0.36", "--gco2-per-kwh", "360"]
"""So that a million times 1 mJ, 1,000 J, cost 0.0001 and emit 0.1 g."""
COST_PER_MJ, GRAMS_PER_MJ = 1e-4, 0.1


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What a command prints as JSON, and as text."""

    def run(*arguments: str) -> tuple[dict[str, Any], str]:
        assert main([*arguments, "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        assert main(list(arguments)) == 0
        return values, capsys.readouterr().out

    return run


def _is(amount: dict[str, float], energy: tuple[float, float, float], per_mj: float) -> bool:
    expected = [per_mj * number for number in energy]
    return [amount["value"], amount["low"], amount["high"]] == pytest.approx(expected, rel=1e-9)


def _prediction(energy_mj: float | None) -> Prediction:
    ends = {} if energy_mj is None else {"energy_mj": energy_mj}
    return Prediction(
        runtime_us=1.0,
        tflops=1.0,
        energy_mj=energy_mj,
        low={name: value / 2 for name, value in ends.items()},
        high={name: value * 2 for name, value in ends.items()},
    )


def test_a_kilowatt_hour_has_its_price() -> None:
    kwh_mj = 3.6e9
    amounts = Rates(kwh_price=0.25, gco2_per_kwh=380).amounts(Interval(kwh_mj, kwh_mj / 2, kwh_mj))
    assert amounts == {
        "cost": Interval(0.25e6, 0.125e6, 0.25e6),
        "gco2e": Interval(380e6, 190e6, 380e6),
    }


def test_a_list_is_a_weighted_sum_of_the_ends() -> None:
    listed = [(3.0, _prediction(10.0)), (1.0, _prediction(4.0))]
    assert carbon.energy_of_list(listed) == Interval(34.0, 17.0, 68.0)


def test_one_unknown_energy_makes_the_sum_unknown() -> None:
    assert carbon.energy_of_list([(1.0, _prediction(10.0)), (1.0, _prediction(None))]) is None
    assert list(Rates(gco2_per_kwh=380).lines(None, "lists")) == [
        "gCO2e of a million lists: unknown, because no energy is predicted"
    ]


def test_of_one_gemm(answer: Callable[..., Any]) -> None:
    question = ["512", "512", "512", "--dtype", "bf16", "--device", "h100"]
    for command in ("predict", "pick"):
        values, text = answer(command, *question, *RATES)
        cost = values["prediction"]
        energy = cost["energy_mj"], cost["low"]["energy_mj"], cost["high"]["energy_mj"]
        assert values["carbon"]["times"] == 1_000_000
        assert values["carbon"]["rates"] == {"cost": 0.36, "gco2e": 360}
        assert _is(values["carbon"]["cost"], energy, COST_PER_MJ)
        assert _is(values["carbon"]["gco2e"], energy, GRAMS_PER_MJ)
        lines = [line for line in text.splitlines() if "of a million launches: " in line]
        assert len(lines) == 2
        assert lines[0].startswith("cost of ") and lines[1].startswith("gCO2e of ")


def test_without_the_options_nothing_is_said(answer: Callable[..., Any]) -> None:
    values, text = answer("predict", "512", "512", "512", "--dtype", "bf16", "--device", "h100")
    assert "carbon" not in values
    assert "million" not in text


def test_of_a_list(answer: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "gemms.csv"
    path.write_text("m,n,k,dtype,weight\n512,512,512,bf16,3\n4096,4096,512,fp16,1\n")
    options = ["--gemms", str(path), "--device", "h100", "--families", "cublas,cutlass"]
    values, text = answer("pick", *options, "--gco2-per-kwh", "360")
    total = [0.0, 0.0, 0.0]
    for one in values["gemms"]:
        cost, weight = one["prediction"], one["listed"]["weight"]
        total[0] += weight * cost["energy_mj"]
        total[1] += weight * cost["low"]["energy_mj"]
        total[2] += weight * cost["high"]["energy_mj"]
    assert "cost" not in values["carbon"]
    assert _is(values["carbon"]["gco2e"], (total[0], total[1], total[2]), GRAMS_PER_MJ)
    assert "of a million lists: " in text
    assert "of a million lists with the defaults: " in text


def test_of_a_forward_pass(answer: Callable[..., Any], tmp_path: Path) -> None:
    configs = json.loads(Path(__file__).with_name("language_model_configs.json").read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(next(iter(configs.values()))))
    options = [str(path), "--tokens", "16", "--tp", "2", "--device", "h100"]
    values, text = answer("llm", *options, "--gco2-per-kwh", "360")
    (one,) = values["passes"]
    total = one["total"]
    energy = total["energy_mj"], total["low"]["energy_mj"], total["high"]["energy_mj"]
    assert _is(one["carbon"]["gco2e"], energy, GRAMS_PER_MJ)
    assert "of a million passes: " in text


def test_of_a_tuning() -> None:
    rates = Rates(gco2_per_kwh=360)
    assert list(rates.change_lines((10.0, 8.0), "lists")) == ["gCO2e of a million lists: 1 -> 0.8"]
    (change,) = [rates.change_values((10.0, 8.0))["carbon"]]
    assert isinstance(change, dict)
    assert change["gco2e"] == pytest.approx({"before": 1.0, "after": 0.8})
    assert Rates().change_values((10.0, 8.0)) == {}


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
@pytest.mark.parametrize("option", ["--kwh-price", "--gco2-per-kwh"])
def test_what_is_no_rate_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    question = ["predict", "512", "512", "512", "--device", "h100", f"{option}={value}"]
    assert main(question) == 2
    error = capsys.readouterr().err
    rule = "must be a finite number, not negative"
    assert error.startswith(f"error: {option} = {float(value)}: {rule}; give ")
    assert error.count("\n") == 1


def test_rates_of_python_are_checked_too() -> None:
    with pytest.raises(InputError, match="--kwh-price"):
        Rates(kwh_price=-0.1)
