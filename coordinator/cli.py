"""`python -m coordinator run | plan | train | compare | status | report | import | export | demo`.

Bad input ends with one line `error: ...` that names field, value and way out, and with exit code 2;
store and registry stay as they were. With --json, the result is one JSON object on the last line of
standard output. Commands only read options and print results; the work is done elsewhere.
"""

from __future__ import annotations

import json as jsons
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from coordinator.options import (
    Address,
    AsJson,
    Constants,
    DemoDataset,
    DemoDirectory,
    DeviceFile,
    ExportFile,
    ExportFormat,
    Holdout,
    ImportFile,
    ImportFormat,
    MinRows,
    ModelDirectory,
    PlanPath,
    RegistryUri,
    ReportFile,
    StoreUri,
    WithTraining,
    WorkspacePath,
)
from gemmcast.errors import GemmcastError, InputError, WorkspaceError

if TYPE_CHECKING:
    from coordinator.fleet.session import RunSummary
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure GEMMs on a fleet, train, publish, push.",
)

WORKSPACE = Path("workspace")
DEMO = Path("demo")
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


@app.command()
def run(
    plan: PlanPath,
    workspace: WorkspacePath = WORKSPACE,
    address: Address = None,
    store: StoreUri = None,
    registry: RegistryUri = None,
    model_dir: ModelDirectory = None,
    train: WithTraining = True,
    json: AsJson = False,
) -> None:
    """Measure a plan until every cell is committed; started again, it continues."""
    from dataclasses import asdict

    from coordinator import terminal
    from coordinator.fleet.session import Places, RunSession
    from coordinator.fleet.signals import leave_now
    from coordinator.plan.schema import read_plan
    from coordinator.workspace import Workspace

    resolved = read_plan(plan)
    place = Workspace(workspace)
    places = Places(store=store, registry=registry, model_dir=model_dir)
    display = terminal.TerminalDisplay()
    session = RunSession(resolved, place, places, display)
    terminal.console.print_json(resolved.model_dump_json(exclude_defaults=True))
    with session.open(address) as stop:
        summary = session.run(stop, train=train)

    def text() -> None:
        """The result for people."""
        terminal.show_line(_run_text(summary))
        terminal.show_line(f"{display.model_line}.\nWorkspace: {place.path}")
        terminal.show_line(summary.model.text())

    terminal.result(asdict(summary), as_json=json, text=text)
    if not summary.complete:
        leave_now()


@app.command()
def plan(plan: PlanPath, json: AsJson = False) -> None:
    """Count a plan's cells on this machine's device, or its dataset's; measures nothing."""
    from agent.devices.local import local_device
    from coordinator import terminal
    from coordinator.plan.cells import plan_cells
    from coordinator.plan.schema import read_plan

    resolved = read_plan(plan)
    devices = resolved.devices
    device = local_device(devices.kind, devices.dataset, devices.device_name)
    planned = plan_cells(resolved, device)
    cells = planned.cells
    counts = {
        "device": device.name,
        "cells": len(cells),
        "cells_with_power": sum(cell.power for cell in cells),
        "shapes": len({cell.gemm.shape_key for cell in cells}),
        "configurations": len({cell.config for cell in cells}),
        "estimated_minutes": planned.minutes,
        "memory_mib": planned.memory_bytes / 2**20,
    }

    def text() -> None:
        """The result for people."""
        terminal.console.print_json(resolved.model_dump_json())
        terminal.show_values(f"plan {resolved.name}", counts)
        for reason, count in planned.refused.items():
            terminal.show_line(f"refused: {count} cells, {reason}")

    terminal.result({**counts, "refused": planned.refused}, as_json=json, text=text)


