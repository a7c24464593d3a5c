"""`gemmcast COMMAND`: the embedded predictor, and what was tuned, from a shell.

The model is the one that comes with gemmcast; --model names an .onnx file or a node's model
directory instead. With --json, a command prints one JSON
object. Values have the digits that their interval allows. Bad input ends with one line
`error: ...` on stderr and exit code 2. The options are in gemmcast/cli_parser.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gemmcast.carbon import energy_of
from gemmcast.cli_inputs import device_of, gemm_of, open_model, rates_of
from gemmcast.cli_parser import parse_arguments
from gemmcast.cli_text import rounded, show
from gemmcast.config import KernelConfig, library_config
from gemmcast.device import Device
from gemmcast.gemm import Gemm
from gemmcast.prediction import Prediction
from gemmcast.program import json_line, run_command

__all__ = ["main", "prediction_text", "rounded"]

Shown = tuple[dict[str, Any], str]
"""What a command prints: with --json, and as text."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    return run_command(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    args = parse_arguments(argv)
    commands = {
        "predict": predict,
        "rank": rank,
        "pick": pick,
        "llm": llm,
        "lookup": lookup,
        "info": info,
        "models": models,
        "export": export,
    }
    values, text = commands[args.command](args)
    print(json_line(values) if args.json else text)


def predict(args: argparse.Namespace) -> Shown:
    """The cost of one GEMM with one configuration."""
    gemm, rates = gemm_of(args), rates_of(args)
    named = None if args.config is None else KernelConfig.parse(args.config)
    with open_model(args.model) as predictor:
        device = predictor.device(device_of(args.device))
        config = named or library_config(gemm.dtype, device.kind)
        cost = predictor.predict(gemm, config, device, cache=args.cache)
    values = {
        "gemm": asdict(gemm),
        "config": asdict(config),
        "device": device.name,
        "prediction": asdict(cost),
        **rates.values(energy_of(cost)),
    }
    text = prediction_text(gemm, config, device, cost)
    return values, "\n".join([text, *rates.lines(energy_of(cost), "launches")])


def rank(args: argparse.Namespace) -> Shown:
    """Configurations in the order of their cost."""
    from gemmcast import cli_ranking

    return cli_ranking.rank(args)


def pick(args: argparse.Namespace) -> Shown:
    """The configuration to take."""
    from gemmcast import cli_ranking

    return cli_ranking.pick(args)


def llm(args: argparse.Namespace) -> Shown:
    """The GEMMs of a language model, or what they cost."""
    from gemmcast import cli_llm

    return cli_llm.llm(args)


def lookup(args: argparse.Namespace) -> Shown:
    """What a tuned table says to run."""
    from gemmcast import cli_lookup

    return cli_lookup.lookup(args)


def info(args: argparse.Namespace) -> Shown:
    """What a model is, and the devices that can be named."""
    with open_model(args.model) as predictor:
        facts = {"version": predictor.version}
        for key in ("contract", "created_at", "program_version"):
            facts[key] = predictor.metadata[key]
        outputs = list(predictor.outputs)
        devices = predictor.devices
    lines = [f"{key:16} {fact}" for key, fact in facts.items()]
    lines.append(f"{'outputs':16} {', '.join(outputs)}")
    for device in devices:
        lines.append(f"{'device':16} {device.name} ({', '.join(device.peak_tflops)})")
    values = {**facts, "outputs": outputs, "devices": [asdict(device) for device in devices]}
    return values, "\n".join(lines)


def models(_args: argparse.Namespace) -> Shown:
    """The models that come with gemmcast."""
    from gemmcast.cli_models import list_models

    return list_models()


def export(args: argparse.Namespace) -> Shown:
    """Tuned tables as files of runtimes."""
    from gemmcast import cli_export

    return cli_export.export(args)


def prediction_text(gemm: Gemm, config: KernelConfig, device: Device, cost: Prediction) -> str:
    """What `predict` prints. The demo prints it too."""
    return f"{gemm}  {config}  on {device.name}\n{show(cost)}"
