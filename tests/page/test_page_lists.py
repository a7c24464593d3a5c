"""Lists of GEMMs as the page reads them: the same as `read_gemms`, and slips with their line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator.report.ask_model import contract_facts
from gemmcast.gemm_list import ListedGemm, read_gemms
from tests.page.questions import run_node

PAGE = Path(__file__).parents[2] / "page"
CSV = """\
m,n,k,batch,dtype,layout,weight,name,kernel,beta
16,4096,4096,,,,32,"q, k and v",,
16,4096,4096,1,bf16,nt,2,o,,

1,2048,768,128,fp8_e4m3,nt,,experts,grouped,
7,8,9,,fp32,nn,0.5,,,1
"""
SPREADSHEET = "m\tn\tk\tname\n1\t2\t3\tone name\n"
BLANKS = "k m n\n3 1 2\n"
TABLES = {
    CSV: CSV,
    CSV.replace("\n", "\r\n"): CSV,
    SPREADSHEET: SPREADSHEET.replace("\t", ","),
    BLANKS: BLANKS.replace(" ", ","),
}
"""What is pasted -> the same as CSV, which Python reads."""
PLAIN = {
    "4096 4096 512": [(4096, 4096, 512, 1, "bf16", "nt")],
    " 1x2x3 8 tn fp16 ;\n4, 5, 6": [(1, 2, 3, 8, "fp16", "tn"), (4, 5, 6, 1, "bf16", "nt")],
    "16777216 1 1": [(16777216, 1, 1, 1, "bf16", "nt")],
}
SLIPS = {
    "": "no GEMM: write one a line",
    "m,n,k\n": "no GEMM under the header",
    "4096 4096": 'line 1: k = "" must be a whole number from 1 to 16777216',
    "1 2 3\n\n1 0 3": 'line 3: n = "0" must be a whole number',
    "1 2 16777217": 'line 1: k = "16777217" must be',
    "1 2 3.5": 'line 1: k = "3.5" must be',
    "-1 2 3": 'line 1: m = "-1" must be',
    "1 2 3 bf17": 'line 1: can\'t read "bf17"; behind m n k',
    "1 2 3 constructor": 'line 1: can\'t read "constructor"',
    "1 2 3 4 5": 'line 1: can\'t read "5"',
    "m,n\n1,2": "line 1: has no column k",
    "m,n,k,mm\n1,2,3,4": 'line 1: unknown column "mm"; columns are m, n, k',
    "m,n,k\n1,2,3,4": "line 2: has 4 cells under 3 columns",
    "m,n,k,weight\n1,2,3,0": "line 2: weight = 0 must be above 0",
    "m,n,k,weight\n1,2,3,x": 'line 2: weight = "x" must be a number',
    "m,n,k,dtype\n1,2,3,int4": 'line 2: unknown dtype "int4"; use one of fp64',
    "m,n,k,kernel\n1,2,3,gruoped": 'line 2: unknown kernel "gruoped"',
}
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    """Text -> what the page makes of it."""
    texts = [*TABLES, *PLAIN, *SLIPS]
    asked = tmp_path_factory.mktemp("lists") / "questions.json"
    asked.write_text(json.dumps({"contract": contract_facts(), "texts": texts}))
    return dict(zip(texts, run_node("lists.mjs", PAGE, asked), strict=True))


def _row(listed: ListedGemm) -> dict[str, Any]:
    gemm = listed.gemm
    problem = {"m": gemm.m, "n": gemm.n, "k": gemm.k, "batch": gemm.batch, "beta": gemm.beta}
    problem |= {"dtype": gemm.dtype, "layout": gemm.layout}
    return {
        "gemm": problem,
        "weight": listed.weight,
        "name": listed.name,
        "kernel": listed.kernel,
    }


@pytest.mark.parametrize("text", TABLES)
def test_a_table_is_read_as_python_reads_it(
    answers: Mapping[str, Mapping[str, Any]], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "gemms.csv"
    path.write_text(TABLES[text])
    expected = read_gemms(path, dtype="bf16", layout="nt")
    assert answers[text]["listed"] == [_row(one) for one in expected]


@pytest.mark.parametrize("text", PLAIN)
def test_lines_need_no_header(answers: Mapping[str, Mapping[str, Any]], text: str) -> None:
    found = []
    for one in answers[text]["listed"]:
        gemm = one["gemm"]
        size = (gemm["m"], gemm["n"], gemm["k"], gemm["batch"])
        found.append((*size, gemm["dtype"], gemm["layout"]))
        assert one["weight"] == 1
    assert found == PLAIN[text]


@pytest.mark.parametrize("text", SLIPS)
def test_a_slip_is_named_with_its_line(answers: Mapping[str, Mapping[str, Any]], text: str) -> None:
    assert answers[text]["error"].startswith(SLIPS[text])
