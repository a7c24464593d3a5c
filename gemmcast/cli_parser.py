"""The command line of `gemmcast`, whose options are in gemmcast/cli_options.py.

A wrong command line ends as every other bad input: one line `error: ...` on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from gemmcast import __version__
from gemmcast.cli_options import COMMANDS, SIZES


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without argparse's usage text. Benchmarks use it too."""

    def error(self, message: str) -> NoReturn:
        """Print one line and end the process."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command, which `command` names. A wrong command line ends the process."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # Errors name the help of the command.
    parser.prog = f"{parser.prog} {args.command}"
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
    if args.gemms and args.words[:1] and args.words[0].isdecimal():
        parser.error(f"M N K = {' '.join(args.words)}: --gemms has the sizes; give one of the two")
    count = 0 if args.gemms else len(SIZES)
    sizes, args.configs = args.words[:count], args.words[count:]
    if len(sizes) < count:
        missing = ", ".join(SIZES[len(sizes) :])
        parser.error(f"the following arguments are required: {missing} (or --gemms FILE)")
    for name, word in zip(SIZES, sizes, strict=False):
        try:
            setattr(args, name, int(word))
        except ValueError:
            parser.error(f"argument {name}: invalid int value: {word!r}")


def _parser() -> Parser:
    text = "Predict what a matrix multiplication costs, before it runs."
    parser = Parser(prog="gemmcast", description=text)
    parser.add_argument("--version", action="version", version=f"gemmcast {__version__}")
    commands = parser.add_subparsers(
        required=True, dest="command", metavar=" | ".join(COMMANDS), parser_class=Parser
    )
    for name, (help_, add_options) in COMMANDS.items():
        command = commands.add_parser(name, help=help_, description=help_)
        command.add_argument("--json", action="store_true", help="print one JSON object")
        add_options(command)
    return parser
