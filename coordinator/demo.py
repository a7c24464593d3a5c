"""The whole circle once: ask, measure, train, publish, push; then ask again, and measure what was
asked.

The new shapes are drawn with another seed, or are those that were kept back of a recorded dataset.
Where gemmcast comes with a model of the device's kind, that answers before anything is measured.
The node's model file predicts the shapes before they are measured, and the predictions are shown
beside the measurements and the baselines. It uses only what `run` and the Predictor use.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from coordinator import terminal
from coordinator.demo_tables import (
    Predictions,
    columns_of_examples,
    demo_section,
    examples,
    title,
    title_of_scores,
)
from coordinator.fleet.session import Places, RunSession, RunSummary
from coordinator.fleet.signals import Stop
from coordinator.plan.cells import plan_cells
from coordinator.plan.replay import recorded_cells, replay_plan
from coordinator.plan.schema import Plan, read_plan
from coordinator.progress import RunDisplay
from coordinator.report.ask_page import write_beside
from coordinator.report.html import write_report
from coordinator.report_facts import around_report
from coordinator.workspace import Workspace
from costmodel.dataset import TrainingSet, split_by_shape, training_set
from costmodel.evaluate.crossval import beside_baselines, scores
from costmodel.evaluate.metrics import to_json
from costmodel.train import BASE
from gemmcast import Predictor, modeldir
from gemmcast.card import ModelCard, Scores
from gemmcast.cell import Cell
from gemmcast.cli import prediction_text
from gemmcast.config import library_config
from gemmcast.device import Device
from gemmcast.errors import GemmcastError, InputError
from gemmcast.gemm import Gemm

PLAN = Path(__file__).resolve().parent.parent / "examples" / "demo.toml"
NEW_SHAPES = 44
"""Shapes per sweep of the second part."""
SEED_STEP = 1000
"""Their seed is the plan's seed plus this."""
MARK = ".gemmcast-demo"
"""A directory with this file was made by a demo and may be deleted by the next."""
ELSEWHERE = Gemm(m=4096, n=4096, k=4096, dtype="bf16", layout="nt")
"""What the model that comes with gemmcast is asked about an H100."""
UNMEASURED = "An H100, without measuring, by the model that comes with gemmcast"

HALVES = {"runtime_us": "runtime", "power_w": "power", "energy_mj": "energy"}
"""Targets whose errors before and after are shown side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """The result of a demo; summary.json in its directory."""

    cells_ok: int
    """Cells of the first part with status ok."""
    cells_failed: int
    model_version: str
    seconds: float
    base: str
    """The model that answered before anything was measured; empty where there was none."""
    scores: Scores
    """Errors on the new shapes: target -> method -> metric; the method `base` is that model."""
    new_shapes: int
    new_cells_failed: int
    latency_p50_us: float | None
    """Of one query through ONNX Runtime, one thread."""
    sklearn_latency_p50_us: float | None
    devices: list[str]


def run_demo(directory: Path, *, as_json: bool, recorded: Path | None = None) -> None:
    """Run the demo in a directory that is deleted and recreated.

    Args:
        recorded: a dataset that answers in place of this machine.
    """
    started_s = perf_counter()
    if recorded is not None and not recorded.is_file():
        way_out = "name a Parquet file of samples, such as datasets/h100_demo.parquet"
        raise InputError("--dataset", str(recorded), "no such file", way_out)
    _recreate(directory)
    plan = replay_plan(recorded.resolve()) if recorded else read_plan(PLAN)
    first, new_cells = recorded_cells(recorded) if recorded else (None, [])
    display = RunDisplay()
    session = RunSession(plan, Workspace(directory / "workspace"), Places(), display)
    with session.open() as stop:
        _show_step(1, "ask what is known before anything is measured")
        started = session.run(stop, cells=[], label="starting")
        _leave_if_stopped(stop)
        new_cells = new_cells or _draw_new_cells(session)
        before = _ask_base(session, started, new_cells)
        _show_step(2, "measure, train, publish, push")
        measured = session.run(stop, cells=first)
        _leave_if_stopped(stop)
        version = _pushed_version(session, measured)
        terminal.note(f"  {display.model_line}")
        _show_step(3, "predict new shapes, then measure them")
        predicted = predict_pushed(session.model_dir, new_cells, version)
        measured_new = session.run(stop, cells=new_cells, train=False, label="new shapes")
        _leave_if_stopped(stop)
    training, new = _training_and_new(session, plan, new_cells)
    model = session.registry.load(version)
    errors = _scores(training, new, predicted, before)
    page = write_beside(session.workspace.report, model)
    write_report(
        session.workspace.report,
        session.store.read(),
        model,
        around=around_report(session.workspace, page),
        first_sections=[demo_section(errors, new, predicted, before)],
    )
    summary = DemoSummary(
        cells_ok=measured.ok,
        cells_failed=measured.failed,
        model_version=version,
        seconds=round(perf_counter() - started_s, 1),
        base=model.card.base,
        scores=errors,
        new_shapes=len(set(new.shapes)),
        new_cells_failed=len(new_cells) - measured_new.ok,
        **_latencies(model.card),
        devices=sorted(set(new.table["device"].to_pylist())),
    )
    values = asdict(summary)
    (directory / "summary.json").write_text(json.dumps(values, indent=1) + "\n")
    terminal.result(
        values, as_json=as_json, text=lambda: _show(summary, new, predicted, before, session)
    )


def _recreate(directory: Path) -> None:
    """Delete only what a demo made."""
    if directory.exists():
        is_foreign = not (directory / MARK).exists() and any(directory.iterdir())
        if is_foreign:
            rule = "is not empty and was not made by a demo"
            raise InputError("--directory", str(directory), rule, "name a new directory")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / MARK).touch()


def _show_step(number: int, what: str) -> None:
    terminal.note(f"{number} {what}", style="bold")


def _leave_if_stopped(stop: Stop) -> None:
    if stop():
        raise KeyboardInterrupt


def _pushed_version(session: RunSession, measured: RunSummary) -> str:
    """The version that the run pushed. Raises GemmcastError where there is none."""
    version = measured.model.version
    if version is None:
        place = session.workspace.path
        raise GemmcastError(
            f"no model could be trained on {measured.ok} samples with status ok: "
            f"the warnings above say why; the samples are in {place}"
        )
    return version


def _latencies(card: ModelCard) -> dict[str, float | None]:
    return {
        "latency_p50_us": card.latency_p50_us,
        "sklearn_latency_p50_us": card.sklearn_latency_p50_us,
    }


def _ask_base(session: RunSession, started: RunSummary, cells: Sequence[Cell]) -> Predictions:
    """What the node's model says before anything is measured; nothing where there is none."""
    version = started.model.version
    if version is None:
        terminal.note("  nothing: no model of this kind of device comes with gemmcast")
        return {}
    predicted = predict_pushed(session.model_dir, cells, version)
    card = session.registry.load(version).card
    terminal.note(f"  {card.base} answers for {len(cells)} cells")
    return predicted


