"""The whole circle once, as a stranger's first minute: measure, train, publish, push; then predict shapes that were never
measured, measure them, and set the predictions beside the truth and the baselines.

The shapes of the second part are drawn with another seed, or kept back of a recorded dataset, and are predicted by the node's own model
file before they are measured.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.compute as pc

from coordinator import terminal
from coordinator.fleet.session import Places, RunSession, Stop
from coordinator.plan.cells import plan_cells
from coordinator.plan.replay import recorded_cells, replay_plan
from coordinator.plan.schema import Plan, read_plan
from coordinator.report.html import write_report
from coordinator.workspace import Workspace
from costmodel.dataset import Dataset, dataset, held_out
from costmodel.evaluate.crossval import compare
from costmodel.evaluate.metrics import to_json
from gemmcast import Predictor, modeldir
from gemmcast.cell import Cell
from gemmcast.errors import GemmcastError, InputError
from gemmcast.rows import config_of, gemm_of

PLAN = Path(__file__).resolve().parent.parent / "examples" / "demo.toml"
UNSEEN_SHAPES = 44
SEED_STEP = 1000
MARK = ".gemmcast-demo"
SHOWN = 12


def run_demo(directory: Path, *, as_json: bool, recorded: Path | None = None) -> None:
    """`recorded`: a dataset whose device answers in place of this machine's."""
    started_s = perf_counter()
    if recorded is not None and not recorded.is_file():
        raise InputError("--dataset", str(recorded), "no such file", "name a Parquet file of samples, such as datasets/h100_demo.parquet")
    _make_anew(directory)
    plan = replay_plan(recorded.resolve()) if recorded else read_plan(PLAN)
    first, kept_back = recorded_cells(recorded) if recorded else (None, None)
    session = RunSession(plan, Workspace(directory / "workspace"), Places(), None)
    with session.open() as stop:
        terminal.console.print("[bold]1[/bold] measure, train, publish, push")
        swept = session.run(stop, cells=first)
        _must_go_on(stop)
        if session.registry.champion() is None:
            good = swept["statuses"].get("ok", 0)
            raise GemmcastError(f"no model came of {good} good samples: the warnings above say why; they are in {directory}")
        terminal.console.print(f"  {session.model_line.text}")
        terminal.console.print("[bold]2[/bold] predict shapes that were never measured, then measure them")
        cells = kept_back or _unseen_cells(session)
        predicted = _predict(session.model_dir, cells)
        measured = session.run(stop, cells=cells, train=False, label="measuring the unseen")
        _must_go_on(stop)
    training, unseen = _parts(session, plan, cells)
    scores = to_json(compare(training, unseen, _in_order(predicted, unseen)))
    _, card, version = session.registry.load("champion")
    write_report(session.workspace.report, session.store.read(), session.registry.load("champion"))
    summary = {
        "cells_ok": swept["statuses"].get("ok", 0),
        "cells_failed": sum(count for status, count in swept["statuses"].items() if status != "ok"),
        "model_version": version.number,
        "seconds": round(perf_counter() - started_s, 1),
        "unseen": scores,
        "unseen_shapes": len(set(unseen.shapes)),
        "unseen_failed": len(cells) - measured["statuses"].get("ok", 0),
        "latency": {"onnx_single_p50_us": card.latency_p50_us, "sklearn_latency_p50_us": card.sklearn_latency_p50_us},
        "device": sorted(set(unseen.table["device"].to_pylist())),
    }
    (directory / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    terminal.result(summary, as_json=as_json, text=lambda: _show(summary, unseen, predicted, session))


def _make_anew(directory: Path) -> None:
    """Only ever deletes what a demo made."""
    if directory.exists():
        if not (directory / MARK).exists() and any(directory.iterdir()):
            raise InputError("--directory", str(directory), "is not empty and was not made by a demo", "name a new directory")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / MARK).touch()


def _must_go_on(stop: Stop) -> None:
    if stop():
        terminal.leave_now()


def _unseen_cells(session: RunSession) -> list[Cell]:
    """The plan's sweeps over other shapes, on the devices that took part."""
    table = session.store.read()
    known = set(dataset(table).shapes)
    sweeps = [
        sweep.model_copy(
            update={"shapes": sweep.shapes.model_copy(update={"sample": UNSEEN_SHAPES, "seed": session.plan.seed + SEED_STEP}), "repeats": 1}
        )
        for sweep in session.plan.sweep
    ]
    plan = session.plan.model_copy(update={"sweep": tuple(sweeps)})
    names = set(table["device"].to_pylist())
    devices = {device.name: device for device in modeldir.devices(session.model_dir) if device.name in names}
    return [cell for device in devices.values() for cell in plan_cells(plan, device).cells if cell.gemm.shape_key not in known]


