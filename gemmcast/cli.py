"""`gemmcast predict | rank | pick | llm | info | models`: the embedded predictor from a shell.

The model is the one that comes with gemmcast; --model names an .onnx file or a node's model
directory instead. With --json, a command prints one JSON
object. Values have the digits that their interval allows. Bad input ends with one line
`error: ...` on stderr and exit code 2. The options are in gemmcast/cli_parser.py.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gemmcast.cli_parser import parse_arguments
from gemmcast.config import KNOBS, KernelConfig, library_config
from gemmcast.device import Device
from gemmcast.errors import InputError
from gemmcast.gemm import Gemm
from gemmcast.prediction import Prediction
from gemmcast.program import json_line, run_command

if TYPE_CHECKING:
    from gemmcast.predictor import Predictor, RankedConfig

Shown = tuple[dict[str, Any], str]
"""What a command prints: with --json, and as text."""
_UNITS: Final = {
    "runtime_us": "us",
    "tflops": "TFLOP/s",
    "sustained_runtime_us": "us",
    "power_w": "W",
    "energy_mj": "mJ",
}
_EXTRAPOLATING: Final = (
    "extrapolating: a size, device, kernel or dtype outside the training range; "
    "the intervals are not reliable"
)


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
        "info": info,
        "models": models,
    }
    values, text = commands[args.command](args)
    print(json_line(values) if args.json else text)


def predict(args: argparse.Namespace) -> Shown:
    """The cost of one GEMM with one configuration."""
    gemm = _gemm(args)
    named = None if args.config is None else KernelConfig.parse(args.config)
    with _open(args.model) as predictor:
        device = predictor.device(_device(args.device))
        config = named or library_config(gemm.dtype, device.kind)
        cost = predictor.predict(gemm, config, device, cache=args.cache)
    values = {
        "gemm": asdict(gemm),
        "config": asdict(config),
        "device": device.name,
        "prediction": asdict(cost),
    }
    return values, prediction_text(gemm, config, device, cost)


def rank(args: argparse.Namespace) -> Shown:
    """The configurations in the order of their cost."""
    gemm = _gemm(args)
    device, ranking = _ranking(args, gemm, top=args.top)
    lines = [f"{gemm} on {device}, lowest {args.objective} first:"]
    for place, ranked in enumerate(ranking, 1):
        lines += [f"{place:3}. {ranked.config}", *_ties(ranked), _show(ranked.prediction)]
    values = {
        "gemm": asdict(gemm),
        "device": device,
        "objective": args.objective,
        "ranking": [asdict(ranked) for ranked in ranking],
    }
    return values, "\n".join(lines)


def pick(args: argparse.Namespace) -> Shown:
    """The configuration with the lowest cost."""
    gemm = _gemm(args)
    device, (best,) = _ranking(args, gemm, top=1)
    values = {
        "gemm": asdict(gemm),
        "device": device,
        "objective": args.objective,
        **asdict(best),
    }
    first = f"{gemm} on {device}, lowest {args.objective}:  {best.config}"
    return values, "\n".join([first, *_ties(best), _show(best.prediction)])


def llm(args: argparse.Namespace) -> Shown:
    """The GEMMs of a language model, or what they cost."""
    from gemmcast import cli_llm

    if args.list:
        return cli_llm.list_gemms(args)
    with _open(args.model) as predictor:
        texts = args.device or list(dict.fromkeys(one.name for one in predictor.devices))
        devices = [predictor.device(_device(text)) for text in texts]
        return cli_llm.show_costs(args, predictor, devices)


def info(args: argparse.Namespace) -> Shown:
    """What a model is, and the devices that can be named."""
    with _open(args.model) as predictor:
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


def prediction_text(gemm: Gemm, config: KernelConfig, device: Device, cost: Prediction) -> str:
    """What `predict` prints. The demo prints it too."""
    return f"{gemm}  {config}  on {device.name}\n{_show(cost)}"


def _ranking(
    args: argparse.Namespace, gemm: Gemm, top: int | None
) -> tuple[str, list[RankedConfig]]:
    """The name of the device, and the ranking."""
    configs = [KernelConfig.parse(text) for text in args.configs]
    if args.configs_file:
        configs += _read_configs(args.configs_file)
    with _open(args.model) as predictor:
        device = predictor.device(_device(args.device))
        ranking = predictor.rank(gemm, configs, args.objective, device, cache=args.cache, top=top)
    return device.name, ranking


def _ties(ranked: RankedConfig) -> Iterator[str]:
    """One line per configuration that the model cannot tell from this one."""
    for other in ranked.tied:
        yield f"     the model cannot tell it from {other}"


def _show(prediction: Prediction) -> str:
    return "\n".join(f"     {line}" for line in _lines(prediction))


def _lines(prediction: Prediction) -> Iterator[str]:
    """One line per predicted value, with the interval that holds nine of ten measurements."""
    for name, low in prediction.low.items():
        high = prediction.high[name]
        value, *bounds = rounded(getattr(prediction, name), low, high)
        yield f"{name:21} {value:>12} {_UNITS[name]:8} ({bounds[0]} to {bounds[1]})"
    if prediction.extrapolating:
        yield _EXTRAPOLATING


def rounded(value: float, low: float, high: float) -> list[str]:
    """Value, low and high with the digits that the interval allows.

    Half the interval keeps two digits, and so does each number.
    """
    half = (high - low) / 2
    texts = []
    for number in (value, low, high):
        decimals = max(_decimals(half), _decimals(number))
        texts.append(f"{round(number, decimals):.{max(0, decimals)}f}")
    return texts


def _decimals(number: float) -> int:
    """Places behind the point that leave two digits; negative: before the point."""
    if not 0 < abs(number) < math.inf:
        return 0
    return 1 - math.floor(math.log10(abs(number)))


def _open(model: Path | None) -> Predictor:
    # ONNX Runtime takes a while to import; --help needs none of it.
    from gemmcast.predictor import Predictor

    return Predictor(model)


def _gemm(args: argparse.Namespace) -> Gemm:
    return Gemm(
        m=args.m,
        n=args.n,
        k=args.k,
        batch=args.batch,
        dtype=args.dtype,
        layout=args.layout,
        beta=args.beta,
    )


def _device(text: str | None) -> Device | str | None:
    """A description, if `text` names a file; else the name itself."""
    if text is None or not Path(text).is_file():
        return text
    try:
        return Device.from_json(Path(text).read_text(encoding="utf-8"), strict=True)
    except (OSError, UnicodeDecodeError) as error:
        way_out = "name a file with a device description in JSON"
        raise InputError("--device", text, f"can't be read ({error})", way_out) from None


def _read_configs(path: Path) -> list[KernelConfig]:
    try:
        return [KernelConfig(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except InputError:
        raise
    except OSError as error:
        rule = f"can't be read ({error.strerror})"
        way_out = "name a JSON list of configurations"
        raise InputError("--configs-file", str(path), rule, way_out) from None
    except (ValueError, TypeError, RecursionError) as error:
        rule = f"not a JSON list of configurations ({error})"
        way_out = f"knobs are {', '.join(KNOBS)}"
        raise InputError("--configs-file", str(path), rule, way_out) from None
