"""The options of `gemmcast predict | rank | pick | info | models | export`.

A wrong command line ends as every other bad input: one line `error: ...` on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, get_args

from gemmcast import __version__
from gemmcast.config import FAMILIES
from gemmcast.gemm import DTYPES, LAYOUTS
from gemmcast.prediction import Objective

_CONFIG: Final = "FAMILY[:KNOB=VALUE,...]"
_FAMILIES: Final = (
    f"families: {', '.join(FAMILIES)} [default: what cuBLAS, or the CPU's BLAS, chooses]"
)
_MODEL: Final = (
    "an .onnx file, or a node's model directory [default: the model that comes with gemmcast]"
)
EXPORT_FORMATS: Final = (
    *("vllm-moe", "vllm-block", "sglang-moe", "sglang-block"),
    *("t4", "c-header", "cublaslt", "cutlass-profiler"),
)
"""As gemmcast/exports/formats.py has them, which --help does not load."""
_COMMANDS: Final = {
    "predict": "the cost of one GEMM with one configuration",
    "rank": "several configurations in the order of their cost",
    "pick": "the configuration with the lowest cost",
    "info": "what a model is, and the devices that can be named",
    "models": "the models that come with gemmcast: what they may be asked, how wrong they are",
    "export": "tuned tables as the files that runtimes read",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without argparse's usage text. Benchmarks use it too."""

    def error(self, message: str) -> NoReturn:
        """Print one line and end the process."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command, which `command` names. A wrong command line ends the process."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # The list of positionals comes in one piece only, before the options or after them.
    if args.command in ("rank", "pick") and not any(word.startswith("-") for word in rest):
        args.configs += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _parser() -> Parser:
    text = "Predict what a matrix multiplication costs, before it runs."
    parser = Parser(prog="gemmcast", description=text)
    parser.add_argument("--version", action="version", version=f"gemmcast {__version__}")
    commands = parser.add_subparsers(
        required=True, dest="command", metavar=" | ".join(_COMMANDS), parser_class=Parser
    )
    for name, help_ in _COMMANDS.items():
        command = commands.add_parser(name, help=help_, description=help_)
        command.add_argument("--json", action="store_true", help="print one JSON object")
        if name == "export":
            _add_export(command)
        if name in ("models", "export"):
            continue
        command.add_argument("--model", type=Path, help=_MODEL)
        if name != "info":
            _add_problem(command)
        if name == "predict":
            command.add_argument("--config", metavar=_CONFIG, help=_FAMILIES)
        if name in ("rank", "pick"):
            _add_choice(command)
        if name == "rank":
            command.add_argument("--top", type=int, help="print only the first TOP [default: all]")
    return parser


def _add_problem(command: argparse.ArgumentParser) -> None:
    for size in ("m", "n", "k"):
        command.add_argument(size, type=int)
    _add(command, "--dtype", "fp32", ", ".join(DTYPES))
    _add(command, "--layout", "nn", f"{', '.join(LAYOUTS)}: A, then B; t is stored transposed")
    _add(command, "--batch", 1, "independent products of one shape")
    _add(command, "--beta", 0.0, "C = A·B + beta · C")
    device = (
        "a device of the model by name or words of it, such as h100 or h100-sxm, or a file with a "
        "device description in JSON"
    )
    command.add_argument("--device", help=f"{device} [default: the model's only device]")
    _add(command, "--cache", "cold", "cold, warm: whether the operands are in the L2 cache")


def _add_choice(command: argparse.ArgumentParser) -> None:
    _add(command, "--objective", "time", ", ".join(get_args(Objective)))
    command.add_argument("--configs-file", type=Path, help="a JSON list of configurations")
    command.add_argument("configs", nargs="*", metavar=_CONFIG)


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="a tuned table")
    formats = ", ".join(EXPORT_FORMATS)
    command.add_argument("--format", required=True, help=f"{formats} (docs/exports.md)")
    command.add_argument("--out", type=Path, required=True, help="folder for the files")
    command.add_argument("--kernel", help="Triton kernel whose entries an engine's file gets")
    mixture = command.add_argument_group("of a fused MoE layer, as it is on one device")
    mixture.add_argument("--experts", type=int, help="number of experts")
    mixture.add_argument("--top-k", type=int, help="experts that each token goes to")
    mixture.add_argument("--intermediate", type=int, help="columns of an expert's down projection")
    decides = "gate_up, down: the product that decides; both: what both agree on, else the default"
    mixture.add_argument("--decides", default="both", help=f"{decides} [default: %(default)s]")
    mixture.add_argument("--block-shape", metavar="N,K", help="elements that share a scale")


def _add(command: argparse.ArgumentParser, name: str, default: str | float, help_: str) -> None:
    """An option whose help shows its default."""
    text = f"{help_} [default: %(default)s]"
    command.add_argument(name, default=default, type=type(default), help=text)
