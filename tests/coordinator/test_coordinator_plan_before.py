"""Plans written before schema 3: the same cells with the same ids.

plan_cells.json was made by the program before schema 3 from its own plans: of each plan and kind of
device, the number of cells and the SHA-256 of their ids in order.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from coordinator.plan.cells import plan_cells
from coordinator.plan.schema import parse_plan, read_plan
from gemmcast.device import Device
from gemmcast.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = json.loads((Path(__file__).parent / "plan_cells.json").read_text())
PLANS = sorted([*ROOT.glob("datasets/plans/*.toml"), *ROOT.glob("examples/*.toml")])
BY_NAME = {path.name: path for path in PLANS}
NEWER = {
    "broad.toml",
    "exam.toml",
    "holes.toml",
    "holes-more.toml",
    "holes-warm.toml",
    "holes-power.toml",
    "holes-int8.toml",
    "layer-power.toml",
    "short-power.toml",
    "triton.toml",
    "triton-again.toml",
    "triton-tuning.toml",
    "triton-kernel.toml",
}
"""Plans written with schema 4."""


def digest(path: Path, device: Device) -> dict[str, Any]:
    cells = plan_cells(read_plan(path), device).cells
    lines = [f"{cell.cell_id} {int(cell.power)}\n" for cell in cells]
    return {"cells": len(cells), "sha256": sha256("".join(lines).encode()).hexdigest()[:16]}


@pytest.mark.parametrize("name", EXPECTED)
def test_cells_are_those_of_the_program_before(
    name: str, cpu: Device, gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    plan, kind = name.split()
    device = cpu if kind == "cpu" else replace(gpu, arch="sm_90")
    assert digest(BY_NAME[plan], device) == EXPECTED[name]


def test_every_plan_is_compared() -> None:
    assert {name.split()[0] for name in EXPECTED} == set(BY_NAME) - NEWER


def in_old_words(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan as it was written before, by the rules of the change itself."""
    sweeps = []
    for sweep in plan["sweep"]:
        old = {name.replace("algorithms", "candidates"): value for name, value in sweep.items()}
        old["family"] = old["family"].replace("custom", "own")
        if "knobs" in old:
            knobs = {}
            for knob, values in old["knobs"].items():
                is_threads = knob in ("cpu_threads", "block_threads")
                knobs["threads" if is_threads else knob] = values
            old["knobs"] = knobs
        sweeps.append(old)
    return {**plan, "sweep": sweeps}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_a_plan_in_old_words_is_the_same_plan(path: Path) -> None:
    plan = tomllib.loads(path.read_text())
    assert parse_plan(in_old_words(plan)) == parse_plan(plan)


def sweep(family: str, **keys: Any) -> dict[str, Any]:
    return {"family": family, "shapes": {"sample": 5}, **keys}


SWEEPS = [
    (sweep("cublaslt", candidates=24), sweep("cublaslt", algorithms=24)),
    (sweep("own", kernel="a.toml"), sweep("custom", kernel="a.toml")),
    (sweep("cublaslt", kernel="beyond-3"), sweep("cublaslt", kernel="enumerated-3")),
    (
        sweep("cublaslt", kernel=["default", "beyond-0"]),
        sweep("cublaslt", kernel=["default", "enumerated-0"]),
    ),
    (sweep("blas", knobs={"threads": [1, 2]}), sweep("blas", knobs={"cpu_threads": [1, 2]})),
    (sweep("own", knobs={"threads": [256]}), sweep("custom", knobs={"block_threads": [256]})),
]


@pytest.mark.parametrize(("old", "new"), SWEEPS, ids=str)
def test_every_old_key_and_value_of_a_sweep(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = parse_plan({"name": "before", "sweep": [old]})
    assert before == parse_plan({"name": "before", "sweep": [new]})


@pytest.mark.parametrize(("old", "new"), [("share", "per_type"), ("each", "per_gpu")])
def test_spread_was_replicate(old: str, new: str) -> None:
    sweeps = [sweep("blas")]
    before = parse_plan({"name": "x", "devices": {"spread": old}, "sweep": sweeps})
    assert before == parse_plan({"name": "x", "devices": {"replicate": new}, "sweep": sweeps})


@pytest.mark.parametrize(
    "plan",
    [
        {"name": "x", "sweep": "all"},
        {"name": "x", "sweep": ["all"]},
        {"name": "x", "devices": "all", "sweep": [sweep("blas")]},
        {"name": "x", "devices": {"spread": 1}, "sweep": [sweep("blas")]},
        {"name": "x", "sweep": [sweep("blas", kernel=7)]},
        {"name": "x", "sweep": [sweep("blas", knobs=[1])]},
        {"name": "x", "sweep": [{"shapes": {"sample": 1}}]},
    ],
    ids=str,
)
def test_nonsense_is_refused_as_ever(plan: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        parse_plan(plan)
