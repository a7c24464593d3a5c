"""The options of `gemmcast predict | rank | pick | lookup | info | models | export`.

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
EXPORT_FORMATS: Final = (
    *("vllm-moe", "vllm-block", "sglang-moe", "sglang-block"),
    *("t4", "c-header", "cublaslt", "cutlass-profiler"),
)
"""As gemmcast/exports/formats.py has them, which --help does not load."""
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
_TABLE: Final = "a tuned table, or a node's model directory"
_OPERATION: Final = (
    "what is computed, where the table has several for a layer: grouped, scaled_block, or '' for a "
    "plain GEMM"
)
_HERE: Final = (
    "the device that runs the kernels: words of its name, or a file with its description in JSON "
    "[default: the devices of the node's directory, or the NVIDIA GPUs of this machine]"
)
_STALE: Final = "take a table that was tuned on another device, or with other versions"
_COMMANDS: Final = {
    "predict": "the cost of one GEMM with one configuration",
    "rank": "configurations in the order of their cost",
    "pick": "the configuration to take, for one GEMM or a list",
    "lookup": "what a tuned table says to run",
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
        _add_options(command, name)
    return parser


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    """The options and positionals of the command of that name."""
    command.add_argument("--json", action="store_true", help="print one JSON object")
    if name == "models":
        return
    if name == "export":
        _add_export(command)
        return
    command.add_argument("--model", type=Path, help=_MODEL)
    if name == "lookup":
        command.add_argument("table", type=Path, metavar="TABLE", help=_TABLE)
    if name in ("predict", "lookup"):
        for size in _SIZES:
            command.add_argument(size, type=int)
    if name != "info":
        _add_gemm(command)
    if name == "lookup":
        _add_table(command)
    elif name != "info":
        _add_device(command)
    if name == "predict":
        command.add_argument("--config", metavar=_CONFIG, help=_FAMILIES)
    if name in ("rank", "pick"):
        _add_choice(command)
    if name == "rank":
        command.add_argument("--top", type=int, help=_TOP)
    if name == "pick":
        _add_default(command)


def _add_gemm(command: argparse.ArgumentParser) -> None:
    _add(command, "--dtype", "fp32", ", ".join(DTYPES))
    _add(command, "--layout", "nn", f"{', '.join(LAYOUTS)}: A, then B; t is stored transposed")
    _add(command, "--batch", 1, "independent products of one shape")
    _add(command, "--beta", 0.0, "C = A·B + beta · C")


def _add_device(command: argparse.ArgumentParser) -> None:
    device = (
        "a device of the model by name or words of it, such as h100 or h100-sxm, or a file with a "
        "device description in JSON"
    )
    command.add_argument("--device", help=f"{device} [default: the model's only device]")
    _add(command, "--cache", "cold", "cold, warm: whether the operands are in the L2 cache")


def _add_table(command: argparse.ArgumentParser) -> None:
    command.add_argument("--operation", help=_OPERATION)
    _add(command, "--objective", "time", "of the table, where TABLE is a directory")
    command.add_argument("--device", help=_HERE)
    command.add_argument("--allow-stale", action="store_true", help=_STALE)


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
