"""What the page is asked in the tests, and how a script of this folder is run."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from gemmcast.gemm import Gemm

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 600
COUNT = 50
DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8_e4m3")
LAYOUTS = ("nt", "nn", "nt", "tn")

Seen = dict[str, Any]
"""What a script of this folder printed."""


def _size(drawn: random.Random, *, is_any: bool) -> int:
    """A power of two that most families take, or any number."""
    return drawn.randint(1, 5000) if is_any else 2 ** drawn.randint(4, 13)


def _gemms() -> list[Gemm]:
    """Problems of all dtypes and layouts."""
    drawn = random.Random(22)
    gemms: list[Gemm] = []
    for place in range(COUNT):
        gemm = Gemm(
            m=_size(drawn, is_any=place % 5 == 0),
            n=_size(drawn, is_any=place % 7 == 0),
            k=_size(drawn, is_any=False),
            batch=8 if place % 11 == 0 else 1,
            dtype=DTYPES[place % len(DTYPES)],
            layout=LAYOUTS[place % len(LAYOUTS)],
        )
        gemms.append(gemm)
    return gemms


GEMMS = _gemms()
FAMILIES = ("library", "cutlass", "triton", "tiled")
WARM = GEMMS[:5]
INTEGERS = [Gemm(m=1024, n=4096, k=512, dtype="int8", layout="nt")]
EXPERTS = {"lm": "DeepSeek V3", "tokens": "512", "tp": "8", "lmdtype": "bf16"}
PROMPTS = {"lm": "Mixtral 8x7B", "tokens": "2048", "sequences": "4", "tp": "2", "lmdtype": "bf16"}
RATES = {"kwh_price": "0.31", "gco2_per_kwh": "412.5"}
LOOKED_AT = {"lm": "Qwen3 32B", "tokens": "64", "tp": "1", "shown": "2", **RATES}
TYPED = "777 4096 1024 fp16\n512x512x4096"
TYPED_TITLE = "2 GEMMs, one after the other"
SLIP = "4096 4096\n"


def run_node(script: str, *arguments: Path) -> Any:
    """What a script of this folder prints, from JSON."""
    command = ["node", str(HERE / script), *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CHROMIUM": CHROMIUM or ""},
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def questions() -> Seen:
    """For drive.mjs."""
    hashes = {family: _listed(GEMMS, kernels=family) for family in FAMILIES}
    hashes["warm"] = _listed(WARM, cache="warm")
    hashes["int8"] = _listed(INTEGERS)
    hashes["priced"] = _listed(WARM, **RATES)
    hashes["priced pass"] = urlencode({**EXPERTS, **RATES})
    hashes["experts"] = urlencode(EXPERTS)
    hashes["prompts"] = urlencode({**PROMPTS, "kernels": "triton"})
    return {
        "hashes": hashes,
        "looked_at": urlencode(LOOKED_AT),
        "typed": TYPED,
        "typed_title": TYPED_TITLE,
        "rates": RATES,
        "slip": SLIP,
    }


def _listed(gemms: Sequence[Gemm], **others: str) -> str:
    """A link to a list of GEMMs."""
    lines = ["m,n,k,batch,dtype,layout"]
    for gemm in gemms:
        lines.append(f"{gemm.m},{gemm.n},{gemm.k},{gemm.batch},{gemm.dtype},{gemm.layout}")
    return urlencode({"gemms": ";".join(lines), **others})
