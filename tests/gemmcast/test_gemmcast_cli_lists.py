"""`gemmcast pick | rank --gemms FILE`, and without configurations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gemmcast.cli import main
from gemmcast.cli_text import saved

Run = Callable[..., str]
WORDS = ("--device", "h100", "--families", "cutlass", "--dtype", "bf16", "--layout", "nt")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """What a command prints that ends with `code`: on stdout if it is 0, else on stderr."""

    def run(*words: object, code: int = 0) -> str:
        assert main([str(word) for word in words]) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return run


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    path = tmp_path / "layers.csv"
    path.write_text("name,m,n,k,weight\nqkv,16,6144,4096,32\nodd,100,4099,77,1\n")
    return path


def test_a_list_is_picked_line_by_line_and_summed(run: Run, layers: Path) -> None:
    text = run("pick", "--gemms", layers, *WORDS, "--bold")
    lines = text.splitlines()
    assert lines[0] == "2 GEMMs on NVIDIA H100 80GB HBM3, lowest time:"
    assert lines[1] == "qkv: 16x6144x4096 bf16 nt, weight 32"
    assert lines[2].startswith("     cutlass:kernel=")
    assert lines[3].startswith(("     gain ", "     the default"))
    assert "odd: 100x4099x77 bf16 nt\n     no choice: " in text
    assert "1 without a choice are in no sum" in text
    assert lines[-2].startswith("time of the list, weighted: ")
    assert lines[-1].startswith("energy of the list, weighted: ")
    assert lines[-1].endswith(" % saved")


def test_a_list_in_json(run: Run, layers: Path) -> None:
    picked = json.loads(run("pick", "--gemms", layers, *WORDS, "--bold", "--json"))
    first, second = picked["gemms"]
    listed = first["listed"]
    assert (listed["name"], listed["weight"], listed["gemm"]["n"]) == ("qkv", 32.0, 6144)
    assert first["config"]["family"] == first["default"]["config"]["family"] == "cutlass"
    assert first["gain"]["low"] <= first["gain"]["ratio"] <= first["gain"]["high"]
    assert "config" not in second and "no multiple of 8" in second["reason"]
    time_us = picked["time_us"]
    cost_us = first["prediction"]["runtime_us"]
    assert time_us["choice"] == pytest.approx(32 * cost_us)
    assert time_us["share"] == pytest.approx(1 - time_us["choice"] / time_us["default"])


def test_a_ranking_of_candidates_has_eight(run: Run, layers: Path) -> None:
    one = json.loads(run("rank", 16, 6144, 4096, *WORDS, "--json"))
    assert len(one["ranking"]) == 8 and one["gemm"]["m"] == 16
    many = json.loads(run("rank", "--gemms", layers, *WORDS, "--top", 2, "--json"))
    assert [len(ranked["ranking"]) for ranked in many["gemms"]] == [2, 0]
    assert many["gemms"][0]["listed"]["weight"] == 32
    assert many["device"] == "NVIDIA H100 80GB HBM3"
    text = run("rank", "--gemms", layers, *WORDS, "--top", 2)
    assert text.startswith("qkv: 16x6144x4096 bf16 nt on NVIDIA H100 80GB HBM3, lowest time first:")
    assert "odd: 100x4099x77 bf16 nt on NVIDIA H100 80GB HBM3\n     no ranking: " in text


def test_words_that_do_not_fit(run: Run, layers: Path) -> None:
    for words, message in (
        (("pick", 16, 6144), "the following arguments are required: k (or --gemms FILE)"),
        (("rank", 16, "x", 4096), "argument n: invalid int value: 'x'"),
        (("pick", "--gemms", layers, "--families", "mkl", *WORDS[:2]), "families = 'mkl'"),
        (("pick", "--gemms", layers, *WORDS, 16), "M N K = 16: --gemms has the sizes"),
        (("pick", 16, 6144, 4095, *WORDS), "no family can run it on NVIDIA H100 80GB HBM3"),
        (("pick", "--gemms", layers, *WORDS, "cublas"), "give one of the two"),
    ):
        assert message in run(*words, code=2)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0594, "5.9 % saved"), (-0.055, "5.5 % more"), (0.0, "0.0 % saved")]
)
def test_what_is_not_saved_is_more(share: float, text: str) -> None:
    assert saved(share) == text
