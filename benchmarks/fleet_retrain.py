"""From new samples to 64 nodes that answer with the retrained model, while they go on answering.

    .venv/bin/python benchmarks/fleet_retrain.py          a minute; JSON on the last line

A store has 20,000 rows of an H100 that is 15 % slower than the recorded one, and nodes answer from
the shipped model, which knows the recorded one. 64 replayed agents (benchmarks/fleet/) then send
new rows; the coordinator's own scheduler, trainer, gate, registry and deliveries do the rest, as by
default. Beside each agent a predictor answers several times a second.
`seconds` is the time from the first new row to the last predictor's first answer with the new
model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.fleet.answering import Answering, Query
from benchmarks.fleet.messages import Pace
from benchmarks.fleet.recording import Recording
from benchmarks.fleet.replayed import ReplayedFleet
from coordinator.fleet.bases import judged_base, read_bases
from coordinator.fleet.champion import ChampionWatch
from coordinator.fleet.connection import EMBEDDED, connect
from coordinator.fleet.interface import Event, Samples
from coordinator.fleet.pacing import batch_s
from coordinator.fleet.publishing import publish
from coordinator.fleet.scheduler import Scheduler
from coordinator.fleet.trainer import RayTrainer
from coordinator.plan.schema import SHIPPED, Plan, parse_plan
from coordinator.samples.store import SampleStore
from costmodel.base import Base
from gemmcast import Predictor, modeldir, models
from gemmcast.arrow import SCHEMA, read_samples
from gemmcast.card import ModelCard
from gemmcast.cell import Cell
from gemmcast.cli_parser import Parser
from gemmcast.descriptions import device_of
from gemmcast.device import Device
from gemmcast.errors import GemmcastError
from gemmcast.modeldir import ShippedModel
from gemmcast.program import json_line, run_script
from gemmcast.rows import config_of, gemm_of
from registry.registry import Registry

DATASET = Path(__file__).resolve().parent.parent / "datasets" / "h100_sxm.parquet"
AGENTS = 64
ROWS = 20_000
NEW_ROWS = 4_000
"""That new cells are made of, with as many repeats as it takes."""
ROWS_PER_S = 20.0
"""Of each agent."""
LIMIT_S = 300.0
SLOWER = 1.15
"""Times of the boards, over the recorded ones."""
TIMES = ("runtime_us", "sustained_runtime_us", "energy_mj")
"""Columns that grow with them."""
FIRST, SECOND = "1", "2"
"""Versions: the shipped model, and the first one that is trained."""


class WatchedFleet(ReplayedFleet):
    """Notes when the first row comes, and when the second version is pushed."""

    first_row_s: float | None = None
    pushed_s: float | None = None

    def poll(self, timeout_s: float) -> list[Event]:
        """See `Fleet`."""
        events = super().poll(timeout_s)
        if self.first_row_s is None and any(isinstance(event, Samples) for event in events):
            self.first_row_s = monotonic()
        return events

    def push(self, model: ShippedModel, version: str) -> None:
        """See `Fleet`."""
        if version == SECOND:
            self.pushed_s = monotonic()
        super().push(model, version)


def main() -> int:
    """Measure and print."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=AGENTS, metavar="N")
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help="in the store before")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        print(json_line(measure(args.agents, args.rows, Path(folder))))
    return 0


def measure(agents: int, rows: int, folder: Path) -> dict[str, float | None]:
    """The figures of one retraining.

    Args:
        folder: an empty one.
    """
    table = recorded(rows + NEW_ROWS)
    device = device_of(table.slice(0, 1).to_pylist())
    new = folder / "new.parquet"
    pq.write_table(table.slice(rows), new)
    registry = Registry(folder / "registry")
    bases = read_bases(SHIPPED)
    publish(registry, judged_base(bases[0]))
    names = {f"node{number:05}/gpu000": number for number in range(agents)}
    boards = {name: replace(device, uuid=f"GPU-{number:08}") for name, number in names.items()}
    directories = [folder / "nodes" / name.partition("/")[0] for name in names]
    for directory in directories:
        modeldir.put_model(directory, models.path().read_bytes(), FIRST)
    query = _query(table, device)
    with SampleStore.writing(folder / "samples", folder) as store:
        store.append([table.slice(0, rows)])
        connect(EMBEDDED)
        pace = Pace(rows_per_s=ROWS_PER_S, batch_rows=round(ROWS_PER_S * batch_s(agents)))
        fleet = WatchedFleet(boards, new, pace, folder / "nodes")
        answering = Answering(directories, query)
        trainer = WatchedTrainer(registry, bases, folder)
        _run(store, fleet, trainer, answering, _cells(new, device, agents))
        answered = answering.close()
    first_s = answered.first_s.get(SECOND, {})
    if len(first_s) < agents:
        rule = f"{len(first_s)} of {agents} nodes answer with a new model after {LIMIT_S:.0f} s"
        raise GemmcastError(rule)
    last_s = max(first_s.values())
    return {
        "agents": agents,
        "rows": rows,
        "seconds": last_s - _known(fleet.first_row_s),
        "until_pushed_s": _known(fleet.pushed_s) - _known(fleet.first_row_s),
        "predictions": answered.values.total() + answered.refused,
        "refused": answered.refused,
        "torn": answered.torn(_expected(registry, query, folder)),
    }