def _draw_new_cells(session: RunSession) -> list[Cell]:
    """The plan's sweeps over other shapes, on the devices of this node that take part."""
    devices = modeldir.devices(session.model_dir)
    known_shapes: set[str] = set()
    for device in devices:
        known_shapes |= {cell.gemm.shape_key for cell in plan_cells(session.plan, device).cells}
    return cells_of_new_shapes(session.plan, devices, known_shapes)


def cells_of_new_shapes(
    plan: Plan, devices: Sequence[Device], known_shapes: Collection[str]
) -> list[Cell]:
    """The plan's sweeps over shapes that are not known; boards of one name have the same cells."""
    cells: dict[str, Cell] = {}
    other_plan = _with_new_shapes(plan)
    for device in devices:
        for cell in plan_cells(other_plan, device).cells:
            if cell.gemm.shape_key not in known_shapes:
                cells[cell.cell_id] = cell
    return list(cells.values())


def _with_new_shapes(plan: Plan) -> Plan:
    sweeps = []
    for sweep in plan.sweep:
        draw = {"sample": NEW_SHAPES, "seed": plan.seed + SEED_STEP}
        shapes = sweep.shapes.model_copy(update=draw)
        sweeps.append(sweep.model_copy(update={"shapes": shapes, "repeats": 1}))
    return plan.model_copy(update={"sweep": tuple(sweeps)})


def predict_pushed(model_dir: Path, cells: Sequence[Cell], version: str) -> Predictions:
    """By the model that the run pushed to this node.

    Raises:
        GemmcastError: the node has another version.
    """
    predicted: Predictions = {}
    with Predictor(model_dir) as predictor:
        _refuse_other_version(predictor, version)
        for cell in cells:
            prediction = predictor.predict(
                cell.gemm, cell.config, cell.device_key, cache=cell.cache
            )
            predicted[cell.cell_id] = {
                name: getattr(prediction, name) for name in predictor.outputs
            }
        # It follows the directory: another version may have come meanwhile.
        _refuse_other_version(predictor, version)
    return predicted


def _refuse_other_version(predictor: Predictor, version: str) -> None:
    if predictor.version != version:
        directory = predictor.source
        rule = f"model directory {directory} holds model {predictor.version}"
        raise GemmcastError(f"{rule}, but model {version} was pushed there: run the demo again")


