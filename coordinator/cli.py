"""`python -m coordinator run | plan | train | status | report | import | export | demo`.

Bad input ends with one line that names field, value and way out, exit code 2, and leaves store and registry as they were.
Every command takes --json: then its result is one JSON object on the last line of standard output.
"""

from __future__ import annotations

import json as jsons
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmcast.errors import GemmcastError, InputError, WorkspaceError

if TYPE_CHECKING:
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Measure GEMMs on a fleet, train, publish, push.")

PlanPath = Annotated[Path, typer.Argument(metavar="PLAN.toml", help="what to measure (docs/plan.md)")]
WorkspacePath = Annotated[Path, typer.Option("--workspace", help="directory of samples, registry and models; absolute inside a Ray job")]
AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON object on the last line")]
StoreUri = Annotated[str | None, typer.Option("--store", help="Delta table: a path or an object store's URI [workspace/samples]")]
RegistryUri = Annotated[str | None, typer.Option("--registry", help="a directory or an MLflow server's URI [workspace/registry]")]
DEFAULT_WORKSPACE = Path("workspace")


@app.command()
def run(
    plan: PlanPath,
    workspace: WorkspacePath = DEFAULT_WORKSPACE,
    address: Annotated[str | None, typer.Option(help="a Ray cluster to join; without it, one is started here")] = None,
    store: StoreUri = None,
    registry: RegistryUri = None,
    model_dir: Annotated[Path | None, typer.Option(help="where agents keep their node's model [workspace/node]")] = None,
    train: Annotated[bool, typer.Option(help="train, publish and push while measuring")] = True,
    json: AsJson = False,
) -> None:
    """Measure what a plan asks for, until every cell is committed; started again, it goes on where the store ends."""
    from coordinator import terminal
    from coordinator.fleet.session import Places, RunSession
    from coordinator.plan.schema import read_plan
    from coordinator.workspace import Workspace

    resolved = read_plan(plan)
    session = RunSession(resolved, Workspace(workspace), Places(store=store, registry=registry, model_dir=model_dir), address)
    terminal.console.print_json(resolved.model_dump_json(exclude_defaults=True))
    with session.open() as stop:
        found = session.run(stop, train=train)
    terminal.result(found, as_json=json, text=lambda: _show_run(found, session.model_line.text, session.workspace.path))
    if not found["complete"]:
        terminal.leave_now()


@app.command()
def plan(plan: PlanPath, json: AsJson = False) -> None:
    """Cells, estimated minutes, memory, and what is refused, on this machine's device (or the plan's dataset); measures nothing."""
    from agent.devices.local import local_device
    from coordinator import terminal
    from coordinator.plan.cells import plan_cells
    from coordinator.plan.schema import read_plan

    resolved = read_plan(plan)
    device = local_device(resolved)
    planned = plan_cells(resolved, device)
    found = {
        "device": device.name, "cells": len(planned.cells), "cells_with_power": sum(cell.power for cell in planned.cells),
        "shapes": len({cell.gemm.shape_key for cell in planned.cells}),
        "configurations": len({cell.config for cell in planned.cells}), "estimated_minutes": planned.minutes,
        "memory_mib": planned.memory_bytes / 2**20, "refused": planned.refused,
    }  # fmt: skip

    def text() -> None:
        terminal.console.print_json(resolved.model_dump_json())
        rows = [(name, f"{value:.1f}" if isinstance(value, float) else str(value)) for name, value in found.items() if name != "refused"]
        terminal.show_rows(f"plan {resolved.name}", ("", ""), rows)
        for reason, count in planned.refused.items():
            terminal.out.print(f"refused: {count} cells, {reason}")

    terminal.result(found, as_json=json, text=text)


