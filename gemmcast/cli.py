"""`gemmcast predict | pick | info`: the embedded predictor from a shell.

The model is an .onnx file or a node's model directory. Every command takes --json; bad input ends with one line and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, get_args

from gemmcast.config import FAMILIES, KNOBS, KernelConfig
from gemmcast.device import Device
from gemmcast.errors import GemmcastError, InputError
from gemmcast.gemm import DTYPES, LAYOUTS, Gemm
from gemmcast.prediction import Objective, Prediction

OUTSIDE: Final = "     extrapolating: a size, device, kernel or dtype beyond what the model was taught; the intervals promise nothing here"


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if args.command is pick and not any(word.startswith("-") for word in rest):
        args.configs += rest  # argparse takes a list of positionals in one piece only, before the options or after
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        answer, text = args.command(args)
    except GemmcastError as error:
        print(f"gemmcast: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer) if args.json else text)
    return 0


def predict(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    gemm, config = _gemm(args), _config(args.config)
    with _open(args.model) as predictor:
        prediction = predictor.predict(gemm, config, _device(args.device), cache=args.cache)
    return {"gemm": asdict(gemm), "config": asdict(config), "prediction": asdict(prediction)}, f"{gemm}  {config}\n{_show(prediction)}"


def pick(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    gemm = _gemm(args)
    configs = [_config(text) for text in args.configs]
    if args.configs_file:
        configs += _read_configs(args.configs_file)
    with _open(args.model) as predictor:
        ranking = predictor.rank(gemm, configs, args.objective, _device(args.device), cache=args.cache, top=args.top)
    lines = [f"{gemm}, least {args.objective} first:"]
    lines += [f"{i:3}. {choice.config}\n{_show(choice.prediction)}" for i, choice in enumerate(ranking, 1)]
    return {"gemm": asdict(gemm), "objective": args.objective, "ranking": [asdict(choice) for choice in ranking]}, "\n".join(lines)


def info(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    with _open(args.model) as predictor:
        answer = {
            "version": predictor.version,
            "outputs": list(predictor.outputs),
            "devices": [asdict(device) for device in predictor.devices],
            **{key: predictor.metadata[key] for key in ("contract", "created_at", "program_version") if key in predictor.metadata},
        }
    lines = [f"{key:16} {value}" for key, value in answer.items() if key not in ("devices", "outputs")]
    lines += [f"{'outputs':16} {', '.join(answer['outputs'])}"]
    lines += [f"{'device':16} {device['name']} ({', '.join(device['peak_tflops'])})" for device in answer["devices"]]
    return answer, "\n".join(lines)


def _show(prediction: Prediction) -> str:
    units = {"runtime_us": "us", "tflops": "TFLOP/s", "sustained_runtime_us": "us", "power_w": "W", "energy_mj": "mJ"}
    known = {name: getattr(prediction, name) for name in prediction.low}
    lines = [f"     {name:21} {value:12.6g} {units[name]:8} {_between(prediction, name)}" for name, value in known.items()]
    return "\n".join([*lines, *([OUTSIDE] if prediction.extrapolating else [])])


def _between(prediction: Prediction, name: str) -> str:
    """Where nine of ten measurements lie."""
    return f"({prediction.low[name]:.4g} to {prediction.high[name]:.4g})"


def _open(model: Path) -> Any:
    from gemmcast.predictor import Predictor

    return Predictor(model)


def _gemm(args: argparse.Namespace) -> Gemm:
    return Gemm(m=args.m, n=args.n, k=args.k, batch=args.batch, dtype=args.dtype, layout=args.layout, beta=args.beta)


def _device(text: str | None) -> Device | str | None:
    if text is not None and Path(text).is_file():
        try:
            return Device.from_json(Path(text).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("--device", text, f"can't be read ({error})", "name a file with a device description in JSON") from None
    return text


def _config(text: str) -> KernelConfig:
    """`tiled:tile=16`, `blas:kernel=blocked,tile_m=64,tile_n=128,tile_k=64` or just `cublas`; `tile` sets all three."""
    family, _, knobs = text.partition(":")
    values: dict[str, Any] = {}
    for knob in filter(None, knobs.split(",")):
        name, equals, value = knob.partition("=")
        if not equals or name not in (*KNOBS, "kernel", "tile"):
            raise InputError("config", text, f"can't read {knob!r}", f"write family:knob=value,... with knobs tile, {', '.join(KNOBS)}")
        if name != "kernel" and not value.isdecimal():
            raise InputError(name, value, "must be a whole number", "correct the configuration")
        if name == "tile":
            values |= dict.fromkeys(("tile_m", "tile_n", "tile_k"), int(value))
        else:
            values[name] = value if name == "kernel" else int(value)
    return KernelConfig(family=family, **values)


def _read_configs(path: Path) -> list[KernelConfig]:
    try:
        return [KernelConfig(**row) for row in json.loads(path.read_text())]
    except OSError as error:
        raise InputError("--configs-file", str(path), f"can't be read ({error.strerror})", "name a JSON list of configurations") from None
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("--configs-file", str(path), f"not a JSON list of configurations ({error})", f"knobs are {', '.join(KNOBS)}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gemmcast", description="What a matrix multiplication costs, before it is run.")
    commands = parser.add_subparsers(required=True, metavar="predict | pick | info")
    for command, text in ((predict, "the cost of one GEMM with one configuration"), (pick, "the cheapest of several configurations")):
        sub = _command(commands, command, text)
        for dim in ("m", "n", "k"):
            sub.add_argument(dim, type=int)
        sub.add_argument("--dtype", default="fp32", help=", ".join(DTYPES))
        sub.add_argument("--layout", default="nn", help=", ".join(LAYOUTS))
        sub.add_argument("--batch", type=int, default=1)
        sub.add_argument("--beta", type=float, default=0.0)
        sub.add_argument("--device", help="a name that the model knows, or a file with a device description in JSON")
        sub.add_argument("--cache", choices=("cold", "warm"), default="cold")
        if command is predict:
            sub.add_argument("--config", required=True, metavar="FAMILY[:KNOB=VALUE,...]", help=f"families: {', '.join(FAMILIES)}")
        else:
            sub.add_argument("--objective", default="time", help=", ".join(get_args(Objective)))
            sub.add_argument("--top", type=int, default=3)
            sub.add_argument("--configs-file", type=Path, help="a JSON list of configurations")
            sub.add_argument("configs", nargs="*", metavar="FAMILY[:KNOB=VALUE,...]")
    _command(commands, info, "what a model is and which devices it knows")
    return parser


def _command(commands: Any, command: Any, text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(command.__name__, help=text, description=text)
    sub.set_defaults(command=command)
    sub.add_argument("--json", action="store_true", help="one JSON object on the last line")
    sub.add_argument("--model", required=True, type=Path, help="an .onnx file, or a node's model directory")
    return sub
