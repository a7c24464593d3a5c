"""Make contract2.tar.xz with the program of commit 8cdb60b, checked out in /tmp/before.

    cd /tmp/before
    PYTHONPATH=/tmp/before python /path/to/make_contract2.py OUT
    tar c -C OUT answers.json model_directory registry | xz -9e > contract2.tar.xz

Imports modules that only that commit has. No test runs this file.
"""

import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from coordinator.export import export  # type: ignore[import-not-found]
from coordinator.model import CostModel  # type: ignore[import-not-found]
from registry.store import Registry  # type: ignore[import-not-found]

from gemmcast import Predictor, modeldir, question  # type: ignore[attr-defined]
from gemmcast.card import ModelCard

CONFTEST = "/tmp/before/tests/gemmcast/conftest.py"
TILES = range(4, 100, 4)


def main(out: Path) -> None:
    """Write answers.json, model_directory/ and registry/."""
    spec = importlib.util.spec_from_file_location("conftest", CONFTEST)
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    model, data = fitted(fixtures)
    directory = out / "model_directory"
    modeldir.put_model(directory, data, "7")
    modeldir.put_device(directory, fixtures.GPU)
    (out / "answers.json").write_text(json.dumps(answers(directory, fixtures), indent=0))
    versions = Registry(out / "registry")
    first = card(model)
    for each in (first, replace(first, rows=241)):
        versions.publish(data, each)
    versions.promote("1")
    versions.promote("2")


def fitted(fixtures):
    """A tiny model of 240 made-up rows, and its file."""
    drawn = []
    for device in (fixtures.GPU, fixtures.CPU):
        drawn += [(gemm, config, device) for gemm, config in fixtures._draw(device, 120)]
    rows = np.array([question.ask(*one) for one in drawn], dtype=np.float32)
    work = rows[:, :3].prod(axis=1, dtype=np.float64)
    noise = np.random.default_rng(0).normal(size=len(rows))
    peak_tflops = rows[:, question.AT["peak_tflops"]]
    runtime_us = (3 + work * 2e-6 / peak_tflops) * np.exp(0.3 * noise)
    sustained_us = runtime_us * (1.1 + 0.05 * noise)
    power_w = 150 + 20 * np.log(work)
    measured = {
        "runtime_us": runtime_us,
        "sustained_runtime_us": sustained_us,
        "power_w": power_w,
        "energy_mj": power_w * sustained_us / 1e3,
    }
    shares = {"runtime": 0.5, "sustained": 0.0, "power": 0.0}
    model = CostModel(members=1, iterations=3, leaves=4, shares=shares).fit(rows, measured)
    return model, export(model, [fixtures.GPU, fixtures.CPU])


def answers(directory, fixtures):
    """What that program predicts for 24 queries, and its best two of 24 tiles."""
    predictions = []
    with Predictor(directory) as predictor:
        for device in (fixtures.GPU, fixtures.CPU):
            for gemm, config in fixtures._draw(device, 12, seed=99):
                prediction = predictor.predict(gemm, config, device)
                predictions.append(
                    {
                        "gemm": asdict(gemm),
                        "config": asdict(config),
                        "device": device.name,
                        "prediction": asdict(prediction),
                    }
                )
        make, gemm = fixtures.KernelConfig, fixtures.Gemm(m=512, n=512, k=512)
        tiles = [make(family="tiled", tile_m=size, tile_n=size, tile_k=16) for size in TILES]
        ranking = predictor.rank(gemm, tiles, device=fixtures.GPU, top=2)
    best_tiles = [choice.config.tile_m for choice in ranking]
    return {"predictions": predictions, "best_tiles": best_tiles}


def card(model):
    """A card with every field that was renamed later."""
    metrics = {"mape": 4.7, "median_ape": 3.0, "p90_ape": 11.25, "r2": 0.98, "rows": 43.0}
    scores = {"runtime_us": {"model": metrics}}
    layer = {"split": "a fifth", "train_rows": 1, "test_rows": 1, "scores": scores}
    ranking = {
        "model": {"groups": 3.0, "tau_mean": 0.9},
        "shortlist": {"groups": 3.0, "regret_8_mean": 0.1},
    }
    return ModelCard(
        created_at="2026-01-01T00:00:00+00:00",
        program_version="0.1.0",
        contract=2,
        targets=tuple(model.outputs_),
        rows=240,
        rows_by_device={"GPU A": 120, "CPU C": 120},
        store_version=3,
        split="grouped by shape",
        holdout=0.15,
        train_rows=200,
        test_rows=40,
        train_shapes=200,
        test_shapes=40,
        scores=scores,
        unseen={"layer": layer},
        noise={"runtime_us": {"median": 0.5, "p90": 1.0, "max": 2.0, "cells": 9.0}},
        tree_shares={"runtime": 0.5},
        single_p50_us=61.5,
        sklearn_single_p50_us=900.0,
        ranking={"runtime_us": ranking},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
