"""`python -m coordinator run | plan | tune | train | compare | status | health | report | ...`.

Bad input ends with one line `error: ...` that names field, value and way out, and with exit code 2;
store and registry stay as they were. With --json, the result is one JSON object on the last line of
standard output. Commands only read options and print results; the work is done elsewhere, and
gemmcast/program.py has how every program ends.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import typer
from typer.main import get_command

from coordinator.cli_health import health
from coordinator.cli_samples import export, import_, open_samples
from coordinator.cli_status import status
from coordinator.logs import log_as, say_end
from coordinator.options import (
    WORKSPACE,
    Address,
    AsJson,
    BaseNames,
    DemoDataset,
    DemoDirectory,
    ExamFile,
    GramsPerKwh,
    Holdout,
    KnownDevices,
    KwhPrice,
    LanguageModelFile,
    LogFormat,
    MinRows,
    ModelDirectory,
    PlanAddress,
    PlanPath,
    RegistryUri,
    ReportFile,
    SigningKey,
    StoreUri,
    TensorParallel,
    TokenCounts,
    Verbose,
    Version,
    WithoutToken,
    WithTraining,
    WorkspacePath,
)
from coordinator.tune.command import tune
from gemmcast.carbon import Rates
from gemmcast.errors import InputError
from gemmcast.program import run_click

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure GEMMs on a fleet, train, publish, push.",
)

PROGRAM = "python -m coordinator"
DEMO = Path("demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    # It warns of a home directory that it can't write to, and works without.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    return run_click(get_command(app), PROGRAM, argv, say_end)


@app.callback()
def program(
    # Its callback has shown it and ended the program.
    version: Version = False,  # noqa: ARG001
    log_format: LogFormat = None,
) -> None:
    """Measure GEMMs on a fleet, train, publish, push."""
    log_as(log_format)


@app.command()
def run(
    plan: PlanPath,
    workspace: WorkspacePath = WORKSPACE,
    address: Address = None,
    without_token: WithoutToken = False,
    store: StoreUri = None,
    registry: RegistryUri = None,
    signing_key: SigningKey = None,
    model_dir: ModelDirectory = None,
    train: WithTraining = True,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Measure a plan until every cell has its answer; started again, it continues."""
    from dataclasses import asdict

    from coordinator import terminal
    from coordinator.fleet.session import Places, RunSession
    from coordinator.fleet.signals import leave_interrupted
    from coordinator.plan.schema import read_plan
    from coordinator.progress import RunDisplay
    from coordinator.workspace import Workspace

    resolved = read_plan(plan)
    place = Workspace(workspace)
    places = Places(store=store, registry=registry, model_dir=model_dir, signing_key=signing_key)
    display = RunDisplay()
    session = RunSession(resolved, place, places, display)
    with session.open(address, without_token=without_token) as stop:
        terminal.echo_plan(resolved.model_dump(exclude_defaults=not verbose), verbose=verbose)
        summary = session.run(stop, train=train)

    def text() -> None:
        """The result for people."""
        for line in summary.lines():
            terminal.show_line(line)
        terminal.show_line(f"{display.model_line}.\nWorkspace: {place.path}")
        terminal.show_line(summary.model.text())
        if summary.tables.version is not None:
            terminal.show_line(summary.tables.text())

    terminal.result(asdict(summary), as_json=json, text=text)
    if not summary.complete:
        leave_interrupted()


