"""Run with PYTHONPATH=/tmp/before and the venv's python, in /tmp/before."""
import json, sys, importlib.util, tarfile
from dataclasses import asdict, replace
from pathlib import Path
out = Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
spec = importlib.util.spec_from_file_location("oldconf", "/tmp/before/tests/gemmcast/conftest.py")
c = importlib.util.module_from_spec(spec); spec.loader.exec_module(c)
from coordinator.model import CostModel
from coordinator.export import export
import numpy as np
from gemmcast import question, modeldir
from gemmcast.card import ModelCard
drawn = [(g, k, d) for d in (c.GPU, c.CPU) for g, k in c._draw(d, 120)]
rows = np.array([question.ask(g, k, d) for g, k, d in drawn], dtype=np.float32)
work, noise = rows[:, :3].prod(axis=1, dtype=np.float64), np.random.default_rng(0).normal(size=len(rows))
runtime = (3 + work * 2e-6 / rows[:, question.AT["peak_tflops"]]) * np.exp(0.3 * noise)
sustained, power = runtime * (1.1 + 0.05 * noise), 150 + 20 * np.log(work)
measured = {"runtime_us": runtime, "sustained_runtime_us": sustained, "power_w": power, "energy_mj": power * sustained / 1e3}
model = CostModel(members=1, iterations=3, leaves=4, shares={"runtime": 0.5, "sustained": 0.0, "power": 0.0}).fit(rows, measured)
data = export(model, [c.GPU, c.CPU])
print(len(data))
d = out / "model_directory"
modeldir.put_model(d, data, "7")
modeldir.put_device(d, c.GPU)
from gemmcast import Predictor
with Predictor(d) as p:
    queries = [(g, k, d) for d in (c.GPU, c.CPU) for g, k in c._draw(d, 12, seed=99)]
    answers = []
    for g, k, dev in queries:
        pr = p.predict(g, k, dev)
        answers.append({"gemm": asdict(g), "config": asdict(k), "device": dev.name, "prediction": asdict(pr)})
    ranking = p.rank(c.Gemm(m=512, n=512, k=512), [c.KernelConfig(family="tiled", tile_m=t, tile_n=t, tile_k=16) for t in range(4, 100, 4)], device=c.GPU, top=2)
    (out / "answers.json").write_text(json.dumps({"predictions": answers, "best_tiles": [r.config.tile_m for r in ranking]}, indent=0))
s = {"mape": 4.7, "median_ape": 3.0, "p90_ape": 11.25, "r2": 0.98, "rows": 43.0}
card = ModelCard(created_at="2026-01-01T00:00:00+00:00", program_version="0.1.0", contract=2, targets=tuple(model.outputs_), rows=240, rows_by_device={"GPU A": 120, "CPU C": 120}, store_version=3, split="grouped by shape", holdout=0.15, train_rows=200, test_rows=40, train_shapes=200, test_shapes=40,
  scores={"runtime_us": {"model": s}}, unseen={"layer": {"split": "a fifth", "train_rows": 1, "test_rows": 1, "scores": {"runtime_us": {"model": s}}}}, noise={"runtime_us": {"median": 0.5, "p90": 1.0, "max": 2.0, "cells": 9.0}}, tree_shares={"runtime": 0.5}, single_p50_us=61.5, sklearn_single_p50_us=900.0,
  ranking={"runtime_us": {"model": {"groups": 3.0, "tau_mean": 0.9}, "shortlist": {"groups": 3.0, "regret_8_mean": 0.1}}})
from registry.store import Registry
import tempfile, shutil
reg = Path(tempfile.mkdtemp()) / "registry"
r = Registry(reg); r.publish(data, card); r.publish(data, replace(card, rows=241)); r.promote("1"); r.promote("2")
for p in reg.rglob("*"): print(p.relative_to(reg), p.stat().st_size)
with tarfile.open(out / "registry.tar.xz", "w:xz") as tar: tar.add(reg, arcname="registry")
print({p.name: p.stat().st_size for p in out.rglob("*")})