def _predict(model_dir: Path, cells: list[Cell]) -> dict[str, dict[str, float]]:
    """cell id -> output -> value, by the model that the agents pushed to this node."""
    answers: dict[str, dict[str, float]] = {}
    with Predictor(model_dir) as predictor:
        for cell in cells:
            prediction = predictor.predict(cell.gemm, cell.config, cell.device_key, cache=cell.cache)
            answers[cell.cell_id] = {name: getattr(prediction, name) for name in predictor.outputs}
    return answers


def _parts(session: RunSession, plan: Plan, cells: list[Cell]) -> tuple[Dataset, Dataset]:
    """What the model was trained on, and the unseen rows."""
    table = session.store.read()
    ids = {cell.cell_id for cell in cells}
    is_unseen = np.array([cell_id in ids for cell_id in table["cell_id"].to_pylist()])
    first = dataset(table.filter(pc.invert(is_unseen)))
    unseen = dataset(table.filter(is_unseen))
    if not len(unseen):
        raise GemmcastError("not one of the unseen cells could be measured; `python -m coordinator status --workspace demo/workspace` says why")
    return first.take(~held_out(first.shapes, plan.train.holdout)), unseen


def _in_order(predicted: dict[str, dict[str, float]], data: Dataset) -> dict[str, Any]:
    rows = [predicted[cell_id] for cell_id in data.table["cell_id"].to_pylist()]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _show(summary: dict[str, Any], unseen: Dataset, predicted: dict[str, dict[str, float]], session: RunSession) -> None:
    path = session.workspace.path
    devices = ", ".join(summary["device"])
    rows = [_example(row, predicted[row["cell_id"]]["runtime_us"]) for row in _spread(unseen.table.to_pylist())]
    terminal.show_rows(f"GEMMs that the model never saw, on {devices}", ("GEMM", "kernel", "predicted µs", "measured µs", "error %"), rows)
    terminal.show_scores(summary["unseen"], f"All {len(unseen)} of them, {summary['unseen_shapes']} shapes: absolute error in per cent")
    latency = summary["latency"]
    terminal.out.print(
        f"one question: {latency['onnx_single_p50_us']:.0f} us through ONNX Runtime, "
        f"{latency['sklearn_latency_p50_us']:.0f} us through scikit-learn (median, one thread)\n"
        f"{summary['cells_ok']} cells measured, {summary['cells_failed']} failed; "
        f"model version {summary['model_version']}; {summary['seconds']:.0f} s\n\n"
        f"workspace  {path}\nreport     {session.workspace.report}\nmodel      {session.model_dir}\n\nTry next:\n"
        + "\n".join(f"  {command}" for command in _next_commands(session, unseen)),
        soft_wrap=True,
        highlight=False,
    )


def _example(row: dict[str, Any], predicted_us: float) -> tuple[str, ...]:
    error = 100 * (predicted_us / row["runtime_us"] - 1)
    return str(gemm_of(row)), str(config_of(row)), f"{predicted_us:.1f}", f"{row['runtime_us']:.1f}", f"{error:+.1f}"


def _spread(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few rows from the smallest to the largest, not the best ones."""
    ordered = sorted(rows, key=lambda row: row["runtime_us"])
    return [ordered[int(i)] for i in np.linspace(0, len(ordered) - 1, min(SHOWN, len(ordered)))]


def _next_commands(session: RunSession, unseen: Dataset) -> list[str]:
    config = "cublas" if "cublas" in unseen.column("family") else "blas:kernel=numpy,cpu_threads=1"
    others = "tiled:tile=16" if config == "cublas" else "blas:kernel=blocked,cpu_threads=1,tile=128"
    model = _short(session.model_dir)
    return [
        f"{_short(Path(sys.executable))} -m gemmcast predict 500 600 700 --config {config} --model {model}",
        f"{_short(Path(sys.executable))} -m gemmcast pick 500 600 700 {config} {others} --model {model}",
        f"{_short(Path(sys.executable))} -m registry show --workspace {_short(session.workspace.path)}",
    ]


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
