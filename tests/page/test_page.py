"""The page that asks the model in the browser: used in Chromium and in Node, beside Python.

tests/page/drive.mjs does what a user does and prints what it saw. Screenshots lie in
$PAGE_SCREENSHOTS, or in a folder of the test's own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlencode

import pytest

from gemmcast.candidates import default_config, predictable, refusal
from gemmcast.carbon import Interval, Rates, energy_of, energy_of_list
from gemmcast.config import KernelConfig, library_config
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.forward_pass import pass_cost
from gemmcast.gemm import Gemm
from gemmcast.kernel_names import resolved
from gemmcast.language_models import LanguageModel, Step
from gemmcast.prediction import Prediction
from gemmcast.predictor import Predictor
from tests.page.questions import (
    EXPERTS,
    FAMILIES,
    GEMMS,
    INTEGERS,
    PROMPTS,
    RATES,
    TYPED_TITLE,
    WARM,
    Seen,
    run_node,
)

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "page" / "language_models.json"
TOLERANCE = 1e-4
"""Of WebAssembly against the native build: another order of the same float32 sums."""
TARGETS = ("runtime_us", "energy_mj", "tflops")
"""Of a row of the table and of a card, in their order."""
EVERY = 101
"""Of a GEMM's candidates, each EVERYth is compared."""
PYTHON_RATES = Rates(**{field: float(text) for field, text in RATES.items()})
EXAMPLE = Gemm(m=4096, n=4096, k=4096, dtype="bf16", layout="nt")


def _config(gemm: Gemm, family: str, device: Device) -> KernelConfig:
    if family != "library" and refusal(family, gemm, device) is None:
        return default_config(family, gemm, device)
    return library_config(gemm.dtype, device.kind)


def _candidates(gemm: Gemm, device: Device) -> Sequence[KernelConfig]:
    """Empty where no family can run it."""
    try:
        return predictable(gemm, device).configs
    except InputError:
        return ()


def _whole(gemm: Gemm, texts: Sequence[str]) -> Iterator[KernelConfig]:
    """Configurations as they are written, with all that their names say."""
    for text in texts:
        yield resolved(gemm, KernelConfig.parse(text))


def _values(prediction: Prediction) -> Iterator[float]:
    """What a row or a card says; what is unknown has no number there."""
    for name in TARGETS:
        value = getattr(prediction, name)
        if value is not None:
            yield value


def _same(found: Sequence[float], expected: Iterator[float] | Sequence[float]) -> None:
    assert list(found) == pytest.approx(list(expected), rel=TOLERANCE)


def _same_answer(found: Mapping[str, dict[str, float]], expected: Prediction) -> None:
    """With both ends of each interval."""
    for name in TARGETS:
        value, low, high = getattr(expected, name), expected.low[name], expected.high[name]
        answer = found[name]
        _same([answer["value"], answer["low"], answer["high"]], [value, low, high])
    assert found["extrapolating"] == expected.extrapolating


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_costs_what_python_says(seen: Seen, predictor: Predictor, family: str) -> None:
    rows = iter(seen["answers"][family]["rows"])
    for gemm in GEMMS:
        for device in predictor.devices:
            expected = predictor.predict(gemm, _config(gemm, family, device), device)
            row = next(rows)
            _same(row["values"], _values(expected))
            assert row["extrapolating"] == expected.extrapolating
    assert next(rows, None) is None


def test_warm_operands_cost_what_python_says(seen: Seen, predictor: Predictor) -> None:
    rows = iter(seen["answers"]["warm"]["rows"])
    for gemm in WARM:
        for device in predictor.devices:
            row = next(rows)
            expected = predictor.predict(gemm, None, device, cache="warm")
            _same(row["values"], _values(expected))
            # the shipped model has seen cold operands only, and answers warm ones alike
            assert row["extrapolating"] == expected.extrapolating


def test_a_device_without_a_peak_is_refused_and_the_other_answers(
    seen: Seen, predictor: Predictor
) -> None:
    h100, h200 = seen["answers"]["int8"]["cards"]
    assert h100["values"] == []
    expected = predictor.predict(INTEGERS[0], None, "h200")
    _same(h200["values"][:3], _values(expected))


