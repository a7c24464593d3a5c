"""`gemmcast llm`: what the GEMMs of a language model cost, on each device and for each step.

Prints a table for each number of tokens, or with --list the GEMMs themselves as CSV, which
`read_gemms` reads.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from gemmcast.carbon import Rates, energy_of
from gemmcast.cli_inputs import device_of, open_model, rates_of
from gemmcast.cli_text import rounded
from gemmcast.device import Device
from gemmcast.forward_pass import SUMMED, Cost, PassCost, by_tokens, costs_on_devices, pareto
from gemmcast.gemm_list import ListedGemm, summed
from gemmcast.language_models import LanguageModel, Step, read_config, whole_numbers
from gemmcast.predictor import Predictor

Shown = tuple[dict[str, Any], str]
"""With --json, and as text."""
LEFT_OUT: Final = (
    "GEMMs only, one after the other: attention, norms, communication and the gaps between kernels "
    "are not in it. Energy is that of all GPUs."
)
_LISTED: Final = ("name", "m", "n", "k", "batch", "dtype", "layout", "weight", "kernel")
_COLUMNS: Final = ("", "runtime, ms", "sustained, ms", "energy, J")
"""Of SUMMED."""
_UNIT: Final = 1000
"""us in a ms, mJ in a J."""
_GIB: Final = 2**30


def llm(args: argparse.Namespace) -> Shown:
    """The GEMMs of a language model, or what they cost."""
    models, rates = _models(args), rates_of(args)
    steps = _steps(args)
    if args.list:
        return _listed(models, steps)
    with open_model(args.model) as predictor:
        named = [predictor.device(device_of(text)) for text in args.device or ()]
        # Two words may name the same device.
        once = {device.name: device for device in named}
        devices = list(once.values()) or named_devices(predictor)
        passes, reasons = costs_on_devices(predictor, devices, models, steps, args.family)
    front = _fronts(passes)
    values = {
        "architecture": models[0].architecture,
        "passes": [_pass(one, id(one) in front, rates) for one in passes],
        "left_out": reasons,
        "note": note_on(models[0]),
    }
    lines = _lines(models[0], passes, front, reasons, rates)
    return values, "\n".join(lines)


def _pass(one: PassCost, is_on_front: bool, rates: Rates) -> dict[str, object]:
    return {**asdict(one), "pareto": is_on_front, **rates.values(energy_of(one.total))}


def note_on(model: LanguageModel) -> str:
    """What its costs are, and are not."""
    return f"{LEFT_OUT} {model.remark}".rstrip()


def _listed(models: Sequence[LanguageModel], steps: Sequence[Step]) -> Shown:
    """The GEMMs of all steps and tensor parallelisms."""
    launches: list[ListedGemm] = []
    for model in models:
        for step in steps:
            launches += model.launches(step)
    gemms = summed(launches)
    values = {"architecture": models[0].architecture, "gemms": [_row(one) for one in gemms]}
    return values, _csv(gemms)


def _models(args: argparse.Namespace) -> list[LanguageModel]:
    config = read_config(args.config)
    numbers = whole_numbers("--tp", args.tp)
    return [LanguageModel.of(config, tp=tp, dtype=args.dtype) for tp in numbers]


def _steps(args: argparse.Namespace) -> list[Step]:
    numbers = whole_numbers("--tokens", args.tokens)
    return [Step(tokens, args.sequences) for tokens in numbers]


def named_devices(predictor: Predictor) -> list[Device]:
    """The devices that a model knows by name, each once."""
    names = dict.fromkeys(device.name for device in predictor.devices)
    return [predictor.device(name) for name in names]


def _row(listed: ListedGemm) -> dict[str, object]:
    values = {**asdict(listed.gemm), **asdict(listed)}
    return {column: values[column] for column in _LISTED}


def _csv(gemms: Sequence[ListedGemm]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _LISTED, lineterminator="\n")
    writer.writeheader()
    for one in gemms:
        writer.writerow({**_row(one), "weight": f"{one.weight:.10g}"})
    return text.getvalue().rstrip("\n")


def _fronts(passes: Sequence[PassCost]) -> set[int]:
    """Identities of the passes on the front of their number of tokens."""
    front: set[int] = set()
    for group in by_tokens(passes).values():
        front |= {id(one) for one in pareto(group)}
    return front


def _lines(
    model: LanguageModel,
    passes: Sequence[PassCost],
    front: set[int],
    reasons: Mapping[str, str],
    rates: Rates,
) -> Iterator[str]:
    yield f"{model.architecture}. {note_on(model)}"
    for tokens, group in by_tokens(passes).items():
        yield ""
        yield f"tokens: {tokens}, rows of lm_head: {group[0].sequences}"
        rows: list[Sequence[str]] = [_COLUMNS]
        for one in group:
            rows += _rows(one, id(one) in front)
            for line in rates.lines(energy_of(one.total), "passes"):
                rows.append((f"  {line}",))
        yield from _aligned(rows)
    yield ""
    yield "* no other device and tp has less time and less energy"
    for name, reason in reasons.items():
        yield f"left out: {name}: {reason}"


def _rows(one: PassCost, on_front: bool) -> Iterator[Sequence[str]]:
    star = " *" if on_front else ""
    gpus = f"{one.tp} x " if one.tp > 1 else ""
    yield (f"{gpus}{one.device}{star}", *_texts(one.total))
    for layer in one.layers:
        yield (f"  one {layer.name} of {layer.count}", *_texts(layer.cost))
    if not one.fits:
        yield (f"  does not fit: {one.weight_bytes / _GIB:.0f} GiB of weights on each GPU",)
    doubtful = one.extrapolating
    if doubtful:
        yield (f"  extrapolating, intervals not reliable: {', '.join(doubtful)}",)


def cost_text(cost: Cost, name: str) -> str | None:
    """A value in ms or J with its interval; None where the model does not predict it."""
    if name not in cost.low:
        return None
    value, low, high = rounded(
        getattr(cost, name) / _UNIT,
        cost.low[name] / _UNIT,
        cost.high[name] / _UNIT,
    )
    return f"{value} ({low} to {high})"


def _texts(cost: Cost) -> Iterator[str]:
    for name in SUMMED:
        yield cost_text(cost, name) or "unknown"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest cell; a row of one cell is a remark of any width."""
    table = [row for row in rows if len(row) > 1]
    columns = max(len(row) for row in table)
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(columns)]
    for row in rows:
        if len(row) == 1:
            yield row[0]
            continue
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join(cells).rstrip()
