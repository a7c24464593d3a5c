"""The options of `gemmcast predict | rank | pick | info | models`.

A wrong command line ends as every other bad input: one line `error: ...` on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from gemmcast import __version__
from gemmcast.config import FAMILIES
from gemmcast.gemm import DTYPES, LAYOUTS
from gemmcast.objective import OBJECTIVES

_CONFIG: Final = "FAMILY[:KNOB=VALUE,...]"
_FAMILIES: Final = (
    f"families: {', '.join(FAMILIES)} [default: what cuBLAS, or the CPU's BLAS, chooses]"
)
_MODEL: Final = (
    "an .onnx file, or a node's model directory [default: the model that comes with gemmcast]"
)
_SIZES: Final = ("m", "n", "k")
_GEMMS: Final = (
    "a CSV or JSON file of GEMMs in place of M N K: m, n, k, and if you like batch, dtype, layout, "
    "weight, name; --dtype and --layout are what a GEMM without one has"
)
_CANDIDATES: Final = (
    "without configurations: the families that make candidates, such as triton or "
    "triton:scaled_block [default: all of the device's kind]"
)
_WORDS: Final = "sizes, then configurations; without any the families make candidates"
_DEFAULT: Final = (
    "what one gets without tuning; another choice must be surely better "
    "[default: the library's or the engine's]"
)
_TOP: Final = "print only the first TOP, 8 where candidates are made [default: all]"
_COMMANDS: Final = {
    "predict": "the cost of one GEMM with one configuration",
    "rank": "configurations in the order of their cost",
    "pick": "the configuration to take, for one GEMM or a list",
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
    is_ranking = args.command in ("rank", "pick")
    # The list of positionals comes in one piece only, before the options or after them.
    if is_ranking and not any(word.startswith("-") for word in rest):
        args.words += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if is_ranking:
        _divide(parser, args)
    return args


def _divide(parser: Parser, args: argparse.Namespace) -> None:
    """Divide the words of `rank` and `pick` into sizes, which a list of GEMMs replaces, and
    configurations."""
    count = 0 if args.gemms else len(_SIZES)
    sizes, args.configs = args.words[:count], args.words[count:]
    if len(sizes) < count:
        missing = ", ".join(_SIZES[len(sizes) :])
        parser.error(f"the following arguments are required: {missing} (or --gemms FILE)")
    for name, word in zip(_SIZES, sizes, strict=False):
        try:
            setattr(args, name, int(word))
        except ValueError:
            parser.error(f"argument {name}: invalid int value: {word!r}")


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
        if name == "predict":
            for size in _SIZES:
                command.add_argument(size, type=int)
        if name != "info":
            _add_problem(command)
        if name == "predict":
            command.add_argument("--config", metavar=_CONFIG, help=_FAMILIES)
        if name in ("rank", "pick"):
            _add_choice(command)
        if name == "rank":
            command.add_argument("--top", type=int, help=_TOP)
        if name == "pick":
            _add_default(command)
    return parser


def _add_problem(command: argparse.ArgumentParser) -> None:
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
    _add(command, "--objective", "time", ", ".join(OBJECTIVES))
    command.add_argument("--gemms", type=Path, metavar="FILE", help=_GEMMS)
    command.add_argument("--families", type=_words, metavar="FAMILY,...", help=_CANDIDATES)
    command.add_argument("--configs-file", type=Path, help="a JSON list of configurations")
    command.add_argument("words", nargs="*", metavar=f"M N K [{_CONFIG} ...]", help=_WORDS)


def _add_default(command: argparse.ArgumentParser) -> None:
    command.add_argument("--default", metavar=_CONFIG, help=_DEFAULT)
    command.add_argument(
        "--bold", action="store_true", help="take the cheapest, however sure that is"
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _add(command: argparse.ArgumentParser, name: str, default: str | float, help_: str) -> None:
    """An option whose help shows its default."""
    text = f"{help_} [default: %(default)s]"
    command.add_argument(name, default=default, type=type(default), help=text)
