"""Models are pushed while another process predicts: it follows each, and loses no prediction."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from gemmcast import Predictor, modeldir

ROOT, FOLLOWER = Path(__file__).parents[2], Path(__file__).with_name("swap_follower.py")
PREDICTIONS, VERSIONS = 20_000, 10


def line(stream: IO[str]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(stream.readline())
    return values


@pytest.mark.cluster
def test_pushes_reach_a_process_that_never_stops_predicting(
    tmp_path: Path, power_model: bytes, edit: Callable[..., bytes]
) -> None:
    models = {
        str(version): edit(power_model, faster=0.1 * version) for version in range(1, VERSIONS + 1)
    }
    directory = tmp_path / "models"
    modeldir.put_model(directory, models["1"], "1")
    command = [sys.executable, str(FOLLOWER), str(directory), str(PREDICTIONS), str(VERSIONS)]
    follower = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    with follower:
        assert line(follower.stdout)["version"] == "1"
        for version in list(models)[1:]:
            modeldir.put_model(directory, models[version], version)
            seen = line(follower.stdout)
            assert seen["version"] == version, "each is seen, in order, and none comes back"
        report = line(follower.stdout)
    assert follower.returncode == 0
    assert report["done"] >= PREDICTIONS and report["failures"] == []
    assert {version for version, _, _ in report["answers"]} == set(models)
    assert {
        (version, number): tuple(values) for version, number, values in report["answers"]
    } == expected_of(models, tmp_path)
    assert len({tuple(values) for _, _, values in report["answers"]}) == len(report["answers"]), (
        "the versions can be distinguished"
    )


def expected_of(
    models: dict[str, bytes], directory: Path
) -> dict[tuple[str, int], tuple[float | None, ...]]:
    """What each version answers, alone and at rest."""
    queries = runpy.run_path(str(FOLLOWER))["QUERIES"]
    answers: dict[tuple[str, int], tuple[float | None, ...]] = {}
    for version, model in models.items():
        path = directory / f"{version}.onnx"
        path.write_bytes(model)
        with Predictor(path) as predictor:
            for number, (gemm, config) in enumerate(queries):
                p = predictor.predict(gemm, config, "GPU A")
                answers[version, number] = (
                    p.runtime_us,
                    p.tflops,
                    p.sustained_runtime_us,
                    p.power_w,
                    p.energy_mj,
                )
    return answers
