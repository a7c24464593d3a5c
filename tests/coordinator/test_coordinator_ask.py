"""What the page of questions is given: no npm and no browser is needed to see that."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from coordinator.report.ask_candidates import families_on
from coordinator.report.ask_model import contract_facts, language_facts, model_facts
from coordinator.report.ask_page import packed, with_model, write_beside
from gemmcast import models, query
from gemmcast.candidates import candidates
from gemmcast.config import KernelConfig
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.kernel_names import resolved
from gemmcast.predictor import Predictor

PAGE = '<p></p><script type="text/plain" id="model">eA==</script><p>end</p>'
CONFIGS = Path(__file__).parents[2] / "page" / "language_models.json"


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return model_facts(models.path().read_bytes(), models.card(), "4")


@pytest.fixture(scope="module")
def h200() -> Device:
    with Predictor() as predictor:
        return predictor.device("h200")


def test_a_page_gets_a_model_and_keeps_the_rest(facts: dict[str, Any]) -> None:
    page = with_model(PAGE, facts)
    match = re.fullmatch(
        r'<p></p><script type="text/plain" id="model">(.*)</script><p>end</p>', page
    )
    assert match
    assert json.loads(gzip.decompress(base64.b64decode(match[1]))) == json.loads(json.dumps(facts))
    assert with_model(page, facts) == page


def test_a_page_without_a_place_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="has no place for a model; run `make docs` again"):
        with_model("<p></p>", facts)


def test_without_a_model_or_a_built_page_nothing_is_written(tmp_path: Path) -> None:
    built = tmp_path / "built.html"
    built.write_text(PAGE)
    assert write_beside(tmp_path / "report.html", None, built) is None
    assert [path.name for path in tmp_path.iterdir()] == ["built.html"]


def test_the_file_of_the_model_is_inside(facts: dict[str, Any]) -> None:
    assert base64.b64decode(facts["onnx"]) == models.path().read_bytes()
    assert [device["name"] for device in facts["devices"]] == [
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H200",
    ]


def test_the_example_is_of_a_dtype_that_every_device_has(facts: dict[str, Any]) -> None:
    assert facts["example"]["dtype"] == "bf16"
    for device in facts["devices"]:
        assert device["peak_tflops"]["bf16"] > 0


@pytest.mark.parametrize("sizes", [(64, 8, 64), (64, 24, 48), (8, 16, 16), (17, 16, 16), (8, 8, 8)])
def test_multiples_are_where_families_refuse(h200: Device, sizes: tuple[int, int, int]) -> None:
    m, n, k = sizes
    gemm = Gemm(m=m, n=n, k=k, dtype="bf16", layout="nt")
    for family, group in families_on(h200, ["bf16"])["bf16 nt"].items():
        multiples = group["multiples"]
        fits = not (m % multiples["m"] or n % multiples["n"] or k % multiples["k"])
        assert fits == bool(candidates(gemm, h200, [family]))


def test_slices_need_steps_along_k(h200: Device) -> None:
    group = families_on(h200, ["bf16"])["bf16 nt"]["cutlass"]
    for k in (64, 512, 4096):
        gemm = Gemm(m=256, n=256, k=k, dtype="bf16", layout="nt")
        left = [
            name for name, least in zip(group["names"], group["min_k"], strict=True) if k >= least
        ]
        made = candidates(gemm, h200, ["cutlass"])
        assert len(left) == len(made)
        named = [resolved(gemm, KernelConfig.parse(name)) for name in left]
        assert named == [resolved(gemm, config) for config in made]


def test_the_largest_batch_is_the_family_s(h200: Device) -> None:
    groups = families_on(h200, ["bf16"])["bf16 nt"]
    assert groups["cutlass"]["max_batch"] == 1
    assert groups["triton"]["max_batch"] == 65535
    assert groups["triton:grouped"]["max_batch"] == 2**24


def test_the_tiled_kernel_has_a_largest_m(h200: Device) -> None:
    group = families_on(h200, ["fp32"])["fp32 nn"]["tiled"]
    largest = dict(zip(group["names"], group["max_m"], strict=True))
    assert largest["tiled:tile=16"] == 16 * 65535


def test_every_field_of_a_query_is_named() -> None:
    contract = contract_facts()
    assert contract["fields"] == query.FIELDS
    assert len(contract["fields"]) == 34


def test_a_language_model_has_only_the_parts_that_gpus_can_share() -> None:
    configs = json.loads(CONFIGS.read_text())
    phi = language_facts({"Phi-4": configs["Phi-4"]})[0]
    assert {part["tp"] for part in phi["parts"]} == {1, 2}


def test_equal_facts_give_equal_text() -> None:
    assert packed({"a": 1}) == packed({"a": 1})
