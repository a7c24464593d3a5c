"""`python -m coordinator status`: what a workspace holds, and how its run is doing.

With --watch again and again, from what the run notes in the workspace: no cluster, no store and no
registry is opened. Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from time import sleep
from typing import TYPE_CHECKING

from coordinator.cli_samples import open_samples
from coordinator.options import (
    WORKSPACE,
    AsJson,
    Every,
    RegistryUri,
    StoreUri,
    Watch,
    WorkspacePath,
)
from gemmcast.errors import InputError
from gemmcast.program import json_line

if TYPE_CHECKING:
    from coordinator.live_view import View
    from coordinator.samples.store import SampleStore
    from coordinator.workspace import Workspace

LONGEST_PAUSE_S = 3600.0


def status(
    workspace: WorkspacePath = WORKSPACE,
    store: StoreUri = None,
    registry: RegistryUri = None,
    watch: Watch = False,
    every: Every = 2.0,
    json: AsJson = False,
) -> None:
    """Show what a workspace holds and how its run is doing: samples, rate, model versions."""
    from coordinator import terminal
    from coordinator.workspace import Workspace

    if watch:
        _watch(Workspace(workspace), every, as_json=json)
        return
    place, samples = open_samples(workspace, store)
    values = _values(place, samples, registry)
    terminal.result(values, as_json=json, text=lambda: terminal.show_status(values))


def _values(place: Workspace, samples: SampleStore, registry: str | None) -> dict[str, object]:
    """The result of `status --json`."""
    from coordinator.fleet.delivery import read_receipts
    from coordinator.fleet.record import RunRecord
    from coordinator.health.record import HealthRecord
    from coordinator.samples.activity import activity
    from registry.registry import Registry

    versions = Registry(registry or place.registry)
    champion = versions.champion()
    counts = samples.counts()
    nodes = {receipt.agent: receipt.text() for receipt in read_receipts(place.nodes)}
    record = RunRecord.read(place.run)
    sick = HealthRecord.read(place.health).sick()
    return {
        "workspace": str(place.path),
        "store_version": samples.version,
        "samples": counts,
        "total": sum(counts.values()),
        **asdict(activity(samples)),
        "champion": champion.number if champion else None,
        "versions": len(versions.list()) if champion else 0,
        "nodes": nodes,
        "waiting": record.waiting if place.is_held() else {},
        "faults": record.faults if place.is_held() else {},
        "closed": record.closed if place.is_held() else "",
        "contended_due": record.contended_due,
        "second_due": record.second_due,
        "sick": {board.board: board.text for board in sick},
    }


def _watch(place: Workspace, every_s: float, *, as_json: bool) -> None:
    """Show the run until a signal comes.

    Raises:
        InputError: there is no such workspace, or the pause is none.
    """
    if not 0.1 <= every_s <= LONGEST_PAUSE_S:
        rule = f"must be from 0.1 to {LONGEST_PAUSE_S:.0f} seconds"
        raise InputError("--every", every_s, rule, "give --every 2")
    if not place.path.is_dir():
        way_out = "run a plan there, or name the workspace of a run with --workspace"
        raise InputError("--workspace", str(place.path), "does not exist", way_out)
    if as_json:
        _repeat(lambda: _print_json(look(place)), every_s)
    else:
        _show(lambda: look(place), every_s)


def look(place: Workspace) -> View:
    """What the workspace says now."""
    from coordinator.fleet.live import LiveRun
    from coordinator.health.record import HealthRecord
    from coordinator.live_view import View

    try:
        sick = {board.board: board.text for board in HealthRecord.read(place.health).sick()}
    except InputError:
        # `health` and `train` refuse a damaged record; here the rest is worth a look.
        sick = {}
    return View(
        workspace=str(place.path),
        now=datetime.now(UTC),
        run=LiveRun.read(place.live),
        is_held=place.is_held(),
        sick=sick,
    )


def _show(see: Callable[[], View], every_s: float) -> None:
    """A table that changes in place; where the output is no terminal, a block each time."""
    from rich.live import Live

    from coordinator.live_view import render
    from coordinator.terminal import out

    if not out.is_terminal or out.is_dumb_terminal:
        _repeat(lambda: out.print(render(see()), "", sep="\n"), every_s)
        return
    with Live(console=out, auto_refresh=False, vertical_overflow="crop") as live:
        _repeat(lambda: live.update(render(see(), out.height), refresh=True), every_s)


def _print_json(view: View) -> None:
    run = None if view.run is None else view.run.values()
    is_running = view.is_measuring
    values = {"workspace": view.workspace, "running": is_running, "run": run, "sick": view.sick}
    sys.stdout.write(json_line(values) + "\n")


def _repeat(action: Callable[[], None], every_s: float) -> None:
    while True:
        action()
        sleep(every_s)