@app.command()
def train(
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    registry: RegistryUri = None,
    min_rows: MinRows = 100,
    holdout: Holdout = 0.15,
    json: AsJson = False,
) -> None:
    """Train on a workspace's samples and publish; the winner becomes this node's model."""
    from coordinator import terminal
    from coordinator.fleet.publishing import publish_or_keep
    from coordinator.fleet.trainer import champion_model, fit_and_judge
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace
    from costmodel.settings import TrainSettings
    from gemmcast import modeldir
    from registry.registry import Registry

    settings = TrainSettings(min_rows=min_rows, holdout=holdout)
    place = Workspace(workspace)
    if store is None:
        place.must_exist()
    with place.locked():
        samples = SampleStore.open(store or place.samples, create=False)
        versions = Registry(registry or place.registry)
        versions.check()
        champion = champion_model(versions)
        judged = fit_and_judge(samples.read(), settings, samples.version, champion)
        version = publish_or_keep(versions, judged, champion, place.kept)
        model, card, objection = judged
        if version is not None:
            modeldir.put_model(place.node, model, version)
    values = {
        "version": version,
        "objection": objection,
        "rows": card.rows,
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
    from costmodel.alternatives import compare
    from costmodel.evaluate.groups import FOLDS
    from costmodel.model_kinds import MODEL_KINDS
    from costmodel.train import enough_rows

    _, samples = _opened(workspace, store)
    data = enough_rows(samples.read(), min_rows)
    with terminal.steps("comparing", FOLDS * len(MODEL_KINDS)) as step:
        comparison = compare(data, step)

    def text() -> None:
        """The result for people."""
        terminal.show_comparison(cast("terminal.Comparison", comparison))

    terminal.result(comparison, as_json=json, text=text)


@app.command()
def status(
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    registry: RegistryUri = None,
    json: AsJson = False,
) -> None:
    """Show what a workspace holds: samples by status, model versions."""
    from coordinator import terminal
    from coordinator.fleet.delivery import read_receipts
    from registry.registry import Registry

    place, samples = _opened(workspace, store)
    versions = Registry(registry or place.registry)
    champion = versions.champion()
    nodes = {receipt.agent: receipt.text() for receipt in read_receipts(place.nodes)}
    values: dict[str, object] = {
        "workspace": str(place.path),
        "store_version": samples.version,
        "samples": samples.counts(),
        "champion": champion.number if champion else None,
        "versions": len(versions.list()) if champion else 0,
        "nodes": nodes,
    }
    terminal.result(values, as_json=json, text=lambda: terminal.show_values("status", values))


@app.command()
def report(
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    registry: RegistryUri = None,
    out: ReportFile = None,
    json: AsJson = False,
) -> None:
    """Write one HTML file: predicted against measured, errors by size, the samples."""
    from coordinator import terminal
    from coordinator.report.html import write_report
    from registry.registry import Registry

    place, samples = _opened(workspace, store)
    versions = Registry(registry or place.registry)
    champion = versions.load("champion") if versions.champion() else None
    path = out or place.report
    write_report(path, samples.read(), champion)
    line = f"report: {path}"
    terminal.result({"report": str(path)}, as_json=json, text=lambda: terminal.show_line(line))


@app.command("import")
def import_(
    file: ImportFile,
    format: ImportFormat = None,
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    device: DeviceFile = None,
    constants: Constants = None,
    json: AsJson = False,
) -> None:
    """Append a measured table to a workspace's samples; rows that are there add nothing."""
    from coordinator import terminal
    from coordinator.samples.importer import read_device, read_table
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

    place = Workspace(workspace)
    given_device = read_device(device) if device else None
    uri = store or place.samples
    known = (
        SampleStore.open(uri, create=False).measured_devices() if SampleStore.exists(uri) else []
    )
    imported = read_table(file, format, given_device, _assignments(constants or []), known)
    with place.locked(), SampleStore.writing(uri, place.path) as samples:
        added = len(samples.append([imported.table]))
    counts: dict[str, object] = {
        "file": str(file),
        "format": imported.format,
        "rows": len(imported.table),
        "added": added,
        "already_there": len(imported.table) - added,
    }

    def text() -> None:
        """The result for people."""
        skipped = {f"skipped: {why}": count for why, count in imported.skipped.items()}
        terminal.show_values("import", counts | skipped)
        for note in imported.notes:
            terminal.show_line(note)

    values = {**counts, "skipped": imported.skipped, "notes": imported.notes}
    terminal.result(values, as_json=json, text=text)


@app.command()
def export(
    file: ExportFile,
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    format: ExportFormat = None,
    json: AsJson = False,
) -> None:
    """Write a workspace's samples as a dataset with its card (.md), or as T4 results."""
    from coordinator import terminal
    from coordinator.samples.dataset_card import counts
    from coordinator.samples.export import write_dataset
    from coordinator.samples.formats.t4 import write_t4

    if format not in (None, "parquet", "t4"):
        raise InputError("--format", format, "unknown format", "use parquet or t4")
    place, samples = _opened(workspace, store)
    table = samples.read()
    if format == "t4" or (format is None and file.suffix == ".json"):
        write_t4(table, file)
        counted = counts(table.to_pylist())
    else:
        counted = write_dataset(table, file, _measure_settings(place))
    values = {"file": str(file), **counted}
    terminal.result(values, as_json=json, text=lambda: terminal.show_values(str(file), counted))


@app.command()
def demo(
    directory: DemoDirectory = DEMO, dataset: DemoDataset = None, json: AsJson = False
) -> None:
    """Run everything once in a minute: measure, train, predict new shapes, measure them."""
    from coordinator.demo import run_demo

    run_demo(directory.resolve(), as_json=json, recorded=dataset)


def main() -> None:
    """Run one command and exit."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(standalone_mode=False)
    except (InputError, WorkspaceError) as error:
        _fail(str(error), BAD_INPUT)
    except GemmcastError as error:
        _fail(str(error), FAILED)
    except typer.TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)


def _fail(message: str, code: int) -> None:
    from coordinator.terminal import fail

    fail(message, code)


def _opened(workspace: Path, store: str | None) -> tuple[Workspace, SampleStore]:
    """For reading. Raises InputError if there are no samples."""
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

    place = Workspace(workspace)
    if store is None:
        place.must_exist()
    return place, SampleStore.open(store or place.samples, create=False)


def _assignments(texts: Sequence[str]) -> dict[str, str]:
    """Column -> value, of texts such as `m=1024`."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError("--set", text, "must be COLUMN=VALUE", "write --set m=1024")
        values[name] = value
    return values


def _measure_settings(workspace: Workspace) -> Mapping[str, object] | None:
    """The [measure] table of the last run."""
    if not workspace.plan.is_file():
        return None
    settings: Mapping[str, object] = jsons.loads(workspace.plan.read_text())["measure"]
    return settings


def _run_text(summary: RunSummary) -> str:
    state = "all committed" if summary.complete else "stopped; start it again to go on"
    statuses = [f"{count} {status}" for status, count in sorted(summary.statuses.items())]
    counts = ", ".join(statuses) or "nothing new"
    return f"{summary.done} of {summary.cells} cells: {state}. This run: {counts}."
