"""`python -m coordinator run | plan | train | status | report | export | demo`.

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
    from coordinator.store import SampleStore
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
    from coordinator.campaign import Campaign, Places
    from coordinator.plan import read_plan
    from coordinator.workspace import Workspace

    resolved = read_plan(plan)
    campaign = Campaign(resolved, Workspace(workspace), Places(store=store, registry=registry, model_dir=model_dir), address)
    terminal.console.print_json(resolved.model_dump_json(exclude_defaults=True))
    with campaign.open() as stop:
        found = campaign.run(stop, train=train)
    terminal.result(found, as_json=json, text=lambda: _show_run(found, campaign.model_line.text, campaign.workspace.path))
    if not found["complete"]:
        terminal.leave_now()


@app.command()
def plan(plan: PlanPath, json: AsJson = False) -> None:
    """Cells, estimated minutes, memory, and what is refused, on this machine's device (or the plan's dataset); measures nothing."""
    from coordinator import terminal
    from coordinator.cells import plan_cells
    from coordinator.local import local_device
    from coordinator.plan import read_plan

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
    json: AsJson = False,
) -> None:
    """Train on a workspace's samples, gate, publish; and make the winner this node's model."""
    from coordinator import terminal
    from coordinator.plan import parse_plan
    from coordinator.store import SampleStore
    from coordinator.training import fit_and_judge, publish
    from coordinator.workspace import Workspace
    from gemmcast import modeldir
    from registry.store import Registry

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
    found = {"version": number, "objection": why_not, "rows": card.rows, "scores": card.scores, "sha256": card.sha256}
    title = f"model {number}" if number else f"challenger ({why_not})"
    terminal.result(found, as_json=json, text=lambda: terminal.show_scores(card.scores, f"{title}: errors on {card.test_shapes} unseen shapes"))


@app.command()
def status(workspace: WorkspacePath = DEFAULT_WORKSPACE, store: StoreUri = None, registry: RegistryUri = None, json: AsJson = False) -> None:
    """What a workspace holds: samples by status, model versions."""
    from coordinator import terminal
    from registry.store import Registry

    place, samples = _opened(workspace, store)
    versions = Registry(registry or place.registry)
    champion = versions.champion()
    found: dict[str, Any] = {
        "workspace": str(place.path), "store_version": samples.version, "samples": samples.counts(),
        "champion": champion.number if champion else None, "versions": len(versions.list()) if champion else 0,
    }  # fmt: skip
    terminal.result(found, as_json=json, text=lambda: terminal.show_rows("status", ("", ""), [(name, str(value)) for name, value in found.items()]))


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="the dataset; its card, FILE.md, is written beside it")],
    workspace: WorkspacePath = DEFAULT_WORKSPACE,
    store: StoreUri = None,
    json: AsJson = False,
) -> None:
    """A workspace's samples as one Parquet file with a card: to keep, to share, to replay."""
    from coordinator import terminal
    from coordinator.recording import write_recording

    place, samples = _opened(workspace, store)
    measure = jsons.loads(place.plan.read_text())["measure"] if place.plan.is_file() else None
    found = write_recording(samples.read(), file, measure)
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
    from coordinator.report import write_report
    from registry.store import Registry

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


def _opened(workspace: Path, store: str | None) -> tuple[Workspace, SampleStore]:
    """For reading. Raises InputError where there are no samples."""
    from coordinator.store import SampleStore
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