@pytest.mark.parametrize(
    ("name", "question", "family"),
    [("experts", EXPERTS, None), ("prompts", PROMPTS, "triton")],
)
def test_a_language_model_costs_what_python_says(
    seen: Seen, predictor: Predictor, name: str, question: dict[str, str], family: str | None
) -> None:
    config = json.loads(CONFIGS.read_text())[question["lm"]]
    model = LanguageModel.of(config, tp=int(question["tp"]), dtype=question["lmdtype"])
    sequences = question.get("sequences")
    step = Step(int(question["tokens"]), int(sequences) if sequences else None)
    cards = seen["answers"][name]["cards"]
    for card, device in zip(cards, predictor.devices, strict=True):
        cost = pass_cost(predictor, device, model, step, family=family).total
        assert cost.energy_mj and cost.sustained_runtime_us
        time, energy, _, sustained = card["values"]
        _same(
            [time, energy, sustained],
            [cost.runtime_us, cost.energy_mj, cost.sustained_runtime_us],
        )


def test_a_list_has_its_price_and_what_it_emits(seen: Seen, predictor: Predictor) -> None:
    cards = seen["answers"]["priced"]["cards"]
    for card, device in zip(cards, predictor.devices, strict=True):
        costs = [(1.0, predictor.predict(gemm, None, device)) for gemm in WARM]
        _same_amounts(card["values"], energy_of_list(costs))


def test_a_pass_has_its_price_on_all_its_gpus(seen: Seen, predictor: Predictor) -> None:
    config = json.loads(CONFIGS.read_text())[EXPERTS["lm"]]
    model = LanguageModel.of(config, tp=int(EXPERTS["tp"]), dtype=EXPERTS["lmdtype"])
    cards = seen["answers"]["priced pass"]["cards"]
    for card, device in zip(cards, predictor.devices, strict=True):
        cost = pass_cost(predictor, device, model, Step(int(EXPERTS["tokens"]))).total
        _same_amounts(card["values"], energy_of(cost))


def _same_amounts(found: Sequence[float], energy: Interval | None) -> None:
    """A card's last two values."""
    amounts = [amount for amount in PYTHON_RATES.amounts(energy).values() if amount]
    assert len(amounts) == 2
    _same(found[-2:], [amount.value for amount in amounts])


def test_a_card_says_no_amount_that_nobody_wants(seen: Seen) -> None:
    words = [card["names"] for card in seen["answers"]["experts"]["cards"]]
    priced = [card["names"] for card in seen["answers"]["priced pass"]["cards"]]
    more = ["Cost of a million passes", "CO2e of a million passes"]
    assert [[*names, *more] for names in words] == priced


def test_the_first_answer_is_there_without_a_question(seen: Seen, predictor: Predictor) -> None:
    first = seen["first"]
    assert first["title"] == str(EXAMPLE)
    for card, device in zip(first["cards"], predictor.devices, strict=True):
        assert device.name.endswith(card["name"])
        _same(card["values"][:3], _values(predictor.predict(EXAMPLE, None, device)))


def test_the_front_has_the_configuration_of_least_energy(seen: Seen, predictor: Predictor) -> None:
    written = [text for text in seen["first"]["front"] if not text.startswith("default")]
    front = list(_whole(EXAMPLE, written))
    for device in predictor.devices:
        cheapest = predictor.rank(EXAMPLE, objective="energy", device=device)[0]
        assert resolved(EXAMPLE, cheapest.config) in front


def test_a_link_opens_the_same_question(seen: Seen) -> None:
    assert seen["shared"]["title"] == TYPED_TITLE
    assert "777+4096+1024+fp16" in seen["shared"]["hash"]
    assert urlencode(RATES) in seen["shared"]["hash"]
    assert seen["reopened"] == seen["shared"]


