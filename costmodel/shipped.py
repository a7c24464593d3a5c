"""The model that comes with gemmcast, made from datasets/.

    python -m costmodel.shipped       writes gemmcast/models/default.onnx and its card default.json

It is `train` on every table but exams, which no model may see, and the demo's recordings, which the
demo predicts. The same tables give the same bytes on one machine: seeds are fixed, `created_at` is
the time of the newest sample, each process has one thread, and the card has neither latencies nor
digits that change with the order of a sum. Why it is a command of its own and what was compared:
docs/decisions/0020-shipped-model.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from costmodel.exam import check_exam, read_exam
from costmodel.progress import Step, no_step
from costmodel.settings import TrainSettings
from costmodel.train import TrainedModel, train
from gemmcast import models
from gemmcast.arrow import read_samples
from gemmcast.card import ModelCard
from gemmcast.cli_parser import Parser
from gemmcast.draw import is_drawn
from gemmcast.errors import InputError
from gemmcast.modeldir import check_writable, sha256, write_atomically
from gemmcast.program import run_script

DATASETS: Final = Path(__file__).resolve().parents[1] / "datasets"
EXAM: Final = "exam"
NOT_TRAINED_ON: Final = (EXAM, "demo")
"""Words of names: an exam is looked at once per release, the demo predicts its own recording."""
DIGITS: Final = 6
"""Of the numbers of its card."""
MAX_BYTES: Final = 5 * 2**19
"""Of the file: 2.5 MiB, because it is in every wheel."""


def training_files(folder: Path) -> list[Path]:
    """The tables that the shipped model is made from, by name."""
    files: list[Path] = []
    for path in _tables(folder):
        if not _has_word(path, *NOT_TRAINED_ON):
            files.append(path)
    return files


def hashes(files: list[Path]) -> dict[str, str]:
    """Name -> SHA-256 of the file."""
    by_name: dict[str, str] = {}
    for path in files:
        by_name[path.name] = sha256(path.read_bytes())
    return by_name


def make(folder: Path, rows: int | None = None, step: Step = no_step) -> TrainedModel:
    """The model of the tables in a folder, with its card.

    Args:
        rows: of each table at most about so many, by whole shapes: a quick model, which its card
            says in `split`. None: all.

    Raises:
        InputError: no tables, one that shares boards or layers with an exam, or too large a file.
    """
    files = training_files(folder)
    if not files:
        rule = "holds no tables to train on"
        raise InputError("--datasets", str(folder), rule, "name a folder of Parquet files")
    tables = {path.name: read_samples(path) for path in files}
    _check_exams(folder, tables)
    stamps: list[str] = []
    samples: list[pa.Table] = []
    for table in tables.values():
        stamps.append(pc.max(table["measured_at"]).as_py())
        samples.append(_thinned(table, rows))
    with threadpool_limits(1):
        trained = train(
            pa.concat_tables(samples),
            TrainSettings(),
            created_at=max(stamps),
            step=step,
        )
    _check_size(trained.model)
    card = _reproducible(trained.card, hashes(files))
    if rows is not None:
        split = f"{card.split}; of each table about {rows} rows at most"
        card = replace(card, split=split)
    return replace(trained, card=card)


def _check_size(model: bytes) -> None:
    size = len(model)
    if size > MAX_BYTES:
        limit_mib = MAX_BYTES / 2**20
        rule = f"is above {limit_mib:g} MiB, and every wheel would hold it"
        raise InputError("bytes of the model", size, rule, "make the model smaller")


def _thinned(table: pa.Table, rows: int | None) -> pa.Table:
    """About so many rows: all rows of some shapes, drawn independently of those held out."""
    if rows is None or len(table) <= rows:
        return table
    share = rows / len(table)
    columns = table.select(["m", "n", "k"]).to_pydict()
    is_kept: list[bool] = []
    for shape in zip(*columns.values(), strict=True):
        is_kept.append(is_drawn(f"quick {shape}", share))
    return table.filter(pa.array(is_kept))


def _reproducible(card: ModelCard, datasets: Mapping[str, str]) -> ModelCard:
    """The card without what differs from run to run, and with the tables' hashes."""
    timeless = replace(
        card,
        datasets=datasets,
        latency_p50_us=None,
        sklearn_latency_p50_us=None,
    )
    rounded = _rounded(asdict(timeless))
    return ModelCard.from_json(json.dumps(rounded))


def _rounded(values: object) -> object:
    """Every number with DIGITS digits, however deep it lies."""
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_rounded(value) for value in values]
    if isinstance(values, float):
        return float(f"{values:.{DIGITS}g}")
    return values


def _tables(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _has_word(path: Path, *words: str) -> bool:
    of_name = path.stem.split("_")
    return any(word in of_name for word in words)


def _check_exams(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    for path in _tables(folder):
        if _has_word(path, EXAM):
            check_exam(read_exam(path), tables)


def main() -> None:
    """The command."""
    parser = Parser(prog="python -m costmodel.shipped", description="Make the shipped model.")
    parser.add_argument("--datasets", type=Path, default=DATASETS, help="folder of Parquet files")
    parser.add_argument("--out", type=Path, default=models.FOLDER, help="folder to write to")
    parser.add_argument("--rows", type=int, help="of each table at most: a quick, worse model")
    args = parser.parse_args()
    check_writable(args.out)
    made = make(args.datasets, args.rows, _print)
    model: Path = args.out / f"{models.DEFAULT}.onnx"
    write_atomically(model, made.model)
    card = made.card.to_json()
    write_atomically(model.with_suffix(".json"), card.encode())
    print(f"{len(made.model)} bytes, SHA-256 {made.card.sha256}, in {args.out}")


def _print(part: str, done: int, total: int) -> None:
    print(f"{part} {done} of {total}" if total > 1 else part, flush=True)


if __name__ == "__main__":
    run_script(main)
