"""The options of `gemmcast predict | rank | pick | llm | info | models`.

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
_DEFAULT: Final = " [default: %(default)s]"
_MAX_DIGITS: Final = 8
_COMMANDS: Final = {
    "predict": "the cost of one GEMM with one configuration",
    "rank": "several configurations in the order of their cost",
    "pick": "the configuration with the lowest cost",
    "llm": "what the GEMMs of a language model cost: a layer and a forward pass, on each device",
    "info": "what a model is, and the devices that can be named",
    "models": "the models that come with gemmcast: what they may be asked, how wrong they are",
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
        if name == "models":
            continue
        command.add_argument("--model", type=Path, help=_MODEL)
        if name == "llm":
            _add_language_model(command)
        elif name != "info":
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


def _add_language_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, help="a Hugging Face config.json, or its folder")
    tokens = "rows of a forward pass, one or several numbers"
    command.add_argument(
        "--tokens", default="1,16,256,4096", type=_numbers, help=f"{tokens}{_DEFAULT}"
    )
    tp = "GPUs that share each layer, one or several numbers"
    command.add_argument("--tp", default="1", type=_numbers, help=f"{tp}{_DEFAULT}")
    sequences = (
        "sequences that the tokens belong to; fewer than tokens are prompts [default: one for each "
        "token, as while decoding]"
    )
    command.add_argument("--sequences", type=int, help=sequences)
    _add(command, "--dtype", "bf16", "of what the configuration does not quantize")
    family = (
        "whose default computes the GEMMs that it can run [default: what the vendor's library "
        "chooses]"
    )
    command.add_argument("--family", help=family)
    device = "as for predict; may be repeated [default: every device of the model]"
    command.add_argument("--device", action="append", help=device)
    list_ = "print the GEMMs as CSV instead of their cost"
    command.add_argument("--list", action="store_true", help=list_)


def _numbers(text: str) -> list[int]:
    """`1,16,256`, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) <= _MAX_DIGITS for word in words):
        raise argparse.ArgumentTypeError(f"{text!r}: write whole numbers, as 1,16,256")
    return list(dict.fromkeys(int(word) for word in words))


def _add(command: argparse.ArgumentParser, name: str, default: str | float, help_: str) -> None:
    """An option whose help shows its default."""
    command.add_argument(name, default=default, type=type(default), help=f"{help_}{_DEFAULT}")
