"""`gemmcast lookup TABLE M N K`: what a tuned table says to run.

TABLE is a table's file, or a node's model directory. A table that was tuned on another device or
with other versions is refused, unless --allow-stale.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gemmcast import device_names
from gemmcast.cli_inputs import device_of, gemm_of, open_model
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.local_gpus import local_keys
from gemmcast.table_following import TableFollower, read_all
from gemmcast.table_key import TableKey, check_one_of, key_here
from gemmcast.tuned_table import Looked, NoEntryError, TunedTable

NOTHING_HERE = "there is no NVIDIA GPU here, and no --device"


def lookup(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The answer of a table, or of the model for a layer that it does not have.

    Returns:
        What is printed with --json, and as text.

    Raises:
        InputError: no such table, a stale one, or nothing to run.
    """
    gemm = gemm_of(args)
    device = device_of(args.device)
    table, is_compared = _opened(args, device)
    try:
        looked = table.lookup(gemm, args.operation)
    except NoEntryError:
        with open_model(args.model) as predictor:
            described = device if isinstance(device, Device) else None
            looked = table.with_model(predictor, described).lookup(gemm, args.operation)
    values = {
        "gemm": asdict(gemm),
        "key": asdict(table.key),
        "compared": is_compared,
        "source": looked.source,
        "config": asdict(looked.config),
        "entry": None if looked.entry is None else asdict(looked.entry),
        "prediction": None if looked.prediction is None else asdict(looked.prediction),
    }
    lines = list(_lines(gemm, table.key, looked))
    if not is_compared:
        reason = "stale tables are allowed" if args.allow_stale else NOTHING_HERE
        lines.append(f"     not compared with a device: {reason}")
    return values, "\n".join(lines)


def _opened(args: argparse.Namespace, device: Device | str | None) -> tuple[TunedTable, bool]:
    """The table, and whether it was compared with a device."""
    path: Path = args.table
    if path.is_dir():
        names = [] if device is None else [placed.table.key.device for placed in read_all(path)]
        here = [] if device is None else [_key_of(device, names)]
        stale = args.allow_stale
        with TableFollower(path, here, args.objective, allow_stale=stale) as follower:
            return follower.table, follower.is_compared and not stale
    table = TunedTable.read(path)
    here = local_keys() if device is None else [_key_of(device, [table.key.device])]
    if not args.allow_stale:
        check_one_of(table.key, here, str(path))
    return table, bool(here) and not args.allow_stale


def _key_of(device: Device | str, names: Sequence[str]) -> TableKey:
    """What --device says of the machine. Words of a name stand for one of the names they fit."""
    if isinstance(device, Device):
        return key_here(device)
    fitting = device_names.fitting(device, names)
    return TableKey(device=fitting[0] if len(fitting) == 1 else device)


def _lines(gemm: Gemm, key: TableKey, looked: Looked) -> Iterator[str]:
    yield f"{gemm} on {key.device}, lowest {key.objective}:  {looked.config}"
    if looked.entry is None:
        yield "     no entry for this layer: the model's cautious pick"
        return
    entry = looked.entry
    if looked.source == "nearest":
        yield f"     no entry for this GEMM: that of {entry.gemm}, the nearest of its layer"
    if entry.keeps_default:
        yield "     the default: nothing is surely better"
    else:
        kind = "measured" if entry.verified else "predicted"
        interval = f"{entry.gain_low:.3f} to {entry.gain_high:.3f}"
        yield f"     {entry.gain:.3f} times as good as {entry.default}, {kind} ({interval})"
    yield f"     {entry.measured} of {entry.possible} configurations measured"
    if entry.reason:
        yield f"     {entry.reason}"