@app.command()
def plan(
    plan: PlanPath,
    device: KnownDevices = None,
    address: PlanAddress = None,
    without_token: WithoutToken = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Count a plan's cells on this machine's device, or on others; measures nothing."""
    from dataclasses import asdict

    from coordinator import terminal
    from coordinator.plan.schema import read_plan
    from coordinator.sizes import sizes_of

    resolved = read_plan(plan)
    sizes = sizes_of(resolved, device or (), address, without_token=without_token)

    def text() -> None:
        """The result for people."""
        terminal.echo_plan(resolved.model_dump(exclude_defaults=not verbose), verbose=verbose)
        for size in sizes:
            counts = asdict(size)
            refused = counts.pop("refused")
            terminal.show_values(f"plan {resolved.name}", counts)
            for reason, count in refused.items():
                terminal.show_line(f"refused: {count} cells, {reason}")
        if not any(size.cells for size in sizes):
            terminal.show_line("size it for other devices with --device h100, or with --address")

    devices = [asdict(size) for size in sizes]
    is_list = address or len(devices) > 1
    values = {"devices": devices} if is_list else devices[0]
    terminal.result(values, as_json=json, text=text)


app.command()(tune)


@app.command()
def train(
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    registry: RegistryUri = None,
    signing_key: SigningKey = None,
    min_rows: MinRows = 100,
    holdout: Holdout = 0.15,
    exam: ExamFile = None,
    base: BaseNames = None,
    json: AsJson = False,
) -> None:
    """Train on a workspace's samples and publish; the winner becomes this node's model."""
    from coordinator import terminal
    from coordinator.fleet.bases import named_bases
    from coordinator.fleet.session import Places
    from coordinator.progress import stages
    from coordinator.training import train_workspace
    from coordinator.workspace import Workspace
    from costmodel.exam import read_exam
    from costmodel.settings import TrainSettings

    settings = TrainSettings(min_rows=min_rows, holdout=holdout)
    tested_with = None if exam is None else read_exam(exam)
    bases = named_bases(base)
    places = Places(store=store, registry=registry, signing_key=signing_key)
    with stages("training") as step:
        version, judged = train_workspace(
            Workspace(workspace), places, settings, bases, tested_with, step
        )
    _, card, objection = judged
    values = {
        "version": version,
        "objection": objection,
        "base": card.base,
        "rows": card.rows,
        "exam": card.exam,
        "scores": card.scores,
        "generalisation": card.generalisation,
        "ranking": card.ranking,
        "repeatability": card.repeatability,
        "sha256": card.sha256,
    }
    name = f"model {version}" if version else f"challenger ({objection})"
    title = f"{name}: errors on {card.test_shapes} held-out shapes"
    terminal.result(values, as_json=json, text=lambda: terminal.show_card(card, title))


@app.command()
def compare(
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    min_rows: MinRows = 100,
    json: AsJson = False,
) -> None:
    """Compare the default kind of model with others on a workspace's samples; publishes nothing."""
    from coordinator import terminal
    from coordinator.progress import stages
    from costmodel.alternatives import compare
    from costmodel.evaluate.groups import FOLDS
    from costmodel.model_kinds import MODEL_KINDS
    from costmodel.train import enough_rows

    _, samples = open_samples(workspace, store)
    data = enough_rows(samples.read(), min_rows)
    fits = FOLDS * len(MODEL_KINDS)
    count = itertools.count(1)
    with stages("comparing") as step:
        comparison = compare(data, lambda name: step(name, next(count), fits))

    def text() -> None:
        """The result for people."""
        terminal.show_comparison(cast("terminal.Comparison", comparison))

    terminal.result(comparison, as_json=json, text=text)


app.command()(status)
app.command()(health)


@app.command()
def report(
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    registry: RegistryUri = None,
    out: ReportFile = None,
    model: LanguageModelFile = None,
    tokens: TokenCounts = "1,16,256,4096",
    tp: TensorParallel = "1",
    kwh_price: KwhPrice = None,
    gco2_per_kwh: GramsPerKwh = None,
    json: AsJson = False,
) -> None:
    """Write one HTML file: predicted against measured, errors by size, the samples."""
    from coordinator import terminal
    from coordinator.progress import stages
    from coordinator.report.ask_page import NOT_BUILT, write_beside
    from coordinator.samples.export import refuse_unwritable
    from registry.registry import Registry

    rates = Rates(kwh_price=kwh_price, gco2_per_kwh=gco2_per_kwh)
    if rates.per_kwh and model is None:
        rule = "--kwh-price and --gco2-per-kwh are of the GEMMs of a language model"
        raise InputError("--model", model, rule, "add --model CONFIG.json")
    place, samples = open_samples(workspace, store)
    versions = Registry(registry or place.registry)
    path = out or place.report
    refuse_unwritable(path)
    with stages("report") as step:
        step(f"computing, from {sum(samples.counts().values()):,} samples", 0, 1)
        # matplotlib, scikit-learn and SciPy, which take seconds
        from coordinator.report.html import write_report
        from coordinator.report.language_model import LanguageModelCase
        from coordinator.report_facts import around_report

        champion = versions.load("champion") if versions.champion() else None
        case = LanguageModelCase.read(model, tokens, tp, rates) if model else None
        page = write_beside(path, champion)
        around = around_report(place, page)
        write_report(path, samples.read(), champion, case, around=around, step=step)
    line = f"report: {path}"
    if champion:
        line += f"\npage:   {page or NOT_BUILT}"
    values = {"report": str(path), "page": str(page) if page else None}
    terminal.result(values, as_json=json, text=lambda: terminal.show_line(line))


app.command("import")(import_)
app.command()(export)


@app.command()
def demo(
    directory: DemoDirectory = DEMO, dataset: DemoDataset = None, json: AsJson = False
) -> None:
    """Run everything once in a minute: measure, train, predict new shapes, measure them."""
    from coordinator.demo import run_demo

    run_demo(directory.resolve(), as_json=json, recorded=dataset)