def _training_and_new(
    session: RunSession, plan: Plan, new_cells: Sequence[Cell]
) -> tuple[TrainingSet, TrainingSet]:
    """The rows that the model was trained on, and those of the new shapes."""
    table = session.store.read()
    new_ids = {cell.cell_id for cell in new_cells}
    is_new = np.array([cell_id in new_ids for cell_id in table["cell_id"].to_pylist()])
    new = training_set(table.filter(is_new))
    if not len(new):
        command = "python -m coordinator status --workspace demo/workspace"
        raise GemmcastError(f"no cell of a new shape could be measured; `{command}` says why")
    measured = training_set(table.filter(pc.invert(is_new)))
    training, _ = split_by_shape(measured, plan.train.holdout)
    return training, new


def _scores(
    training: TrainingSet, new: TrainingSet, predicted: Predictions, before: Predictions
) -> Scores:
    methods = beside_baselines(training, new, _columns(new, predicted))
    if before:
        for target, values in _columns(new, before).items():
            methods.get(target, {})[BASE] = values
    return to_json(scores(new, methods))


def _columns(new: TrainingSet, predicted: Predictions) -> dict[str, npt.NDArray[np.float64]]:
    """Output -> [n_rows]."""
    rows = [predicted[cell_id] for cell_id in new.table["cell_id"].to_pylist()]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _show(
    summary: DemoSummary,
    new: TrainingSet,
    predicted: Predictions,
    before: Predictions,
    session: RunSession,
) -> None:
    terminal.show_rows(
        title(new), columns_of_examples(before), examples(new, predicted, before), text_columns=2
    )
    if before:
        terminal.show_line(halves(summary))
    terminal.show_scores(summary.scores, title_of_scores(new))
    terminal.show_line(figures(summary))
    terminal.show_line("")
    terminal.show_line(f"workspace  {session.workspace.path}")
    terminal.show_line(f"report     {session.workspace.report}")
    terminal.show_line(f"model      {session.model_dir}")
    terminal.show_line(f"\n{UNMEASURED}:\n{shipped_answer()}")
    terminal.show_line("\nTry next:")
    for command in _next_commands(session, new):
        terminal.show_line(f"  {command}")


def halves(summary: DemoSummary) -> str:
    """The errors before anything was measured, and after, for people."""
    lines = [
        f"`base` is {summary.base}: asked before anything was measured.",
        "It never saw these rows. `model` started from it and was trained on the samples of here.",
    ]
    for target, name in HALVES.items():
        methods = summary.scores.get(target, {})
        if BASE in methods:
            before, after = methods[BASE], methods["model"]
            lines.append(f"{name:10} before {_error(before)}   after {_error(after)}")
    return "\n".join(lines)


def _error(errors: Mapping[str, float]) -> str:
    return f"{errors['median_ape']:5.1f} % median, {errors['mape']:5.1f} % mean"


def figures(summary: DemoSummary) -> str:
    """Times and counts, for people."""
    counts = (
        f"{summary.cells_ok} cells measured, {summary.cells_failed} failed; "
        f"model version {summary.model_version}; {summary.seconds:.0f} s"
    )
    if summary.latency_p50_us is None or summary.sklearn_latency_p50_us is None:
        # the base itself is still champion, and its card has no times of this machine
        return counts
    return (
        f"one query: {summary.latency_p50_us:.0f} us through ONNX Runtime, "
        f"{summary.sklearn_latency_p50_us:.0f} us through scikit-learn (median, one thread)\n"
        f"{counts}"
    )


def shipped_answer() -> str:
    """What `gemmcast predict` prints for a GPU that need not be here, without any measurement."""
    with Predictor() as predictor:
        device = predictor.device("h100")
        config = library_config(ELSEWHERE.dtype, device.kind)
        cost = predictor.predict(ELSEWHERE, config, device)
    return prediction_text(ELSEWHERE, config, device, cost)


def _next_commands(session: RunSession, new: TrainingSet) -> list[str]:
    config, other = "blas:kernel=numpy,cpu_threads=1", "blas:kernel=blocked,cpu_threads=1,tile=128"
    if "cublas" in new.column("family"):
        config, other = "cublas", "tiled:tile=16"
    python = _short(Path(sys.executable))
    model = _short(session.model_dir)
    workspace = _short(session.workspace.path)
    return [
        f"{python} -m gemmcast predict 500 600 700 --config {config} --model {model}",
        f"{python} -m gemmcast rank 500 600 700 {config} {other} --model {model}",
        f"{python} -m registry show --workspace {workspace}",
        f"{python} -m gemmcast models",
    ]


def _short(path: Path) -> str:
    """Relative to the current directory, where that is possible."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