@app.command()
def train(
    workspace: WorkspacePath = DEFAULT_WORKSPACE,
    store: StoreUri = None,
    registry: RegistryUri = None,
    min_rows: Annotated[int, typer.Option(help="refuse to train on fewer")] = 100,
    holdout: Annotated[float, typer.Option(help="share of the shapes never trained on")] = 0.15,
    compare: Annotated[bool, typer.Option("--compare", help="only compare the default with other kinds of models; publishes nothing")] = False,
    json: AsJson = False,
) -> None:
    """Train on a workspace's samples, gate, publish; and make the winner this node's model."""
    if compare:
        _compare(_opened(workspace, store)[1], min_rows, as_json=json)
        return
    from coordinator import terminal
    from coordinator.fleet.trainer import fit_and_judge, publish
    from coordinator.plan.schema import parse_plan
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace
    from gemmcast import modeldir
    from registry.registry import Registry

    settings = parse_plan(
        {"name": "train", "train": {"min_rows": min_rows, "holdout": holdout}, "sweep": [{"family": "blas", "shapes": {"sample": 1}}]}
    ).train
    place = Workspace(workspace)
    if store is None:
        place.must_exist()
    with place.locked():
        samples = SampleStore.open(store or place.samples, create=False)
        versions = Registry(registry or place.registry)
        champion = versions.load("champion")[0] if versions.champion() else None
        model, card, why_not = fit_and_judge(samples.read(), settings, samples.version, champion)
        number = publish(versions, model, card, why_not)
        if number is not None:
            modeldir.put_model(place.node, model, number)
    found = {
        "version": number, "objection": why_not, "rows": card.rows, "scores": card.scores, "unseen": card.generalisation, "ranking": card.ranking,
        "noise": card.repeatability, "sha256": card.sha256,
    }  # fmt: skip
    title = f"model {number}" if number else f"challenger ({why_not})"
    terminal.result(found, as_json=json, text=lambda: terminal.show_card(card, f"{title}: errors on {card.test_shapes} unseen shapes"))


@app.command()
def status(workspace: WorkspacePath = DEFAULT_WORKSPACE, store: StoreUri = None, registry: RegistryUri = None, json: AsJson = False) -> None:
    """What a workspace holds: samples by status, model versions."""
    from coordinator import terminal
    from registry.registry import Registry

    place, samples = _opened(workspace, store)
    versions = Registry(registry or place.registry)
    champion = versions.champion()
    found: dict[str, Any] = {
        "workspace": str(place.path), "store_version": samples.version, "samples": samples.counts(),
        "champion": champion.number if champion else None, "versions": len(versions.list()) if champion else 0,
    }  # fmt: skip
    terminal.result(found, as_json=json, text=lambda: terminal.show_rows("status", ("", ""), [(name, str(value)) for name, value in found.items()]))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a table that somebody else measured (docs/importing.md)")],
    format: Annotated[str | None, typer.Option(help="aiconfigurator, kernel-tuner-t4, csv or parquet [what the file looks like]")] = None,
    workspace: WorkspacePath = DEFAULT_WORKSPACE,
    store: StoreUri = None,
    device: Annotated[Path | None, typer.Option(help="JSON file of the device it was measured on [estimated from the table]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="COLUMN=VALUE", help="holds for every row of T4 results; repeatable")] = None,
    json: AsJson = False,
) -> None:
    """Append the rows of a measured table to a workspace's samples; rows that are there already add nothing."""
    from coordinator import terminal
    from coordinator.samples.importer import append, read, read_device
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

    place = Workspace(workspace)
    outside = read(file, format, read_device(device) if device else None, _assignments(set_ or []))
    with place.locked():
        added = append(outside, SampleStore.open(store or place.samples, create=True))
    found: dict[str, Any] = {
        "file": str(file), "format": outside.format, "rows": len(outside.table), "added": added, "already_there": len(outside.table) - added,
        "skipped": outside.skipped, "notes": outside.notes,
    }  # fmt: skip

    def text() -> None:
        rows = [(name, str(value)) for name, value in found.items() if name not in ("skipped", "notes")]
        terminal.show_rows("import", ("", ""), rows + [(f"skipped: {why}", str(count)) for why, count in outside.skipped.items()])
        for note in outside.notes:
            terminal.out.print(note, soft_wrap=True, highlight=False, markup=False)

    terminal.result(found, as_json=json, text=text)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a dataset, .parquet (its card, .md, is written beside it), or T4 results, .json")],
    workspace: WorkspacePath = DEFAULT_WORKSPACE,
    store: StoreUri = None,
    format: Annotated[str | None, typer.Option(help="parquet or t4 [by the file's name]")] = None,
    json: AsJson = False,
) -> None:
    """A workspace's samples as one Parquet file with a card, to keep, to share, to replay; or as T4 results for other tuners."""
    from coordinator import terminal
    from coordinator.samples.export import counts, write_recording
    from coordinator.samples.formats.t4 import write_t4

    if format not in (None, "parquet", "t4"):
        raise InputError("--format", format, "unknown format", "use parquet or t4")
    place, samples = _opened(workspace, store)
    table = samples.read()
    if format == "t4" or (format is None and file.suffix == ".json"):
        write_t4(table, file)
        found = counts(table.to_pylist())
    else:
        found = write_recording(table, file, jsons.loads(place.plan.read_text())["measure"] if place.plan.is_file() else None)
    rows = [(name, str(value)) for name, value in found.items()]
    terminal.result({"file": str(file), **found}, as_json=json, text=lambda: terminal.show_rows(f"{file}", ("", ""), rows))