def recorded(rows: int) -> pa.Table:
    """So many rows of the dataset, drawn from all that are ok, on boards that are slower."""
    table = read_samples(DATASET)
    table = table.filter(pc.equal(table["status"], "ok"))
    drawn = np.random.default_rng(1).permutation(len(table))[:rows]
    table = table.take(pa.array(drawn)).combine_chunks()
    for name in TIMES:
        slower = pc.multiply(table[name], SLOWER)
        table = table.set_column(table.column_names.index(name), name, slower)
    return table.cast(SCHEMA)


def _plan() -> Plan:
    sweep = {"family": "cublas", "dtypes": ["fp16"], "shapes": {"sample": 1}}
    devices = {"kind": "cuda", "second_board": 0}
    train = {"at_end": False}
    return parse_plan({"name": "retrain", "devices": devices, "train": train, "sweep": [sweep]})


def _query(table: pa.Table, device: Device) -> Query:
    row = table.slice(0, 1).to_pylist()[0]
    return gemm_of(row), config_of(row), device.name


def _cells(new: Path, device: Device, agents: int) -> list[Cell]:
    """Enough for all agents until the limit."""
    problems = Recording(new).problems
    repeats = round(agents * ROWS_PER_S * LIMIT_S / len(problems))
    cells = []
    for repeat in range(1, 1 + repeats):
        for gemm, config in problems:
            cells.append(Cell(gemm=gemm, config=config, device_key=device.name, repeat=repeat))
    return cells


def _run(
    store: SampleStore,
    fleet: WatchedFleet,
    trainer: WatchedTrainer,
    answering: Answering,
    cells: Sequence[Cell],
) -> None:
    """Measure until every predictor has answered with the second version."""
    watch = trainer.watch
    watch.start()
    scheduler = Scheduler(_plan(), store, fleet, trainer.trainer, champions=watch, cells=cells)
    until_s = monotonic() + LIMIT_S
    agents = len(fleet.ready_agents())

    def is_over() -> bool:
        """Whether all have answered, or it takes too long."""
        return answering.answering(SECOND) == agents or monotonic() > until_s

    scheduler.run(stop=is_over)
    watch.close()
    fleet.close()


class WatchedTrainer:
    """The trainer of a run, and what looks at the registry after each training."""

    def __init__(self, registry: Registry, bases: Sequence[Base], folder: Path) -> None:
        self.watch = ChampionWatch(registry, self._note_champion)
        settings, kept = _plan().train.settings(), folder / "kept"
        self.trainer = RayTrainer(settings, registry, kept, self._note_training, bases)

    def _note_champion(self, _card: ModelCard, _version: str) -> None:
        """Nobody watches."""

    def _note_training(self, _card: ModelCard, version: str | None) -> None:
        print(f"trained: version {version}", file=sys.stderr)
        self.watch.look()


def _expected(registry: Registry, query: Query, folder: Path) -> dict[str, float]:
    """Version -> its answer to the query."""
    gemm, config, device = query
    second = folder / "second.onnx"
    registry.export(SECOND, second)
    files = {FIRST: models.path(), SECOND: second}
    return {
        version: Predictor(file).predict(gemm, config, device).runtime_us
        for version, file in files.items()
    }


def _known(moment_s: float | None) -> float:
    if moment_s is None:
        raise GemmcastError(f"no model was pushed in {LIMIT_S:.0f} s")
    return moment_s


if __name__ == "__main__":
    run_script(main)
