"""Readers of exported files, written from what each runtime documents about its own.

    engine_config("NVIDIA H200", folder, tokens=100, ...)    as vLLM and SGLang look a config up
    c_rows(text)                                             the initialisers of a C header
    testlist(text)                                           as CUTLASS' profiler splits a test list

An engine forms the name of a file from what it runs, opens exactly that file, turns every key into
a number and takes the one nearest to the token count.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

Knobs = dict[str, int]


def nearest(path: Path, tokens: int, *, drops_version: bool = False) -> Knobs | None:
    """What an engine takes from a file; None: there is no such file, and it uses its default."""
    if not path.exists():
        return None
    values = json.loads(path.read_text())
    if drops_version:
        values.pop("triton_version", None)
    by_tokens = {int(key): knobs for key, knobs in values.items()}
    found: Knobs = by_tokens[min(by_tokens, key=lambda key: abs(key - tokens))]
    return found


def vllm_moe(
    folder: Path, device: str, tokens: int, *, e: int, n: int, dtype: str = "", block: str = ""
) -> Knobs | None:
    """vLLM's fused MoE; the folder is $VLLM_TUNED_CONFIG_FOLDER."""
    name = re.sub(r"[\s/]+", "_", device)
    if "H200" in name.split("_"):
        name = "NVIDIA_H200"
    selector = (f",dtype={dtype}" if dtype else "") + (f",block_shape={block}" if block else "")
    file = f"E={e},N={n},device_name={name}{selector}.json"
    return nearest(folder / file, tokens, drops_version=True)


def sglang_moe(
    folder: Path, device: str, tokens: int, *, e: int, n: int, triton: str, dtype: str = ""
) -> Knobs | None:
    """SGLang's fused MoE; the folder is $SGLANG_MOE_CONFIG_DIR.

    Without a file of its own Triton it looks through the folders of all others, the newest first.
    """
    own = f"triton_{triton.replace('.', '_')}"
    selector = f",dtype={dtype}" if dtype else ""
    file = f"E={e},N={n},device_name={device.replace(' ', '_')}{selector}.json"
    configs = folder / "configs"
    if (configs / own / file).exists():
        return nearest(configs / own / file, tokens)
    others = sorted(configs.glob("triton_*"), key=_version, reverse=True)
    found = (nearest(other / file, tokens) for other in others)
    return next((knobs for knobs in found if knobs), None)


def _version(folder: Path) -> tuple[int, ...]:
    """SGLang takes every part of every folder's version for a number, and ends where one is not."""
    return tuple(map(int, folder.name.removeprefix("triton_").split("_")))


def block_kernel(
    folder: Path, device: str, tokens: int, *, n: int, k: int, block: str
) -> Knobs | None:
    """The w8a8 block kernel of an engine; `block` is [128, 128] as SGLang writes it, or vLLM."""
    name = device.replace(" ", "_") if " " in block else re.sub(r"[\s/]+", "_", device)
    file = f"N={n},K={k},device_name={name},dtype=fp8_w8a8,block_shape={block}.json"
    return nearest(folder / file, tokens)


def c_rows(text: str) -> list[list[str]]:
    """The initialisers of the table, one list of literals each, escapes resolved."""
    rows = []
    for line in text.splitlines():
        if line.startswith("    {") and line.endswith("},"):
            literals = re.findall(r'"(?:[^"\\]|\\.)*"|[^\s,{}]+', line)
            rows.append([_literal(literal) for literal in literals])
    return rows


def _literal(text: str) -> str:
    if not text.startswith('"'):
        return text
    octal = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), text[1:-1])
    return octal.encode("latin-1").decode()


def testlist(text: str) -> list[dict[str, str]]:
    """One problem a line: split at every comma; the first column is the kernel's exact name."""
    head, *lines = text.splitlines()
    columns = head.split(",")
    return [dict(zip(columns, line.split(","), strict=True)) for line in lines]


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern of --kernels selects a kernel: its parts occur in the name, in order."""
    start = 0
    for part in pattern.split("*"):
        found = name.find(part, start)
        if found < 0:
            return False
        start = found + len(part)
    return True