@app.command()
def report(
    workspace: WorkspacePath = DEFAULT_WORKSPACE,
    store: StoreUri = None,
    registry: RegistryUri = None,
    out: Annotated[Path | None, typer.Option(help="the HTML file [workspace/report.html]")] = None,
    json: AsJson = False,
) -> None:
    """One self-contained HTML file: predicted against measured, errors by size, the samples."""
    from coordinator import terminal
    from coordinator.report.html import write_report
    from registry.registry import Registry

    place, samples = _opened(workspace, store)
    versions = Registry(registry or place.registry)
    path = out or place.report
    write_report(path, samples.read(), versions.load("champion") if versions.champion() else None)
    terminal.result({"report": str(path)}, as_json=json, text=lambda: terminal.out.print(f"report: {path}"))


@app.command()
def demo(
    directory: Annotated[Path, typer.Option(help="made anew by every demo")] = Path("demo"),
    dataset: Annotated[Path | None, typer.Option(help="a recorded dataset whose device answers in place of this machine's")] = None,
    json: AsJson = False,
) -> None:
    """The whole circle in a minute: measure, train, publish, push, predict shapes never measured, measure them, compare."""
    from coordinator.demo import run_demo

    run_demo(directory.resolve(), as_json=json, recorded=dataset)


def _compare(samples: SampleStore, min_rows: int, *, as_json: bool) -> None:
    from coordinator import terminal
    from costmodel.alternatives import CANDIDATES, compare
    from costmodel.evaluate.crossval import FOLDS
    from costmodel.train import enough

    data = enough(samples.read(), min_rows)
    with terminal.steps("comparing", FOLDS * len(CANDIDATES)) as step:
        found = compare(data, step)
    terminal.result(found, as_json=as_json, text=lambda: terminal.show_compared(found))


def _assignments(texts: list[str]) -> dict[str, str]:
    """`m=1024` and the like."""
    for text in texts:
        if "=" not in text:
            raise InputError("--set", text, "must be COLUMN=VALUE", "write --set m=1024")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _opened(workspace: Path, store: str | None) -> tuple[Workspace, SampleStore]:
    """For reading. Raises InputError where there are no samples."""
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

    place = Workspace(workspace)
    if store is None:
        place.must_exist()
    return place, SampleStore.open(store or place.samples, create=False)


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app(standalone_mode=False)
    except (InputError, WorkspaceError) as error:
        _fail(error, 2)
    except GemmcastError as error:
        _fail(error, 1)
    except typer.Exit as leaving:
        sys.exit(leaving.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's own: wrong usage
            error.show()
            sys.exit(error.exit_code)
        raise


def _fail(error: Exception, code: int) -> None:
    from coordinator.terminal import fail

    fail(error, code)


def _show_run(found: dict[str, Any], model: str, workspace: Path) -> None:
    from coordinator import terminal

    word = "all committed" if found["complete"] else "stopped; start it again to go on"
    counts = ", ".join(f"{count} {status}" for status, count in sorted(found["statuses"].items())) or "nothing new"
    terminal.out.print(f"{found['done']} of {found['cells']} cells: {word}. This run: {counts}.\n{model}.\nWorkspace: {workspace}", soft_wrap=True)