def test_the_page_of_a_report_asks_the_model_of_the_report(seen: Seen, older: Path) -> None:
    """An old one, of a GPU and a CPU."""
    gemm = Gemm(m=1024, n=1024, k=1024)
    cards = seen["reported"]["cards"]
    assert [card["name"] for card in cards] == ["GPU A", "CPU C"]
    with Predictor(older) as predictor:
        for card, device in zip(cards, predictor.devices, strict=True):
            _same(card["values"][:3], _values(predictor.predict(gemm, None, device)))


def test_on_a_phone_the_question_is_short_and_asking_leads_to_the_answer(seen: Seen) -> None:
    before, after = seen["phone"]["before"], seen["phone"]["after"]
    assert before["isFolded"]
    assert 300 < before["answer_px"] < 844
    assert after["answer_px"] == 0


def test_a_slip_is_named_and_the_answer_stays(seen: Seen) -> None:
    slip = seen["slip"]
    assert slip["error"].startswith('line 1: k = "" must be a whole number from 1 to')
    assert slip["cards"] == seen["reopened"]["cards"]


def test_it_needs_no_other_file_and_says_nothing_to_the_console(seen: Seen) -> None:
    assert seen["messages"] == []
    files: set[str] = set()
    for url in seen["requests"]:
        assert url.startswith(("file:", "data:"))
        if url.startswith("file:"):
            files.add(url.partition("#")[0].rpartition("/")[2])
    assert files == {"ask.html"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_can_be_read_by_everybody(seen: Seen, scheme: str, width: int) -> None:
    """No finding of axe-core, no text below 12 px, nothing beyond the screen."""
    (look,) = (one for one in seen["looks"] if (one["scheme"], one["width"]) == (scheme, width))
    assert look["violations"] == []
    assert look["smallest_px"] >= 12
    assert look["overflow"] <= 0


def test_a_computer_without_node_is_told_so_in_one_line(site: Path) -> None:
    """With everything installed, and with nothing on the PATH."""
    command = [sys.executable, str(ROOT / "docs" / "build_ask.py"), str(site / "other")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": ""})
    assert done.returncode == 1
    way_out = "is not on the PATH: install Node.js 20 or newer with npm"
    assert done.stderr == f"error: node {way_out}\n"
    assert not (site / "other").exists()


def test_the_example_in_node_says_what_python_does(site: Path, predictor: Predictor) -> None:
    (site / "examples").mkdir()
    text = (ROOT / "examples" / "ask.mjs").read_text()
    script = site / "examples" / "ask.mjs"
    script.write_text(text.replace("../docs/site/", "../"))
    command = ["node", str(script), "4096", "4096", "4096", "bf16", "nt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names, costs = done.stdout.splitlines()[::2], done.stdout.splitlines()[1::2]
    for name, cost, device in zip(names, costs, predictor.devices, strict=True):
        assert name == device.name
        answer = predictor.predict(EXAMPLE, None, device)
        time, low, high = map(float, re.findall(r"[\d.]+", cost)[:3])
        expected = [answer.runtime_us, answer.low["runtime_us"], answer.high["runtime_us"]]
        assert [time, low, high] == pytest.approx(expected, abs=0.1)


def test_node_has_the_candidates_of_python_and_their_costs(
    site: Path, predictor: Predictor
) -> None:
    asked = []
    for place, gemm in enumerate(GEMMS):
        device = ("h100", "h200")[place % 2]
        asked.append({"gemm": asdict(gemm), "kernel": "", "device": device, "every": EVERY})
    (site / "candidates.json").write_text(json.dumps(asked))
    answers = run_node("answer.mjs", site, site / "candidates.json")
    for place, (gemm, answer) in enumerate(zip(GEMMS, answers, strict=True)):
        device = predictor.devices[place % 2]
        configs = _candidates(gemm, device)
        assert answer["count"] == len(configs)
        chosen = [resolved(gemm, config) for config in configs[::EVERY]]
        assert list(_whole(gemm, answer["names"])) == chosen
        expected = predictor.predict_batch([(gemm, config) for config in chosen], device)
        for found, prediction in zip(answer["predicted"], expected, strict=True):
            _same_answer(found, prediction)
